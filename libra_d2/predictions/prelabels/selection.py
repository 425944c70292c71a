"""Choose the detections that become annotations, and the names of their images."""

import os
import posixpath
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from ...data.images.names import locate_images
from ...data.images.reader import read_header
from ...errors import UserError
from ..reading import ImagePredictions
from ..score_thresholds import ScoreThresholds


@dataclass(frozen=True)
class LabeledImage:
    """
    An image and its annotations.

    `boxes` is (N, 4), XYXY in absolute pixels, within the image. `labels` are N indices of classes,
    and `scores` N numbers in [0, 1].
    """

    name: str  # relative to the folder of the images, with "/"
    path: str
    width: int
    height: int
    boxes: np.ndarray
    labels: List[int]
    scores: List[float]


@dataclass(frozen=True)
class Prelabels:
    """
    Annotations of a set of images.

    `class_names` and `category_ids` have one entry for each class. `notes` are sentences about
    detections that were changed or left out.
    """

    class_names: List[str]
    category_ids: List[int]
    images: List[LabeledImage]
    notes: List[str]

    @property
    def num_objects(self) -> int:
        return sum(len(image.labels) for image in self.images)

    def objects_by_class(self) -> Dict[str, int]:
        counts = np.bincount(
            [label for image in self.images for label in image.labels],
            minlength=len(self.class_names),
        )
        return dict(zip(self.class_names, counts.tolist()))


def select(
    predictions: Sequence[ImagePredictions],
    thresholds: ScoreThresholds,
    *,
    images: str = "",
    classes: Sequence[str] = (),
    known: Sequence[Tuple[str, Any]] = (),
) -> Prelabels:
    """
    Choose detections by their scores.

    Args:
        predictions: detections of images that are identified by file name.
        thresholds: lowest score of each class.
        images: folder that the file names are relative to; "" for the working folder.
        classes: names of the classes to keep; () for all.
        known: name and category id of all classes of the detector, in their order. Without them,
            the classes are those of the detections, in the order of their category ids.

    Raises:
        UserError: an image is not named, is a frame of a video, or cannot be read although its size
            is not known; two images get the same name; or a class is unknown.
    """
    if images and not os.path.isdir(images):
        raise UserError(f"--images must be an existing folder, got {images}")
    named = [p.file_name for p in predictions]
    _check_names(named)
    found = locate_images(named, images) if images else dict(zip(named, named))
    names = relative_names(named)
    all_names, ids = _classes(predictions, known)
    unknown = [c for c in classes if c not in all_names]
    if unknown:
        raise UserError(f"--classes must be among {all_names}, got {unknown[0]!r}")
    kept = [i for i, name in enumerate(all_names) if not classes or name in classes]
    index = {all_names[i]: k for k, i in enumerate(kept)}
    clipped = empty = 0
    ret = []
    for p, name in zip(predictions, names):
        path = found[p.file_name]
        width, height = _size(p, path)
        wanted = [
            k
            for k, (own, score) in enumerate(zip(_names(p), p.scores.tolist()))
            if own in index and score >= thresholds.of(own)
        ]
        inside = np.clip(p.boxes[wanted], 0, [width, height] * 2)
        clipped += int((np.abs(inside - p.boxes[wanted]) > 0.5).any(1).sum())
        has_area = (inside[:, 2:] > inside[:, :2]).all(1)
        empty += int((~has_area).sum())
        own_names = _names(p)
        ret.append(
            LabeledImage(
                name,
                path,
                width,
                height,
                inside[has_area],
                [index[own_names[k]] for k, a in zip(wanted, has_area) if a],
                [float(p.scores[k]) for k, a in zip(wanted, has_area) if a],
            )
        )
    notes = []
    if clipped:
        notes.append(f"{clipped} boxes reached beyond their image and were cut off at its border")
    if empty:
        notes.append(f"{empty} boxes without area in their image were left out")
    return Prelabels([all_names[i] for i in kept], [ids[i] for i in kept], ret, notes)


def relative_names(names: Sequence[str]) -> List[str]:
    """
    Return the names relative to the folder that they have in common.

    >>> relative_names(["in/a/1.jpg", "in/b/1.jpg"])
    ['a/1.jpg', 'b/1.jpg']
    """
    paths = [posixpath.normpath(name.replace("\\", "/")) for name in names]
    if not paths:
        return []
    absolute = [path.startswith("/") for path in paths]
    if any(absolute) != all(absolute) or any(p.startswith("../") for p in paths):
        paths = [posixpath.abspath(path) for path in paths]
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    return [posixpath.relpath(path, common or ".") for path in paths]


def flat_names(names: Sequence[str]) -> List[str]:
    """
    Return a different name without folders for each image, for formats with one folder. Names that
    differ only by their suffix also get different stems.

    >>> flat_names(["a/1.jpg", "b/1.jpg", "b/1.png"])
    ['a_1.jpg', 'b_1.jpg', 'b_1_2.png']
    """
    ret, used = [], set()
    for name in names:
        stem, suffix = posixpath.splitext(name.replace("/", "_"))
        choice, number = stem, 2
        while choice.lower() in used:
            choice, number = f"{stem}_{number}", number + 1
        used.add(choice.lower())
        ret.append(choice + suffix)
    return ret


def _check_names(names: Sequence[str]) -> None:
    seen = set()
    for name in names:
        if not name:
            raise UserError(
                "the predictions do not name image files. Give the annotations that list the "
                "images with --annotations"
            )
        video, _, frame = name.rpartition("#")
        if frame.isdigit() and not os.path.isfile(name) and os.path.isfile(video):
            raise UserError(f"{name} is a frame of a video. Save the frames as images first")
        if name in seen:
            raise UserError(f"the predictions have two entries for {name}. Remove one of them")
        seen.add(name)


def _names(p: ImagePredictions) -> List[str]:
    return [n or f"class {c}" for n, c in zip(p.class_names, p.category_ids)]


def _classes(
    predictions: Sequence[ImagePredictions], known: Sequence[Tuple[str, Any]]
) -> Tuple[List[str], List[int]]:
    """Return names and category ids, which are numbered from 1 if they are not all integers."""
    ids: Dict[str, Any] = dict(known)
    for p in predictions:
        for name, category in zip(_names(p), p.category_ids):
            ids.setdefault(name, category)
    names = list(ids)
    if not known:
        numbered = sorted((n for n in names if type(ids[n]) is int), key=lambda n: (ids[n], n))
        names = [*numbered, *sorted(n for n in names if type(ids[n]) is not int)]
    values = [ids[name] for name in names]
    if len(set(values)) < len(values) or not all(type(v) is int and v >= 0 for v in values):
        values = list(range(1, len(names) + 1))
    return names, values


def _size(p: ImagePredictions, path: str) -> Tuple[int, int]:
    if p.width and p.height:
        return p.width, p.height
    header = read_header(path)
    if header.error:
        raise UserError(f"{path}, whose size the predictions do not give: {header.error}")
    return header.width, header.height
