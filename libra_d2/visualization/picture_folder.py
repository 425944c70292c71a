"""A folder of pictures from files of predictions and annotations."""

import logging
import os
import posixpath
import zlib
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set, Tuple

import numpy as np
from PIL import Image

from ..data.datasets.coco import usable_annotations
from ..data.datasets.coco_format import read_coco
from ..data.images.names import locate_images, moved_images, say_moved
from ..data.images.reader import read_image
from ..errors import UserError
from ..predictions.checks import read_fitting_predictions
from ..predictions.reading import read_predictions
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
    """What :func:`draw_files` did."""

    num_drawn: int = 0
    problems: List[str] = field(default_factory=list)  # one line an image
    counts: Optional[MatchCounts] = None  # of all pictures, if there were both files


@dataclass
class _Entry:
    """An image; objects and detections as in :func:`draw_matches`, with a `colour` index."""

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
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    side_by_side: bool = False,
    classes: Sequence[str] = (),
    limit: int = 0,
    image_format: str = "jpg",
) -> DrawnPictures:
    """
    Draw objects, or detections, or hits, false detections and missed objects where both files are
    given. Pictures lie in folders as the images do.

    Args:
        output: folder to write to, made if it is not there.
        predictions: JSON by image, COCO results or CSV.
        annotations: COCO annotations.
        images: folder that the names of images are relative to; by default the working folder.
        score_threshold, iou_threshold: of the detections to draw, and of hits.
        side_by_side: ground truth on the left, detections on the right.
        classes: the only ones to draw; all by default.
        limit: number of images, the first ones of the file; 0: all.
        image_format: "jpg" or "png".

    Returns:
        The number of pictures, and a line for each image that could not be drawn.

    Raises:
        UserError: a file cannot be used, or the settings do not fit.
    """
    if not predictions and not annotations:
        raise UserError("nothing to draw: name predictions, annotations, or both")
    both = bool(predictions and annotations)
    if side_by_side and not both:
        raise UserError("side by side needs predictions and annotations")
    if not 0 < iou_threshold <= 1:
        raise UserError(f"IoU threshold {iou_threshold}: not in (0, 1]")
    if not 0 <= score_threshold <= 1:
        raise UserError(f"score threshold {score_threshold}: not in [0, 1]")
    if limit < 0:
        raise UserError(f"limit {limit}: not a number of images")
    if image_format not in FORMATS:
        raise UserError(f"format {image_format!r}: not one of {list(FORMATS)}")
    if images and not os.path.isdir(images):
        raise UserError(f"image folder {images} does not exist")

    drawn = DrawnPictures(counts=MatchCounts() if both else None)
    if annotations:
        entries, names = _of_annotations(annotations, predictions, drawn.problems)
    else:
        entries, names = _of_predictions(predictions)
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
                    score_threshold,
                    side_by_side,
                    legend=True,
                )
            else:
                picture, counts = _one_source(image, entry, score_threshold), None
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
                f"predictions {path} are COCO results, which name no image files: give the "
                "annotations, too"
            )
        video, _, frame = p.file_name.rpartition("#")
        if frame.isdigit() and not os.path.isfile(p.file_name) and os.path.isfile(video):
            raise UserError(
                f"predictions {path} are of the video {video}: its frames are drawn by infer --draw"
            )
        entry = _Entry(p.file_name, (p.width, p.height))
        for box, score, category, name in zip(p.boxes, p.scores, p.category_ids, p.class_names):
            # Names stay the same where files number their classes in other ways.
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
            f"{annotations}: left out {left_out} annotations that are no ground truth: boxes "
            "without area or outside of their image, or of images that the file does not list"
        )
    if predictions:
        results, unknown = read_fitting_predictions(predictions, data, annotations)
        problems += [f"{name}: not in {annotations}" for name in unknown]
        for r in results:
            entries[r["image_id"]].detections.append(as_drawn(r, score=r["score"]))
    return list(entries.values()), {c["name"] for c in data["categories"]}


def _find_images(entries: Sequence[_Entry], images: str, file: str) -> None:
    """In a given folder, as all commands do; else the names are paths. `file` has the names."""
    names = [entry.name for entry in entries]
    found = locate_images(names, images) if images else dict(zip(names, names))
    for entry in entries:
        entry.path = found[entry.name]
    say_moved(logger, file, moved_images(found, images), len(found))


def _keep_classes(entries: Iterable[_Entry], classes: Sequence[str], names: Set[str]) -> None:
    unknown = [c for c in classes if c not in names]
    if unknown:
        raise UserError(f"no class {unknown[0]!r} in the files, only {sorted(names)}")
    if classes:
        for entry in entries:
            entry.objects = [o for o in entry.objects if o["class"] in classes]
            entry.detections = [d for d in entry.detections if d["class"] in classes]


def _targets(entries: Sequence[_Entry], output: str, suffix: str) -> List[str]:
    """
    Different files, in the folders of the images: of relative names as they are, of others below
    the folder that they have in common.
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
        # Some file systems do not tell capitals apart.
        chosen = next(c for c in choices if c.lower() not in used)
        used.add(chosen.lower())
        targets.append(os.path.join(output, *f"{chosen}.{suffix}".split("/")))
    return targets


def _check_apart(entries: Sequence[_Entry], targets: Sequence[str]) -> None:
    """No picture may replace an image, not even one that is not drawn."""
    sources = {os.path.dirname(e.path) for e in entries if os.path.isfile(e.path)}
    sources = {os.path.realpath(folder) for folder in sources}
    for folder in {os.path.dirname(target) for target in targets}:
        if os.path.realpath(folder) in sources:
            raise UserError(
                f"pictures would lie among the images in {folder}: choose another folder"
            )


class _UnusableImageError(Exception):
    """Why there is no picture of it."""


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
        raise _UnusableImageError(f"is {width}x{height}, but {stated} in the file of boxes")
    return np.ascontiguousarray(image)


def _one_source(image: np.ndarray, entry: _Entry, score_threshold: float) -> Image.Image:
    """Objects, or detections where there are no objects, in the colours of their classes."""
    shown = entry.objects or [d for d in entry.detections if d["score"] >= score_threshold]
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
        if e.errno is None:  # of the encoder: too large for the format
            raise _UnusableImageError(
                f"{picture.width}x{picture.height} cannot be saved as {image_format}: {e}"
            ) from None
        raise write_error(e, path) from None
