"""Estimate whether one run is better than another, or whether chance explains the difference."""

from typing import List, Optional, Sequence, Tuple

import numpy as np

from ...errors import UserError
from ...utils.progress import progress
from .average_precision import AveragePrecision, mean_or_nan
from .detector_analysis import pooled_threshold
from .matched_detections import MatchedDetections
from .results import Counts, Difference, ImageChange, MetricDifference, RunComparison, number
from .score_curves import precision_recall_f1

CONFIDENCE = 0.95
METRICS = ("AP", "AP50", "AP75", "precision", "recall", "f1")


def compare(
    a: MatchedDetections,
    b: MatchedDetections,
    *,
    names: Tuple[str, str] = ("a", "b"),
    score_threshold: Optional[float] = None,
    samples: int = 1000,
    seed: int = 0,
) -> RunComparison:
    """
    Compare two runs with a paired bootstrap.

    As many images as there are in the data set are drawn with replacement, `samples` times, and
    both runs are measured on the same draws. The interval of a difference contains the middle 95 %
    of its values. `p_value` is two-sided: twice the smaller of the fractions of values that are
    not above 0 and not below 0.

    Args:
        a, b: detections of the two runs, matched with the same annotations.
        names: names of the two runs.
        score_threshold: used for precision, recall and F1. By default, each run uses the threshold
            of its own best F1.
        samples: number of draws.
        seed: of the draws.

    Raises:
        UserError: a setting is wrong.
    """
    if samples < 1:
        raise UserError(f"samples must be at least 1, got {samples}")
    thresholds = [
        pooled_threshold(r) if score_threshold is None else score_threshold for r in (a, b)
    ]
    runs = [_Run(r, t) for r, t in zip((a, b), thresholds)]
    ones = np.ones(len(a.data.images))
    metrics, classes = zip(*(run.measure(ones) for run in runs))
    rng = np.random.default_rng(seed)
    metric_differences, class_differences = [], []
    for _ in progress(range(samples), "Comparing", unit="sample"):
        drawn = rng.integers(0, len(ones), len(ones))
        weights = np.bincount(drawn, minlength=len(ones)).astype(np.float64)
        (metrics_a, classes_a), (metrics_b, classes_b) = (run.measure(weights) for run in runs)
        metric_differences.append(metrics_b - metrics_a)
        class_differences.append(classes_b - classes_a)
    class_names = [c["name"] for c in a.data.categories]
    drawn = np.array(metric_differences)
    return RunComparison(
        a=names[0],
        b=names[1],
        samples=samples,
        confidence=CONFIDENCE,
        score_thresholds=[round(threshold, 6) for threshold in thresholds],
        metrics=[
            MetricDifference(**vars(difference), p_value=_p_value(drawn[:, i]))
            for i, difference in enumerate(_differences(METRICS, metrics[0], metrics[1], drawn))
        ],
        classes=_differences(class_names, classes[0], classes[1], np.array(class_differences)),
        images=_changed_images(a, *(run.counts for run in runs)),
    )


class _Run:
    """Measures a run on draws of images."""

    def __init__(self, matched: MatchedDetections, score_threshold: float):
        self.average = AveragePrecision(matched.data, matched.matches)
        self.counts = matched.counts_by_image(score_threshold)

    def measure(self, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """
        Args:
            weights: (I,) numbers of copies of each image.

        Returns:
            (6,) the values of `METRICS`, and (K,) AP of the classes.
        """
        ap = self.average.ap(weights)
        at = precision_recall_f1(*(weights @ self.counts))
        aps = [mean_or_nan(part) for part in (ap, ap[0], ap[5])]
        return np.array([*aps, *at.values()]), ap.mean(0)


def _differences(
    names: Sequence[str], a: np.ndarray, b: np.ndarray, drawn: np.ndarray
) -> List[Difference]:
    """
    Args:
        a, b: (N,) values of both runs on all images.
        drawn: (samples, N) differences b - a on the draws.
    """
    ret = []
    tail = (1 - CONFIDENCE) / 2
    for i, name in enumerate(names):
        values = _defined(drawn[:, i])
        interval = np.quantile(values, (tail, 1 - tail)) if len(values) else (np.nan, np.nan)
        ret.append(Difference(name, *map(number, (a[i], b[i], b[i] - a[i], *interval))))
    return ret


def _defined(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _p_value(drawn: np.ndarray) -> Optional[float]:
    values = _defined(drawn)
    return number(two_sided_p(values)) if len(values) else None


def two_sided_p(differences: np.ndarray) -> float:
    """
    Compute the two-sided p-value of the hypothesis that the difference is 0.

    It is never 0, because the observed difference counts as a sample, too (Davison and Hinkley,
    "Bootstrap Methods and their Application", 1997, section 4.2).
    """
    smaller = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * float(smaller + 1) / (len(differences) + 1))


def _changed_images(matched: MatchedDetections, a: np.ndarray, b: np.ndarray) -> List[ImageChange]:
    """
    List the images whose counts differ, by how much their F1 changes.

    Args:
        a, b: (I, 3) TP, FP and FN of each image.
    """
    change = _f1(b) - _f1(a)
    images = matched.data.images
    changed = np.flatnonzero((a != b).any(1)).tolist()
    return [
        ImageChange(
            images[i]["id"],
            images[i]["file_name"],
            Counts(*a[i].tolist()),
            Counts(*b[i].tolist()),
            round(float(change[i]), 6),
        )
        for i in sorted(changed, key=lambda i: (-abs(change[i]), images[i]["file_name"]))
    ]


def _f1(counts: np.ndarray) -> np.ndarray:
    """(I,) F1 of the images, 1 for an image without objects and detections."""
    tp, fp, fn = counts.T
    total = 2 * tp + fp + fn
    return np.where(total > 0, 2 * tp / np.maximum(total, 1), 1.0)
