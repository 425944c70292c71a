"""Sentences that say what to fix first."""

from typing import List, Optional

from ...evaluation.analysis.best_thresholds import threshold_notes
from ...evaluation.analysis.results import Analysis

_ERRORS = {
    "classification": "boxes are in the right place but have the wrong class",
    "localisation": "boxes have the right class but do not fit the object tightly enough",
    "both": "boxes have the wrong class and do not fit the object tightly",
    "duplicate": "objects are detected more than once",
    "background": "detections are where nothing is annotated",
    "missed": "objects are not detected at all",
}
_REMEDIES = {
    "classification": "Look at the most frequent confusions below, and check the labels of "
    "these classes.",
    "localisation": "Check that the training boxes fit tightly, and try a larger input size.",
    "both": "Look at the worst images below to see what these boxes have in common.",
    "duplicate": "Try a lower NMS threshold.",
    "background": "Check the worst images for objects without annotations. If there are none, add "
    "training images without objects.",
    "missed": "Check the AP by object size below: small objects may need a larger input size or "
    "smaller anchors.",
}
_NOTABLE = 0.01  # smallest gain of F1 for which another threshold is advised
_NOTABLE_COST = 0.0005  # AP


def advice(analysis: Analysis) -> List[str]:
    """Return sentences, the most important one first."""
    overall = analysis.overall
    if not overall.num_objects:
        return ["The annotations contain no objects, so nothing can be measured."]
    found = [_costliest_error(analysis), _weakest_class(analysis), _threshold(analysis)]
    sentences = [s for s in found if s]
    if not overall.num_detections:
        score = analysis.settings.score_threshold
        sentences.insert(0, f"No detection has a score of {score:.2f} or more.")
    sentences += [f"{note}." for note in threshold_notes(analysis)[1:]]
    sentences += analysis.limits
    return sentences or ["Nothing stands out."]


def _costliest_error(analysis: Analysis) -> Optional[str]:
    costs = [(e.AP_cost or 0, e) for e in analysis.tide.errors]
    cost, worst = max(costs, key=lambda pair: pair[0], default=(0, None))
    if worst is None or cost <= _NOTABLE_COST:
        return None
    return (
        f"Errors that cost the most: {_ERRORS[worst.name]} ({worst.count} times, at any score). "
        f"Without them, AP{round(100 * analysis.settings.iou_threshold)} would be "
        f"{100 * cost:.1f} points higher. {_REMEDIES[worst.name]}"
    )


def _weakest_class(analysis: Analysis) -> Optional[str]:
    measured = [(c.AP, c) for c in analysis.classes if c.AP is not None and c.num_objects]
    if len(measured) < 2:
        return None
    ap, worst = min(measured, key=lambda pair: pair[0])
    recall = "" if worst.recall is None else f", of which {worst.recall:.0%} are detected"
    return f"The weakest class is “{worst.name}”: AP {ap:.1%}, {worst.num_objects} objects{recall}."


def _threshold(analysis: Analysis) -> Optional[str]:
    overall, used = analysis.overall, analysis.settings.score_threshold
    if overall.best_threshold is None or overall.best_f1 is None:
        return None
    f1, best_f1 = overall.f1 or 0, overall.best_f1
    if best_f1 - f1 < _NOTABLE:
        return (
            f"The score threshold of {used:.2f} is close to the best one of all classes (F1 "
            f"{f1:.1%}). `--score-threshold best` uses the best one of each class."
        )
    return (
        f"Use a score threshold of {overall.best_threshold:.2f} instead of {used:.2f}: "
        f"F1 rises from {f1:.1%} to {best_f1:.1%}. `--score-threshold best` uses the best one "
        "of each class."
    )
