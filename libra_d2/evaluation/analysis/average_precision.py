"""
Compute COCO's average precision and recall of a whole data set, whose images may have weights.

The rules are those of `COCOeval` in pycocotools (https://cocodataset.org/#detection-eval), without
its loops over images. An image of weight n counts as n copies of it.

T: IoU thresholds; K, D, G, I: see :mod:`...predictions.detection_set`.
"""

from typing import List, Optional, Tuple

import numpy as np

from ...predictions.detection_set import DetectionSet, grouped
from ...predictions.matching import Matches
from ...utils.progress import progress

RECALLS = np.linspace(0.0, 1.0, 101)


class AveragePrecision:
    """
    Computes AP and recall from matches. Detections are sorted only once, so that AP can be computed
    for many sets of weights, as the bootstrap does.
    """

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
        """Return the (K,) numbers of objects, with (I,) `weights` the weighted ones."""
        weights = None if weights is None else weights[self._obj_image]
        return np.bincount(self._obj_class, weights, minlength=self._num_classes)

    def ap(self, weights: Optional[np.ndarray] = None) -> np.ndarray:
        """
        Args:
            weights: (I,) numbers of copies of each image; by default 1.

        Returns:
            (T, K) AP, NaN for classes without objects.
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
        """
        Returns:
            (T, K) recall with the best `max_detections` of each image and class, NaN for classes
            without objects.
        """
        ret = np.full((self._num_thresholds, self._num_classes), np.nan)
        for k, num_objects in enumerate(self.num_objects()):
            if num_objects:
                _, rank, rows = self._classes[k]
                ret[:, k] = [(rank[h] < max_detections).sum() / num_objects for h, _, _ in rows]
        return ret


def _positions(hits: np.ndarray, ignored: np.ndarray) -> Tuple[np.ndarray, ...]:
    """
    Args:
        hits, ignored: (N,) bool, of the detections of a class, best first.

    Returns:
        The indices of the hits, those of the ignored detections, and the number of ignored
        detections before each hit.
    """
    hits, ignored = np.flatnonzero(hits), np.flatnonzero(ignored)
    return hits, ignored, np.searchsorted(ignored, hits)


def interpolated_ap(found: np.ndarray, counted: np.ndarray, num_objects: float) -> float:
    """
    Average, over 101 recalls, the best precision at that recall or a higher one.

    Args:
        found, counted: numbers of hits and of detections up to each hit, itself included, from the
            best score to the worst.
        num_objects: weighted number of objects, above 0.
    """
    if not len(found):
        return 0.0
    precision = found / (counted + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / num_objects, RECALLS, side="left")
    return float(precision[at[at < len(precision)]].sum() / len(RECALLS))


def mean_or_nan(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN, or NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
