"""Match detections with objects once, for all parts of an analysis."""

from dataclasses import dataclass
from typing import Any, Dict, Sequence, Tuple, Union

import numpy as np

from ...errors import UserError
from ...predictions.detection_set import DetectionSet, Overlaps
from ...predictions.matching import IOU_THRESHOLDS, Matches, match_detections
from .tide import BACKGROUND_IOU


@dataclass(frozen=True)
class MatchedDetections:
    """
    Detections, objects, and which of them match.

    D, G, I, K: see :mod:`...predictions.detection_set`.
    """

    data: DetectionSet
    overlaps: Overlaps
    matches: Matches  # at COCO's ten IoU thresholds
    at_iou: Matches  # at `iou_threshold` alone
    iou_threshold: float

    @classmethod
    def of(
        cls,
        annotations: Dict[str, Any],
        results: Sequence[Dict[str, Any]],
        *,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> "MatchedDetections":
        """
        Args:
            annotations, results, max_detections: see :meth:`DetectionSet.of`.
            iou_threshold: overlap from which a detection finds an object, in (0.1, 1].

        Raises:
            UserError: a setting or a result is wrong, or the annotations have no image.
        """
        if not BACKGROUND_IOU < iou_threshold <= 1:
            raise UserError(
                f"the IoU threshold must be in ({BACKGROUND_IOU}, 1], got {iou_threshold}"
            )
        if max_detections < 1:
            raise UserError(f"max_detections must be at least 1, got {max_detections}")
        if not annotations["images"]:
            raise UserError("the annotations must have at least one image, got none")
        data = DetectionSet.of(annotations, results, max_detections)
        overlaps = data.overlaps()
        matches = match_detections(data, overlaps)
        close = np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou_threshold))
        if len(close):
            at_iou = matches.at(close[0])
        else:
            at_iou = match_detections(data, overlaps, np.array([iou_threshold]))
        return cls(data, overlaps, matches, at_iou, iou_threshold)

    @property
    def hits(self) -> np.ndarray:
        """(D,) bool: detections that find an object, at `iou_threshold`."""
        return self.at_iou.hits[0]

    @property
    def counted(self) -> np.ndarray:
        """(D,) bool: hits and false detections. The others are ignored, in a crowd region."""
        return ~self.at_iou.ignored[0]

    def found_scores(self) -> np.ndarray:
        """(G,) scores of the detections that find the objects, NaN for missed objects."""
        ret = np.full(len(self.data.obj_area), np.nan)
        ret[self.at_iou.obj[0][self.hits]] = self.data.det_scores[self.hits]
        return ret

    def counts_by_image(self, score_threshold: float) -> np.ndarray:
        """(I, 3) TP, FP and FN of each image, counting detections from that score upwards."""
        data = self.data
        return np.stack(
            self._counts(data.det_image, data.obj_image, len(data.images), score_threshold), 1
        )

    def counts_by_class(self, score_threshold: Union[float, Sequence[float]]) -> np.ndarray:
        """
        (K, 3) TP, FP and FN of each class, counting detections from that score upwards, or from
        that of the K scores which is of their class.
        """
        data = self.data
        if not isinstance(score_threshold, (int, float)):
            score_threshold = np.asarray(score_threshold)[data.det_class]
        return np.stack(
            self._counts(data.det_class, data.obj_class, data.num_classes, score_threshold), 1
        )

    def _counts(self, of_det, of_obj, size: int, threshold: Any) -> Tuple[np.ndarray, ...]:
        strong = self.data.det_scores >= threshold
        tp = np.bincount(of_det[self.hits & strong], minlength=size)
        fp = np.bincount(of_det[~self.hits & self.counted & strong], minlength=size)
        objects = np.bincount(of_obj[self.at_iou.counts], minlength=size)
        return tp, fp, objects - tp
