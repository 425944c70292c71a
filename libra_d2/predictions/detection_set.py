"""
Detections and ground truth objects of a data set as arrays, and their overlaps.

In shapes, I is the number of images, K of classes, D of detections, and G of objects, including
crowd regions.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np

from ..data.datasets.coco import complete_annotations, usable_annotations
from ..errors import UserError

PAIRS_AT_ONCE = 2_000_000


class Overlaps(NamedTuple):
    """
    Pairs of a detection and an object of the same image that overlap.

    Pairs are sorted by detection, and for one detection from the smallest overlap to the largest.
    Of equal overlaps, the first object comes last.
    """

    det: np.ndarray
    obj: np.ndarray
    iou: np.ndarray  # for a crowd region: intersection over the area of the detection


@dataclass(frozen=True)
class DetectionSet:
    """
    Detections and objects of a data set as arrays.

    Images and classes are in the order of their ids, and detections are sorted by score, best
    first.
    """

    images: List[Dict[str, Any]]
    categories: List[Dict[str, Any]]
    det_image: np.ndarray  # (D,) indices
    det_class: np.ndarray
    det_boxes: np.ndarray  # (D, 4) XYWH, absolute pixels
    det_scores: np.ndarray  # (D,) in [0, 1]
    det_rank: np.ndarray  # (D,) 0 for the best of an image and class
    obj_image: np.ndarray  # (G,) indices
    obj_class: np.ndarray
    obj_boxes: np.ndarray  # (G, 4) XYWH, absolute pixels
    obj_area: np.ndarray  # (G,) of the boxes, squared pixels
    obj_crowd: np.ndarray  # (G,) bool
    obj_ids: List[Any] = field(default_factory=list)  # G ids of annotations, if they are known

    @classmethod
    def of(
        cls,
        annotations: Dict[str, Any],
        results: Sequence[Dict[str, Any]],
        max_detections: int = 100,
    ) -> "DetectionSet":
        """
        Create arrays from annotations and COCO results.

        Args:
            annotations: content of a COCO file. As in training, boxes without area or outside of
                their image and annotations of unknown images are left out.
            results: COCO results of its images and classes.
            max_detections: number of detections to keep per image and class, best first.

        Raises:
            UserError: a score is not in [0, 1], or a result has an unknown image or class.
        """
        images = sorted(annotations["images"], key=_by_id)
        categories = sorted(annotations["categories"], key=_by_id)
        image_index = {image["id"]: i for i, image in enumerate(images)}
        class_index = {category["id"]: k for k, category in enumerate(categories)}
        _check_results(results, image_index, class_index)
        usable = usable_annotations(annotations)
        objects = complete_annotations(usable)
        obj_boxes = _boxes(objects)

        image = _integers(image_index[r["image_id"]] for r in results)
        klass = _integers(class_index[r["category_id"]] for r in results)
        scores = np.array([r["score"] for r in results], dtype=np.float64)
        order = np.lexsort((image, -scores))
        image, klass, scores = image[order], klass[order], scores[order]
        rank = _rank(image * len(categories) + klass)
        kept = rank < max_detections
        return cls(
            images,
            categories,
            image[kept],
            klass[kept],
            _boxes(results)[order][kept],
            scores[kept],
            rank[kept],
            _integers(image_index[a["image_id"]] for a in objects),
            _integers(class_index[a["category_id"]] for a in objects),
            obj_boxes,
            np.array([a["area"] for a in objects], dtype=np.float64),
            np.array([bool(a["iscrowd"]) for a in objects], dtype=bool),
            [a["id"] for a in usable],  # complete annotations get new ids
        )

    @property
    def num_classes(self) -> int:
        return len(self.categories)

    def num_objects(self) -> np.ndarray:
        """Return the number of objects of each class (K,), without crowd regions."""
        return np.bincount(self.obj_class[~self.obj_crowd], minlength=self.num_classes)

    def overlaps(self) -> Overlaps:
        by_image = np.argsort(self.obj_image, kind="stable")
        count = np.bincount(self.obj_image, minlength=len(self.images))
        first = np.cumsum(count) - count
        partners = count[self.det_image]  # of every detection
        ends = np.cumsum(partners)
        parts = []
        start = 0
        while start < len(partners):
            limit = (ends[start - 1] if start else 0) + PAIRS_AT_ONCE
            stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")))
            number = partners[start:stop]
            det = np.repeat(np.arange(start, stop), number)
            within = np.arange(len(det)) - np.repeat(np.cumsum(number) - number, number)
            obj = by_image[first[self.det_image[det]] + within]
            iou = box_ious(self.det_boxes[det], self.obj_boxes[obj], self.obj_crowd[obj])
            parts.append(np.stack([a[iou > 0] for a in (det, obj, iou)]))
            start = stop
        dets, objs, ious = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
        order = np.lexsort((-objs, ious, dets))
        return Overlaps(dets[order].astype(np.int64), objs[order].astype(np.int64), ious[order])


def box_ious(det_boxes: np.ndarray, obj_boxes: np.ndarray, obj_crowd: np.ndarray) -> np.ndarray:
    """
    Compute the intersection over union of boxes, or over the area of the detection if the object
    is a crowd region. Operations are in the order of pycocotools, so that the results are equal
    to its results bit by bit.

    Args:
        det_boxes, obj_boxes: (..., 4) XYWH, absolute pixels. Leading dimensions are broadcast.
        obj_crowd: (...) bool.

    Returns:
        (...) in [0, 1]; 0 for boxes without area.
    """
    (det_corner, det_sides), (corner, sides) = (
        (boxes[..., :2], boxes[..., 2:]) for boxes in (det_boxes, obj_boxes)
    )
    ends = np.minimum(det_sides + det_corner, sides + corner)
    overlap = ends - np.maximum(det_corner, corner)
    shared = np.where((overlap > 0).all(-1), overlap[..., 0] * overlap[..., 1], 0.0)
    det_area, area = (s[..., 0] * s[..., 1] for s in (det_sides, sides))
    union = np.where(obj_crowd, det_area, det_area + area - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def best_overlap(overlaps: Overlaps, of: np.ndarray, num_detections: int) -> tuple:
    """
    Find the object with the largest overlap for each detection.

    Args:
        overlaps: pairs of detections and objects.
        of: mask of the pairs to consider.
        num_detections: D.

    Returns:
        The largest overlap of each detection (D,), or 0; and its object (D,), or -1.
    """
    det, obj, iou = (a[of] for a in overlaps)
    last = np.ones(len(det), dtype=bool)
    last[:-1] = det[1:] != det[:-1]
    best, which = np.zeros(num_detections), np.full(num_detections, -1)
    best[det[last]], which[det[last]] = iou[last], obj[last]
    return best, which


def grouped(of_class: np.ndarray, num_classes: int) -> List[np.ndarray]:
    """Return the indices of the detections of each class, in ascending order."""
    order = np.argsort(of_class, kind="stable")
    bounds = np.searchsorted(of_class[order], np.arange(1, num_classes))
    return np.split(order, bounds)


def _by_id(entry: Dict[str, Any]) -> tuple:
    return isinstance(entry["id"], str), entry["id"]


def _integers(values) -> np.ndarray:
    return np.fromiter(values, dtype=np.int64)


def _boxes(entries: Sequence[Dict[str, Any]]) -> np.ndarray:
    return np.array([e["bbox"] for e in entries], dtype=np.float64).reshape(-1, 4)


def _rank(group: np.ndarray) -> np.ndarray:
    """Return for each element how many elements of the same group come before it."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered)
    return rank


def _check_results(results, image_index, class_index) -> None:
    for i, r in enumerate(results):
        for key, known in (("image_id", image_index), ("category_id", class_index)):
            if r[key] not in known:
                raise UserError(
                    f"results[{i}]: {key} must be one of the annotations, got {r[key]!r}"
                )
        if not 0 <= r["score"] <= 1:
            raise UserError(f"results[{i}]: score must be in [0, 1], got {r['score']!r}")
