"""Precision, recall and F1 of a detector at the score thresholds at which it is to be used."""

import logging
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Sequence

from tabulate import tabulate

from ..predictions.score_thresholds import ScoreThresholds
from .analysis.matched_detections import MatchedDetections
from .analysis.results import number
from .analysis.score_curves import precision_recall_f1

logger = logging.getLogger(__name__)

SHOWN_CLASSES = 300  # rows of the table, as of the metrics


@dataclass(frozen=True)
class ClassAtThreshold:
    """Counts and fractions of a class at its score threshold. Undefined fractions are None."""

    name: str
    threshold: Optional[float]  # None for all classes together, if theirs differ
    num_objects: int
    tp: int
    fp: int
    fn: int
    precision: Optional[float]
    recall: Optional[float]
    f1: Optional[float]


@dataclass(frozen=True)
class OperatingPoint:
    """What is right and wrong from the score thresholds on."""

    iou_threshold: float
    source: str  # of the thresholds
    overall: ClassAtThreshold
    classes: List[ClassAtThreshold]

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        largest = sorted(range(len(self.classes)), key=lambda k: -self.classes[k].num_objects)
        rows = [self.classes[k] for k in sorted(largest[:SHOWN_CLASSES])]
        head = (
            f"From the score thresholds on ({self.source}), at an IoU of {self.iou_threshold:g} or "
            "more, in percent:"
        )
        columns = "class threshold objects precision recall F1 TP FP FN".split()
        cells = [
            (
                *(c.name, c.threshold, c.num_objects),
                *(None if v is None else 100 * v for v in (c.precision, c.recall, c.f1)),
                *(c.tp, c.fp, c.fn),
            )
            for c in (*rows, self.overall)
        ]
        formats = ("", ".3f", "", ".2f", ".2f", ".2f", "", "", "")
        text = tabulate(cells, columns, tablefmt="pipe", floatfmt=formats, missingval="-")
        left_out = len(self.classes) - len(rows)
        more = f"\n\n({left_out} more classes are not shown)" if left_out else ""
        return f"{head}\n\n{text}{more}"


def operating_point(
    truth: Dict[str, Any],
    results: Sequence[Dict[str, Any]],
    thresholds: ScoreThresholds,
    *,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> OperatingPoint:
    """
    Count what is right and wrong from the score thresholds on. Detections are matched with objects
    as in :func:`analyze`.

    Args:
        truth: content of a COCO annotation file.
        results: COCO results for its images and classes.
        thresholds: lowest score of a detection of each class that counts.
        iou_threshold: overlap from which a detection finds an object, in (0.1, 1].
        max_detections: number of detections of an image and class that count, the best ones.

    Raises:
        UserError: a setting or a result is wrong.

    >>> truth = {
    ...     "images": [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 48}],
    ...     "categories": [{"id": 1, "name": "cat"}],
    ...     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    ... }
    >>> result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.4}
    >>> [operating_point(truth, [result], ScoreThresholds(t)).overall.recall for t in (0.4, 0.5)]
    [1.0, 0.0]
    """
    matched = MatchedDetections.of(
        truth, results, iou_threshold=iou_threshold, max_detections=max_detections
    )
    names = [c["name"] for c in matched.data.categories]
    note = thresholds.note_on_missing(names)
    if note:
        logger.warning(note)
    counts = matched.counts_by_class(thresholds.by_label(names))
    of_all = set(thresholds.by_label(names))

    def at(name: str, threshold: Optional[float], tp: int, fp: int, fn: int) -> ClassAtThreshold:
        rates = precision_recall_f1(tp, fp, fn).values()
        return ClassAtThreshold(name, threshold, tp + fn, tp, fp, fn, *map(number, rates))

    return OperatingPoint(
        iou_threshold,
        thresholds.source,
        at("all", of_all.pop() if len(of_all) == 1 else None, *counts.sum(0).tolist()),
        [at(name, thresholds.of(name), *row) for name, row in zip(names, counts.tolist())],
    )
