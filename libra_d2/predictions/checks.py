"""
Check whether predictions of another program fit the annotations.

`evaluate`, `analyze` and `draw` read predictions of annotated images with this module. Nothing is
corrected: if other ids or another box format would fit far better, an error says which.
"""

import itertools
import logging
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..data.datasets.coco import usable_annotations
from ..errors import UserError
from .reading import ImageFinder, ImagePredictions, read_predictions, to_coco_results

logger = logging.getLogger(__name__)

# If this share of the objects is found, the predictions are taken as they are. Below it, other
# readings of ids and boxes are tried.
_ENOUGH = 0.3
# Another reading must find at least `_TIMES_BETTER * found + _MORE` objects.
_TIMES_BETTER, _MORE = 2, 3
_MAX_IMAGES = 200
_IOU = 0.5

# From (N, 4) boxes as written, and (N, 2) width and height of their images, to XYWH in pixels.
_BOXES: Dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "": lambda b, _: b,
    "boxes are (x_min, y_min, x_max, y_max), not (x_min, y_min, width, height)": lambda b, _: (
        _from_corners(b)
    ),
    "boxes are (x_center, y_center, width, height), not (x_min, y_min, width, height)": (
        lambda b, _: _from_centers(b)
    ),
    "boxes are relative to the image's width and height, not in pixels": lambda b, s: (
        b * np.tile(s, 2)
    ),
    "boxes are (x_min, y_min, x_max, y_max) relative to the image size, not (x_min, y_min, width, "
    "height) in pixels": lambda b, s: _from_corners(b) * np.tile(s, 2),
    "boxes are (x_center, y_center, width, height) relative to the image size, not (x_min, y_min, "
    "width, height) in pixels": lambda b, s: _from_centers(b) * np.tile(s, 2),
}


def read_fitting_predictions(
    path: str, content: Dict[str, Any], annotations: str
) -> Tuple[List[Dict[str, Any]], List[str]]:
    """
    Read predictions and check that they fit the annotations.

    Args:
        path: file of predictions, see :func:`read_predictions`.
        content: content of the COCO annotation file.
        annotations: path of that file, for messages.

    Returns:
        COCO results with the ids of the annotations, and the names of images that the annotations
        do not list.

    Raises:
        UserError: the file does not contain predictions, a score is not in [0, 1], or ids or boxes
            would fit far better if read in another way.
    """
    predictions = read_predictions(path)
    check_scores(path, ((p.scores, p.file_name or p.image_id) for p in predictions))
    cause = likely_cause(predictions, content)
    if cause:
        raise UserError(f"predictions {path} do not fit {annotations}: {cause}")
    notes: List[str] = []
    try:
        results, unknown = to_coco_results(
            predictions, content["images"], content["categories"], notes=notes
        )
    except UserError as e:
        raise UserError(f"predictions {path}: {e}") from None
    for note in notes:
        logger.warning(f"{path}: {note}")
    return results, unknown


def check_scores(path: str, scores: Any) -> None:
    """
    Check that scores are in [0, 1].

    Args:
        path: file of the predictions, for messages.
        scores: pairs of (N,) scores and the name of their image.

    Raises:
        UserError: a score is not in [0, 1].
    """
    for values, name in scores:
        values = np.asarray(values, dtype=np.float64)
        wrong = values[~((values >= 0) & (values <= 1))]
        if len(wrong):
            percent = ". If scores are in percent, divide them by 100"
            raise UserError(
                f"predictions {path}: image {name}: score must be in [0, 1], got {wrong[0]:g}"
                f"{percent if 1 < wrong.max() <= 100 else ''}"
            )


class _Rows(NamedTuple):
    """All detections of a file, as written."""

    entry: np.ndarray  # (N,) index of the file's entry
    boxes: np.ndarray  # (N, 4)
    scores: np.ndarray  # (N,)
    classes: List[Any]  # N category ids: those of known class names, else as written


class _Reading(NamedTuple):
    text: str  # what is different from the file as it is; "" for none
    ids: Dict[Any, int]  # index of each id as written


def likely_cause(predictions: Sequence[ImagePredictions], content: Dict[str, Any]) -> str:
    """
    Find out whether the detections match far more objects if image ids, category ids or boxes are
    read in another way.

    Returns:
        A message that says how; "" if the predictions fit as they are, or no other reading is
        clearly better.
    """
    truth = _Truth(content)
    rows = _rows(predictions, content)
    if not truth.num_objects or not len(rows.scores):
        return ""
    images = _image_readings(predictions, content)
    classes = _class_readings(content)
    as_written = _found(truth, predictions, rows, images[0], classes[0], _BOXES[""])
    if as_written[0] >= _ENOUGH * as_written[1]:
        return ""
    best, causes = as_written, []
    readings = itertools.product(images, classes, _BOXES.items())
    for image, klass, (box_text, boxes) in sorted(readings, key=_num_changes):
        found = _found(truth, predictions, rows, image, klass, boxes)
        enough = found[0] >= max(_ENOUGH * found[1], _TIMES_BETTER * as_written[0] + _MORE)
        # A second change must improve the result, so that one cause is not reported as two.
        if enough and found[0] > 1.1 * best[0]:
            best, causes = found, [t for t in (image.text, klass.text, box_text) if t]
    if not causes:
        return ""
    return (
        f"it seems that {', and that '.join(causes)}. As written, the detections match "
        f"{as_written[0]} of {as_written[1]} objects; read that way, {best[0]}. Convert the "
        "predictions to COCO's format"
    )


def _num_changes(reading: Tuple) -> int:
    image, klass, (box_text, _) = reading
    return bool(image.text) + bool(klass.text) + bool(box_text)


def _rows(predictions: Sequence[ImagePredictions], content: Dict[str, Any]) -> _Rows:
    ids_by_name = {c["name"]: c["id"] for c in content["categories"]}
    parts = [p.boxes for p in predictions] or [np.zeros((0, 4))]
    boxes = np.concatenate(parts).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return _Rows(
        np.repeat(np.arange(len(predictions)), [len(p) for p in predictions]),
        boxes,
        np.concatenate([p.scores for p in predictions] or [np.zeros(0)]),
        [
            ids_by_name.get(name, category)
            for p in predictions
            for name, category in zip(p.class_names, p.category_ids)
        ],
    )


def _image_readings(
    predictions: Sequence[ImagePredictions], content: Dict[str, Any]
) -> List[_Reading]:
    """Return the ways to read image ids. With file names, there is only one."""
    index = {image["id"]: i for i, image in enumerate(content["images"])}
    ret = [_Reading("", index)]
    written = [p.image_id for p in predictions if p.image_id is not None and not p.file_name]
    if not written or not all(type(i) is int for i in written):
        return ret
    numbers = {i: k for i, k in index.items() if type(i) is int}
    ret.append(_Reading("image ids are 1 smaller than in the annotations", _shifted(numbers, -1)))
    ret.append(_Reading("image ids are 1 larger than in the annotations", _shifted(numbers, 1)))
    stems: Dict[int, List[int]] = {}
    for k, image in enumerate(content["images"]):
        stem = _stem(image["file_name"])
        if stem.isdecimal():
            stems.setdefault(int(stem), []).append(k)
    unique = {stem: k[0] for stem, k in stems.items() if len(k) == 1}
    ret.append(_Reading("image ids are the numbers in the file names of the images", unique))
    position = {i: i for i in range(len(content["images"]))}
    ret.append(_Reading("image ids are positions in the list of images, from 0 on", position))
    return ret


def _class_readings(content: Dict[str, Any]) -> List[_Reading]:
    ids = [c["id"] for c in content["categories"]]
    index = {id_: k for k, id_ in enumerate(ids)}
    index.update({str(id_): k for k, id_ in enumerate(ids) if str(id_) not in index})
    index.update({c["name"]: k for k, c in enumerate(content["categories"])})
    ret = [_Reading("", index)]
    numbers = {i: k for i, k in index.items() if type(i) is int}
    ret.append(
        _Reading("category ids are 1 smaller than in the annotations", _shifted(numbers, -1))
    )
    ret.append(_Reading("category ids are 1 larger than in the annotations", _shifted(numbers, 1)))
    in_order = [index[id_] for id_ in sorted(ids, key=lambda i: (isinstance(i, str), i))]
    for first in (0, 1):
        text = f"category ids are positions in the list of classes, from {first} on"
        ret.append(_Reading(text, dict(enumerate(in_order, start=first))))
    return ret


def _shifted(index: Dict[int, int], by: int) -> Dict[int, int]:
    return {id_ + by: k for id_, k in index.items()}


def _stem(file_name: str) -> str:
    return os.path.splitext(os.path.basename(file_name.replace("\\", "/")))[0]


class _Truth:
    """Objects of at most `_MAX_IMAGES` images, chosen evenly among the images with objects."""

    def __init__(self, content: Dict[str, Any]):
        images = {image["id"]: i for i, image in enumerate(content["images"])}
        classes = {c["id"]: k for k, c in enumerate(content["categories"])}
        objects = [a for a in usable_annotations(content) if not a.get("iscrowd", 0)]
        image = np.array([images[a["image_id"]] for a in objects], dtype=np.int64)
        klass = np.array([classes[a["category_id"]] for a in objects], dtype=np.int64)
        boxes = np.array([a["bbox"] for a in objects], dtype=np.float64).reshape(-1, 4)
        with_objects = np.unique(image)
        step = -(-len(with_objects) // _MAX_IMAGES) or 1
        self.images = with_objects[::step]
        self.of_image = {i: (klass[image == i], boxes[image == i]) for i in self.images.tolist()}
        self.num_objects = sum(len(k) for k, _ in self.of_image.values())
        self.sizes = np.array(
            [(i["width"], i["height"]) for i in content["images"]], dtype=np.float64
        )
        self.by_name = _finder(content)


def _finder(content: Dict[str, Any]) -> Callable[[ImagePredictions], Optional[int]]:
    finder = ImageFinder(content["images"])
    index = {image["id"]: i for i, image in enumerate(content["images"])}

    def find(p: ImagePredictions) -> Optional[int]:
        try:
            return index.get(finder.find(p.image_id, p.file_name)[0])
        except UserError:  # reported when the file is read
            return None

    return find


def _found(
    truth: _Truth,
    predictions: Sequence[ImagePredictions],
    rows: _Rows,
    image: _Reading,
    klass: _Reading,
    boxes: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Tuple[int, int]:
    """Count the objects that a detection of their class overlaps, and all objects."""
    if image.text:
        index = [image.ids.get(p.image_id, -1) for p in predictions]
    else:
        found = [truth.by_name(p) for p in predictions]
        index = [-1 if i is None else i for i in found]
    of_row = np.array(index, dtype=np.int64)[rows.entry]
    own = np.flatnonzero(np.isin(of_row, truth.images))
    of_row = of_row[own]
    classes = np.array([klass.ids.get(rows.classes[i], -1) for i in own.tolist()], dtype=np.int64)
    xywh = boxes(rows.boxes[own], truth.sizes[of_row])
    order = np.argsort(of_row, kind="stable")
    bounds = (
        np.searchsorted(of_row[order], truth.images),
        np.searchsorted(of_row[order], truth.images, side="right"),
    )
    hits = 0
    for i, start, stop in zip(truth.images.tolist(), *(b.tolist() for b in bounds)):
        obj_class, obj_boxes = truth.of_image[i]
        dets = order[start:stop]
        # Take only twice as many detections as objects, because many boxes also hit by chance.
        dets = dets[np.argsort(-rows.scores[own[dets]], kind="stable")][: 2 * len(obj_class)]
        iou = _ious(obj_boxes, xywh[dets])
        hits += int(((iou >= _IOU) & (obj_class[:, None] == classes[dets])).any(1).sum())
    return hits, truth.num_objects


def _ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(2)
    union = a[:, 2:].prod(1)[:, None] + np.maximum(b[:, 2:], 0).prod(1)[None] - shared
    return shared / np.maximum(union, 1e-12)


def _from_corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _from_centers(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
