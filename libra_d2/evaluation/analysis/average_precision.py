"""
COCO's average precision and recall of a whole data set, also of images with weights.

The rules are those of `COCOeval` of pycocotools (https://cocodataset.org/#detection-eval), without
its loops over images. A weight of an image counts as that many copies of it.
T: IoU thresholds; K, D, G, I: see :mod:`.detection_set`.
"""

import itertools
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from ...predictions.detection_set import DetectionSet, Overlaps, grouped
from ...utils.progress import progress

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# Squared pixels, both ends included.
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


class Matches(NamedTuple):
    """
    Which detection found which object.

    `obj` is (T, D), the index of the object or -1; `ignored`, (T, D), marks detections that count
    neither as hits nor as false ones; `counts`, (G,), the objects that are to be found.
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
    From the best detection of an image and class on, each takes the object, not taken yet, that it
    overlaps most (of equal ones the last). Only where there is none, it may match one that does
    not count: a crowd region, which is never used up, or an object of another size.
    """
    low, high = area_range
    out_of_range = (data.obj_area < low) | (data.obj_area > high)
    no_object = data.obj_crowd | out_of_range
    thresholds = np.minimum(thresholds, 1 - 1e-10)[:, None]  # pycocotools' leave for rounding
    near = data.det_class[overlaps.det] == data.obj_class[overlaps.obj]
    near &= overlaps.iou >= thresholds.min(initial=1.0)
    det, obj, iou = (a[near] for a in overlaps)
    rounds = _rounds(data, det)
    # The last one that is to be had is the best.
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
    For each pair, how many detections of the same image and class come before its own among those
    that have any partner: those of one round do not depend on each other.
    """
    dets = np.unique(det)
    group = data.det_image[dets] * data.num_classes + data.det_class[dets]
    order = np.lexsort((dets, group))
    ordered = group[order]
    number = np.empty(len(dets), dtype=np.int64)
    number[order] = np.arange(len(dets)) - np.searchsorted(ordered, ordered)
    return number[np.searchsorted(dets, det)]


class AveragePrecision:
    """AP and recall of matches, prepared so that it is cheap to compute for many weights."""

    def __init__(self, data: DetectionSet, matches: Matches):
        self._num_images, self._num_classes = len(data.images), data.num_classes
        self._obj_image = data.obj_image[matches.counts]
        self._obj_class = data.obj_class[matches.counts]
        self._classes: List[tuple] = []
        hits = matches.hits
        by_class = grouped(data.det_class, data.num_classes)
        without = [_positions(*np.zeros((2, 0), dtype=bool))] * len(hits)
        for own in progress(by_class, "Sorting detections", unit="class"):
            pairs = zip(hits[:, own], matches.ignored[:, own])
            rows = [_positions(*pair) for pair in pairs] if len(own) else without
            self._classes.append((data.det_image[own], data.det_rank[own], rows))
        self._num_thresholds = len(matches.obj)

    def num_objects(self, weights: Optional[np.ndarray] = None) -> np.ndarray:
        """(K,)"""
        weights = None if weights is None else weights[self._obj_image]
        return np.bincount(self._obj_class, weights, minlength=self._num_classes)

    def ap(self, weights: Optional[np.ndarray] = None) -> np.ndarray:
        """
        Args:
            weights: (I,) numbers of copies of the images; by default one of each.

        Returns:
            (T, K), NaN for classes without objects.
        """
        if weights is None:
            weights = np.ones(self._num_images)
        ret = np.full((self._num_thresholds, self._num_classes), np.nan)
        for k, num_objects in enumerate(self.num_objects(weights)):
            if num_objects == 0:
                continue
            images, _, rows = self._classes[k]
            own = weights[images].astype(np.float64)
            seen = np.cumsum(own)
            for t, (hits, ignored, before) in enumerate(rows):
                found, counted = np.cumsum(own[hits]), seen[hits]
                if len(ignored):
                    counted -= np.concatenate([[0.0], np.cumsum(own[ignored])])[before]
                ret[t, k] = interpolated_ap(found, counted, num_objects)
        return ret

    def recall(self, max_detections: int) -> np.ndarray:
        """(T, K), NaN for classes without objects, of the best detections of an image and class."""
        ret = np.full((self._num_thresholds, self._num_classes), np.nan)
        for k, num_objects in enumerate(self.num_objects()):
            if num_objects:
                _, rank, rows = self._classes[k]
                ret[:, k] = [(rank[h] < max_detections).sum() / num_objects for h, _, _ in rows]
        return ret


def _positions(hits: np.ndarray, ignored: np.ndarray) -> Tuple[np.ndarray, ...]:
    """Of the hits and the ignored detections, and how many of these come before each hit."""
    hits, ignored = np.flatnonzero(hits), np.flatnonzero(ignored)
    return hits, ignored, np.searchsorted(ignored, hits)


def interpolated_ap(found: np.ndarray, counted: np.ndarray, num_objects: float) -> float:
    """
    Mean over 101 recalls of the best precision at that recall or a higher one.

    Args:
        found, counted: at each hit, best first: hits and detections so far, itself included.
    """
    if not len(found):
        return 0.0
    precision = found / (counted + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / num_objects, RECALLS, side="left")
    return float(precision[at[at < len(precision)]].sum() / len(RECALLS))


def mean_or_nan(values: np.ndarray) -> float:
    """Mean of those that are defined."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
