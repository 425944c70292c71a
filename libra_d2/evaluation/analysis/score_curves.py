"""Precision and recall by the score from which detections count, and what scores are worth."""

import itertools
from typing import Any, Dict, NamedTuple, Optional

import numpy as np

from .results import Calibration, CalibrationBin, HistogramCounts, number

MAX_POINTS = 200
HISTOGRAM_EDGES = np.arange(21) / 20
CALIBRATION_EDGES = np.arange(11) / 10


def ratio(numerator: float, denominator: float) -> float:
    """NaN for x / 0."""
    return float(numerator / denominator) if denominator else float("nan")


def precision_recall_f1(tp: float, fp: float, fn: float) -> Dict[str, float]:
    """Each is NaN where it is undefined."""
    return {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
    }


class ScoreCurve(NamedTuple):
    """One point for every distinct score, descending: what detections from there on achieve."""

    score: np.ndarray
    precision: np.ndarray
    recall: np.ndarray  # NaN without objects
    f1: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, hits: np.ndarray, num_objects: int) -> "ScoreCurve":
        """
        Args:
            scores: (N,) descending.
            hits: (N,) bool.
        """
        last = np.flatnonzero(np.diff(scores, append=-1))
        found, number = np.cumsum(hits)[last], last + 1
        recall = found / num_objects if num_objects else np.full(len(last), np.nan)
        return cls(scores[last], found / number, recall, 2 * found / (number + num_objects))

    def best(self) -> Optional[int]:
        """Index of the best F1, of equal ones that of the highest score; None without a hit."""
        return int(self.f1.argmax()) if self.f1.any() else None

    def thinned(self) -> "ScoreCurve":
        """At most MAX_POINTS, evenly by number and by score; the best F1 stays."""
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
    Down to six digits: a score that is written so reaches a threshold that is written so if and
    only if it did before.
    """
    return np.floor(np.asarray(values) * 1e6 + 1e-9) / 1e6


def score_histogram(scores: np.ndarray, hits: np.ndarray) -> HistogramCounts:
    return HistogramCounts(
        hits=np.histogram(scores[hits], HISTOGRAM_EDGES)[0].tolist(),
        misses=np.histogram(scores[~hits], HISTOGRAM_EDGES)[0].tolist(),
    )


def calibration(scores: np.ndarray, hits: np.ndarray) -> Calibration:
    """
    Ten bins of equal width, each with its lower end and the last with both; and the expected
    calibration error (Guo et al., ICML 2017): the mean distance of score and precision over the
    bins, by their numbers of detections.
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
