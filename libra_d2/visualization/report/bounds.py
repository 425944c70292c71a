"""Reduce analyses with very many classes to what a browser can display."""

from dataclasses import replace
from typing import List, Set

import numpy as np

from ...evaluation.analysis.detector_analysis import MAX_CLASSES, OTHER_CLASSES
from ...evaluation.analysis.results import Analysis, ConfusionMatrix


def bounded(analysis: Analysis, names: List[str]) -> Analysis:
    """
    Return a copy of an analysis that is limited to some classes.

    The table of classes, the curves, the histogram and the confusion matrix contain only these
    classes. The confusion matrix has an additional row and column for all other classes.

    Args:
        names: result of :func:`shown_classes`.
    """
    if len(names) == len(analysis.classes):
        return analysis
    kept = set(names)
    wanted = kept | {""}
    histogram = analysis.score_histogram
    return replace(
        analysis,
        classes=[c for c in analysis.classes if c.name in kept],
        curves={k: v for k, v in analysis.curves.items() if k in wanted},
        score_histogram=replace(
            histogram, classes={k: v for k, v in histogram.classes.items() if k in wanted}
        ),
        confusion=_bounded_confusion(analysis.confusion, kept),
    )


def shown_classes(analysis: Analysis) -> List[str]:
    """Return the `MAX_CLASSES` classes with the most objects, in the order of the analysis."""
    classes = analysis.classes
    if len(classes) <= MAX_CLASSES:
        return [c.name for c in classes]
    largest = sorted(range(len(classes)), key=lambda i: -classes[i].num_objects)[:MAX_CLASSES]
    return [classes[i].name for i in sorted(largest)]


def _bounded_confusion(confusion: ConfusionMatrix, kept: Set[str]) -> ConfusionMatrix:
    names, last = confusion.names, len(confusion.names) - 1  # the last is the background
    shown = [i for i, name in enumerate(names[:-1]) if name in kept]
    place = np.full(last + 1, len(shown))
    place[shown], place[last] = np.arange(len(shown)), len(shown) + 1
    matrix = np.zeros((len(shown) + 2, len(shown) + 2), dtype=np.int64)
    for i, row in enumerate(confusion.matrix):
        matrix[place[i]] += np.bincount(place, row, len(shown) + 2).astype(np.int64)
    shown_names = [*(names[i] for i in shown), OTHER_CLASSES, names[-1]]
    return replace(confusion, names=shown_names, matrix=matrix.tolist())
