"""
COCO's average precision and recall of a whole data set, also of images with weights.

The rules are those of `COCOeval` of pycocotools (https://cocodataset.org/#detection-eval), without
its loops over images. A weight of an image counts as that many copies of it.
T: IoU thresholds; K, D, G, I: see :mod:`.detection_set`.
"""

from typing import List, Optional, Tuple

import numpy as np

from ...predictions.detection_set import DetectionSet, grouped
from ...predictions.matching import Matches
from ...utils.progress import progress

RECALLS = np.linspace(0.0, 1.0, 101)


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
