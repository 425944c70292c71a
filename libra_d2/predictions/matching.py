"""Match detections with ground truth objects by the rules of COCO's evaluation."""

import itertools
from typing import Any, Dict, NamedTuple, Sequence, Tuple

import numpy as np

from ..utils.progress import progress
from .detection_set import DetectionSet, Overlaps

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# In squared pixels; both limits are included.
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


class Matches(NamedTuple):
    """
    The object that each detection matches, at T IoU thresholds.

    `obj` (T, D) holds indices of objects, or -1. `ignored` (T, D) marks detections that are neither
    true nor false positives. `counts` (G,) marks the objects that are to be found.
    """

    obj: np.ndarray
    ignored: np.ndarray
    counts: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        return (self.obj >= 0) & ~self.ignored

    def at(self, t: int) -> "Matches":
        return Matches(self.obj[t : t + 1], self.ignored[t : t + 1], self.counts)


def match_detections(
    data: DetectionSet,
    overlaps: Overlaps,
    thresholds: np.ndarray = IOU_THRESHOLDS,
    area_range: Tuple[float, float] = AREA_RANGES["all"],
) -> Matches:
    """
    Match detections with objects of the same image and class.

    Beginning with the best detection, each matches the object with the largest IoU that has not
    been matched yet; of equal ones, the last. If there is none, it may match an object that does
    not count: a crowd region, which any number of detections can match, or an object whose area is
    not in `area_range`. Such a detection is ignored.

    Args:
        data: detections and objects.
        overlaps: overlaps of `data`.
        thresholds: (T,) smallest IoUs of a match.
        area_range: smallest and largest area of the objects that count, in squared pixels.
    """
    low, high = area_range
    out_of_range = (data.obj_area < low) | (data.obj_area > high)
    no_object = data.obj_crowd | out_of_range
    thresholds = np.minimum(thresholds, 1 - 1e-10)[:, None]  # for rounding, as in pycocotools
    near = data.det_class[overlaps.det] == data.obj_class[overlaps.obj]
    near &= overlaps.iou >= thresholds.min(initial=1.0)
    det, obj, iou = (a[near] for a in overlaps)
    rounds = _rounds(data, det)
    # Sort so that the last free object of a detection is its best match.
    order = np.lexsort((obj, iou, ~no_object[obj], det, rounds))
    det, obj, iou, rounds = det[order], obj[order], iou[order], rounds[order]

    matched = np.full((len(thresholds), len(data.det_scores)), -1)
    taken = np.zeros((len(thresholds), len(data.obj_area)), dtype=bool)
    bounds = np.flatnonzero(np.diff(rounds, prepend=-1, append=-1))
    spans = list(itertools.pairwise(bounds))
    for start, stop in progress(spans, "Matching detections", unit="round"):
        dets, objs = det[start:stop], obj[start:stop]
        free = (iou[start:stop] >= thresholds) & (data.obj_crowd[objs] | ~taken[:, objs])
        starts = np.flatnonzero(np.diff(dets, prepend=-1))
        last = np.maximum.reduceat(np.where(free, np.arange(len(dets)), -1), starts, axis=1)
        t, d = np.nonzero(last >= 0)
        best = objs[last[t, d]]
        matched[t, dets[starts][d]] = best
        taken[t, best] = True
    ignored = np.zeros(matched.shape, dtype=bool)
    if len(no_object):
        ignored |= (matched >= 0) & no_object[matched]
    det_area = data.det_boxes[:, 2] * data.det_boxes[:, 3]
    ignored |= (matched < 0) & ((det_area < low) | (det_area > high))
    return Matches(matched, ignored, ~no_object)


def _rounds(data: DetectionSet, det: np.ndarray) -> np.ndarray:
    """
    Return the round in which each pair is matched: how many detections of the same image and class,
    with any overlap, come before its detection. Detections of one round do not compete for objects.
    """
    dets = np.unique(det)
    group = data.det_image[dets] * data.num_classes + data.det_class[dets]
    order = np.lexsort((dets, group))
    ordered = group[order]
    number = np.empty(len(dets), dtype=np.int64)
    number[order] = np.arange(len(dets)) - np.searchsorted(ordered, ordered)
    return number[np.searchsorted(dets, det)]


def match(
    det_boxes: np.ndarray,
    det_scores: Sequence[float],
    det_classes: Sequence,
    gt_boxes: np.ndarray,
    gt_classes: Sequence,
    gt_crowd: Sequence[bool],
    iou_threshold: float = 0.5,
) -> Tuple[np.ndarray, np.ndarray]:
    """
    Match the detections of one image with its objects, like `COCOeval.evaluateImg` of pycocotools:
    :func:`match_detections` for one image, one threshold and objects of any size.

    Args:
        det_boxes, gt_boxes: (N, 4) and (M, 4), XYXY, absolute pixels.
        det_scores: N numbers.
        det_classes, gt_classes: N and M names or ids.
        gt_crowd: M flags.
        iou_threshold: in (0, 1].

    Returns:
        (N,) index of the object that each detection matches, or -1 for a false positive; and an
        (N,) mask of the detections that lie in a crowd region (their index is that of the region),
        which are neither true nor false positives. An object that is not a crowd region and whose
        index does not occur was missed.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold!r}")
    scores = np.asarray(det_scores, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    index: Dict[Any, int] = {}
    klass, obj_class = (
        np.array([index.setdefault(c, len(index)) for c in classes], dtype=np.int64)
        for classes in (det_classes, gt_classes)
    )
    boxes, obj_boxes = (_xywh(b) for b in (det_boxes, gt_boxes))
    data = DetectionSet(
        images=[{}],
        categories=[{}] * len(index),
        det_image=np.zeros(len(order), dtype=np.int64),
        det_class=klass[order],
        det_boxes=boxes[order],
        det_scores=scores[order],
        det_rank=np.arange(len(order)),
        obj_image=np.zeros(len(obj_class), dtype=np.int64),
        obj_class=obj_class,
        obj_boxes=obj_boxes,
        obj_area=obj_boxes[:, 2:].prod(-1),
        obj_crowd=np.asarray(gt_crowd, dtype=bool).reshape(-1),
    )
    matches = match_detections(data, data.overlaps(), np.array([iou_threshold]), (-np.inf, np.inf))
    matched, ignored = np.empty(len(order), dtype=np.int64), np.empty(len(order), dtype=bool)
    matched[order], ignored[order] = matches.obj[0], matches.ignored[0]
    return matched, ignored


def _xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes
