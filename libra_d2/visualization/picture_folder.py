"""Draw predictions and annotations from files onto their images, into a folder of pictures."""

import logging
import os
import posixpath
import zlib
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set, Tuple, Union

import numpy as np
from PIL import Image

from ..data.datasets.coco import usable_annotations
from ..data.datasets.coco_format import read_coco
from ..data.images.names import locate_images, moved_images, say_moved
from ..data.images.reader import read_image
from ..errors import UserError
from ..predictions.checks import read_fitting_predictions
from ..predictions.reading import read_predictions
from ..predictions.score_thresholds import ScoreThresholds
from ..utils.files import check_outputs
from ..utils.progress import progress
from ..utils.system_errors import write_error
from .detection_pictures import draw_boxes, save_picture
from .match_pictures import MatchCounts, matches_picture

logger = logging.getLogger(__name__)

FORMATS: Dict[str, Dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    "png": {"format": "PNG"},
}


@dataclass
class DrawnPictures:
    """
    The result of :func:`draw_files`.

    Attributes:
        num_drawn: number of pictures that were written.
        problems: one line for each image that could not be drawn.
        counts: sums over all pictures. None if only one of the two files was given.
    """

    num_drawn: int = 0
    problems: List[str] = field(default_factory=list)
    counts: Optional[MatchCounts] = None


@dataclass
class _Entry:
    """
    An image to draw. Its objects and detections are those of :func:`draw_matches`, with the index
    of their color in `colour`.
    """

    name: str
    size: Tuple[int, int] = (0, 0)  # width and height, if known
    objects: List[Dict[str, Any]] = field(default_factory=list)
    detections: List[Dict[str, Any]] = field(default_factory=list)
    path: str = ""


def draw_files(
    output: str,
    *,
    predictions: str = "",
    annotations: str = "",
    images: str = "",
    score_threshold: Union[float, ScoreThresholds] = 0.5,
    iou_threshold: float = 0.5,
    side_by_side: bool = False,
    classes: Sequence[str] = (),
    limit: int = 0,
    image_format: str = "jpg",
) -> DrawnPictures:
    """
    Draw the detections, the objects, or both, of all images of a file.

    If predictions and annotations are given, the pictures mark hits, false detections and missed
    objects. The folders of the images are kept: `x/1.jpg` is drawn as `x/1.jpg` in `output`.

    Args:
        output: folder to write to. It is created if it does not exist.
        predictions: file of predictions, as JSON by image, COCO results or CSV.
        annotations: file of COCO annotations.
        images: folder that the names of images are relative to. By default, this is the working
            folder.
        score_threshold: detections with lower scores are not drawn. One number, or the thresholds
            of the classes.
        iou_threshold: detections with lower IoUs are not hits.
        side_by_side: whether to draw the ground truth on the left and the detections on the right.
        classes: draw only these classes. By default, all are drawn.
        limit: maximum number of images to draw, from the start of the file. 0 draws all.
        image_format: "jpg" or "png".

    Returns:
        The number of pictures, and a line for each image that could not be drawn.

    Raises:
        UserError: a setting is wrong, or a file cannot be read or written.
    """
    if not predictions and not annotations:
        raise UserError("there is nothing to draw. Give predictions, annotations, or both")
    both = bool(predictions and annotations)
    if side_by_side and not both:
        raise UserError("side_by_side needs both predictions and annotations")
    if not 0 < iou_threshold <= 1:
        raise UserError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
    thresholds = score_threshold
    if not isinstance(thresholds, ScoreThresholds):
        if not 0 <= thresholds <= 1:
            raise UserError(f"score_threshold must be in [0, 1], got {thresholds}")
        thresholds = ScoreThresholds(thresholds)
    if limit < 0:
        raise UserError(f"limit must be at least 0, got {limit}")
    if image_format not in FORMATS:
        raise UserError(f"image_format must be one of {list(FORMATS)}, got {image_format!r}")
    if images and not os.path.isdir(images):
        raise UserError(f"images must be an existing folder, got {images}")

    drawn = DrawnPictures(counts=MatchCounts() if both else None)
    if annotations:
        entries, names = _of_annotations(annotations, predictions, drawn.problems)
    else:
        entries, names = _of_predictions(predictions)
    if predictions:
        drawn_classes = dict.fromkeys(d["class"] for e in entries for d in e.detections)
        note = thresholds.note_on_missing(drawn_classes)
        if note:
            logger.warning(note)
    _find_images(entries, images, annotations or predictions)
    _keep_classes(entries, classes, names)
    targets = _targets(entries, output, image_format)
    _check_apart(entries, targets)
    check_outputs(
        {"--output": targets}, {"--predictions": predictions, "--annotations": annotations}
    )
    if limit:
        entries, targets = entries[:limit], targets[:limit]
    for entry, target in zip(progress(entries, "Drawing"), targets):
        try:
            image = _read(entry)
            if both:
                picture, counts = matches_picture(
                    image,
                    entry.objects,
                    entry.detections,
                    iou_threshold,
                    thresholds,
                    side_by_side,
                    legend=True,
                )
            else:
                picture, counts = _one_source(image, entry, thresholds), None
            _save(picture, target, image_format)
        except _UnusableImageError as e:
            drawn.problems.append(f"{entry.name}: {e}")
            continue
        drawn.num_drawn += 1
        if drawn.counts is not None and counts is not None:
            drawn.counts += counts
    return drawn


def _of_predictions(path: str) -> Tuple[List[_Entry], Set[str]]:
    entries, names = [], set()
    for p in read_predictions(path):
        if not p.file_name:
            raise UserError(
                f"predictions {path} are COCO results, which do not name image files. Give the "
                "annotations, too"
            )
        video, _, frame = p.file_name.rpartition("#")
        if frame.isdigit() and not os.path.isfile(p.file_name) and os.path.isfile(video):
            raise UserError(
                f"predictions {path} are of the video {video}. Use `libra-d2 infer --draw` to draw "
                "it"
            )
        entry = _Entry(p.file_name, (p.width, p.height))
        for box, score, category, name in zip(p.boxes, p.scores, p.category_ids, p.class_names):
            # Files may number their classes differently, but the names stay the same.
            text = str(name or category).encode(errors="replace")
            colour = category if isinstance(category, int) else zlib.crc32(text)
            bbox = [*box[:2], *(box[2:] - box[:2])]
            name = name or f"class {category}"
            names.add(name)
            entry.detections.append({"bbox": bbox, "class": name, "score": score, "colour": colour})
        entries.append(entry)
    return entries, names


def _of_annotations(
    annotations: str, predictions: str, problems: List[str]
) -> Tuple[List[_Entry], Set[str]]:
    data = read_coco(annotations)
    categories = {c["id"]: c for c in data["categories"]}
    colours = {c: c if isinstance(c, int) else i for i, c in enumerate(categories)}
    entries = {i["id"]: _Entry(i["file_name"], (i["width"], i["height"])) for i in data["images"]}

    def as_drawn(a: Dict[str, Any], **more: Any) -> Dict[str, Any]:
        category = a["category_id"]
        name, colour = categories[category]["name"], colours[category]
        return {"bbox": a["bbox"], "class": name, "colour": colour, **more}

    usable = usable_annotations(data)
    for a in usable:
        crowd = bool(a.get("iscrowd", 0))
        entries[a["image_id"]].objects.append(as_drawn(a, crowd=crowd))
    left_out = len(data["annotations"]) - len(usable)
    if left_out:
        logger.warning(
            f"{annotations}: left out {left_out} annotations that are not ground truth, because "
            "their box has no area or lies outside of the image, or because the file does not "
            "list their image"
        )
    if predictions:
        results, unknown = read_fitting_predictions(predictions, data, annotations)
        problems += [f"{name}: the image is not in {annotations}" for name in unknown]
        for r in results:
            entries[r["image_id"]].detections.append(as_drawn(r, score=r["score"]))
    return list(entries.values()), {c["name"] for c in data["categories"]}


def _find_images(entries: Sequence[_Entry], images: str, file: str) -> None:
    """
    Find the images in a folder, or take their names as paths if no folder is given.

    Args:
        file: file that contains the names, for messages.
    """
    names = [entry.name for entry in entries]
    found = locate_images(names, images) if images else dict(zip(names, names))
    for entry in entries:
        entry.path = found[entry.name]
    say_moved(logger, file, moved_images(found, images), len(found))


def _keep_classes(entries: Iterable[_Entry], classes: Sequence[str], names: Set[str]) -> None:
    unknown = [c for c in classes if c not in names]
    if unknown:
        raise UserError(f"classes must be among {sorted(names)}, got {unknown[0]!r}")
    if classes:
        for entry in entries:
            entry.objects = [o for o in entry.objects if o["class"] in classes]
            entry.detections = [d for d in entry.detections if d["class"] in classes]


def _targets(entries: Sequence[_Entry], output: str, suffix: str) -> List[str]:
    """
    Return a different file for each picture. The folders of relative names are kept; absolute names
    are put below the folder that they have in common.
    """
    names = [posixpath.normpath(e.name.replace("\\", "/")) for e in entries]
    outside = [n.startswith(("/", "../")) for n in names]
    names = [posixpath.abspath(n) if o else n for n, o in zip(names, outside)]
    folders = [posixpath.dirname(n) for n, o in zip(names, outside) if o]
    common = posixpath.commonpath(folders) if folders else ""
    used: Set[str] = set()
    targets = []
    for name, is_outside in zip(names, outside):
        name = posixpath.relpath(name, common) if is_outside else name
        stem = posixpath.splitext(name)[0]
        choices = [stem, name, *(f"{name}-{i}" for i in range(2, len(names) + 2))]
        # Some file systems do not distinguish upper and lower case.
        chosen = next(c for c in choices if c.lower() not in used)
        used.add(chosen.lower())
        targets.append(os.path.join(output, *f"{chosen}.{suffix}".split("/")))
    return targets


def _check_apart(entries: Sequence[_Entry], targets: Sequence[str]) -> None:
    """Check that no picture can replace an image, even one that is not drawn."""
    sources = {os.path.dirname(e.path) for e in entries if os.path.isfile(e.path)}
    sources = {os.path.realpath(folder) for folder in sources}
    for folder in {os.path.dirname(target) for target in targets}:
        if os.path.realpath(folder) in sources:
            raise UserError(
                f"the pictures would be written into {folder}, which contains the images. Choose "
                "another output folder"
            )


class _UnusableImageError(Exception):
    """Says why an image cannot be drawn."""


def _read(entry: _Entry) -> np.ndarray:
    if not os.path.isfile(entry.path):
        raise _UnusableImageError(f"no such file: {entry.path}")
    try:
        image = read_image(entry.path, format="RGB")
    except ValueError as e:
        raise _UnusableImageError(f"cannot be read: {e}") from None
    height, width = image.shape[:2]
    if any(stated and stated != side for stated, side in zip(entry.size, (width, height))):
        stated = "x".join(map(str, entry.size))
        raise _UnusableImageError(
            f"the image is {width}x{height}, but the file with its boxes says {stated}"
        )
    return np.ascontiguousarray(image)


def _one_source(image: np.ndarray, entry: _Entry, thresholds: ScoreThresholds) -> Image.Image:
    """Draw objects, or detections if there are no objects, in the colors of their classes."""
    shown = entry.objects or [
        d for d in entry.detections if d["score"] >= thresholds.of(d["class"])
    ]
    boxes = np.array([s["bbox"] for s in shown], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [
        f"crowd of {s['class']}"
        if s.get("crowd")
        else s["class"] + (f" {s['score']:.0%}" if "score" in s else "")
        for s in shown
    ]
    return Image.fromarray(draw_boxes(image, boxes, [s["colour"] for s in shown], labels))


def _save(picture: Image.Image, path: str, image_format: str) -> None:
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        save_picture(picture, path, **FORMATS[image_format])
    except OSError as e:
        if e.errno is None:  # from the encoder: the picture is too large for the format
            raise _UnusableImageError(
                f"a {picture.width}x{picture.height} picture cannot be saved as {image_format}: {e}"
            ) from None
        raise write_error(e, path) from None
