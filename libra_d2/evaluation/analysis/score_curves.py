"""Compute precision and recall at each score threshold, and how well scores are calibrated."""

import itertools
from typing import Any, Dict, NamedTuple, Optional

import numpy as np

from .results import Calibration, CalibrationBin, HistogramCounts, number

MAX_POINTS = 200
HISTOGRAM_EDGES = np.arange(21) / 20
CALIBRATION_EDGES = np.arange(11) / 10


def ratio(numerator: float, denominator: float) -> float:
    """Divide; NaN if the denominator is 0."""
    return float(numerator / denominator) if denominator else float("nan")


def precision_recall_f1(tp: float, fp: float, fn: float) -> Dict[str, float]:
    """Return "precision", "recall" and "f1" in [0, 1], each NaN if it is undefined."""
    return {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
    }


class ScoreCurve(NamedTuple):
    """
    Precision, recall and F1 of the detections from a score upwards, for every distinct score, from
    the highest to the lowest. Arrays of equal length.
    """

    score: np.ndarray
    precision: np.ndarray
    recall: np.ndarray  # NaN if there are no objects
    f1: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, hits: np.ndarray, num_objects: int) -> "ScoreCurve":
        """
        Args:
            scores: (N,) descending.
            hits: (N,) bool, whether each detection finds an object.
        """
        last = np.flatnonzero(np.diff(scores, append=-1))
        found, number = np.cumsum(hits)[last], last + 1
        recall = found / num_objects if num_objects else np.full(len(last), np.nan)
        return cls(scores[last], found / number, recall, 2 * found / (number + num_objects))

    def best(self) -> Optional[int]:
        """
        Return the index of the best F1, or None if there is no hit. Of equal values, the one with
        the highest score is taken.
        """
        return int(self.f1.argmax()) if self.f1.any() else None

    def thinned(self) -> "ScoreCurve":
        """
        Return a curve of at most `MAX_POINTS` points: half of them spread evenly over the points,
        half evenly over the scores. The point with the best F1 is kept.
        """
        count = len(self.score)
        if count <= MAX_POINTS:
            return self
        half = (MAX_POINTS - 2) // 2
        by_number = np.linspace(0, count - 1, half).astype(int)
        levels = np.linspace(self.score[0], self.score[-1], half)
        by_score = np.minimum(np.searchsorted(-self.score, -levels), count - 1)
        chosen = np.unique([*by_number, *by_score, self.best() or 0])
        return ScoreCurve(*(values[chosen] for values in self))


def floor6(values: Any) -> Any:
    """
    Round down to six digits. If both a score and a threshold are rounded down, `score >= threshold`
    gives the same answer as before.
    """
    return np.floor(np.asarray(values) * 1e6 + 1e-9) / 1e6


def score_histogram(scores: np.ndarray, hits: np.ndarray) -> HistogramCounts:
    """Count hits and false detections in 20 score bins of equal width."""
    return HistogramCounts(
        hits=np.histogram(scores[hits], HISTOGRAM_EDGES)[0].tolist(),
        misses=np.histogram(scores[~hits], HISTOGRAM_EDGES)[0].tolist(),
    )


def calibration(scores: np.ndarray, hits: np.ndarray) -> Calibration:
    """
    Compare scores with precision in ten bins of equal width.

    A bin includes its lower end, and the last one both ends. The expected calibration error (Guo et
    al., ICML 2017) is the mean distance between score and precision over the bins, weighted by the
    number of detections.

    Args:
        scores: (N,) in [0, 1].
        hits: (N,) bool.
    """
    bins, error = [], 0.0
    which = np.minimum(np.searchsorted(CALIBRATION_EDGES, scores, side="right") - 1, 9)
    for i, (low, high) in enumerate(itertools.pairwise(CALIBRATION_EDGES)):
        inside = which == i
        count = int(inside.sum())
        score, precision = ratio(scores[inside].sum(), count), ratio(hits[inside].sum(), count)
        if count:
            error += count / len(scores) * abs(score - precision)
        ends = round(float(low), 6), round(float(high), 6)
        bins.append(CalibrationBin(*ends, count, number(score), number(precision)))
    return Calibration(bins, number(error) if len(scores) else None)
