"""What to mend first, in words."""

from typing import List, Optional

from ...evaluation.analysis.results import Analysis

_ERRORS = {
    "classification": "objects are found in the right place but named wrong",
    "localisation": "boxes of the right class are placed too loosely",
    "both": "boxes are both named wrong and placed loosely",
    "duplicate": "objects are found more than once",
    "background": "detections lie where nothing is annotated",
    "missed": "objects are not found at all",
}
_REMEDIES = {
    "classification": "Look at the largest mix-ups below, and at their labels in the data.",
    "localisation": "Check how tightly the training boxes are drawn, and the size of the input.",
    "both": "Look at the worst images below for what these boxes have in common.",
    "duplicate": "A lower NMS threshold removes them.",
    "background": "Check the worst images for objects that nobody annotated; otherwise add images "
    "without objects.",
    "missed": "Check the AP by size below: small objects ask for a larger input or other anchors.",
}
_NOTABLE = 0.01  # F1 that another threshold must bring to be worth a word
_NOTABLE_COST = 0.0005  # AP


def advice(analysis: Analysis) -> List[str]:
    """Sentences, the most important one first."""
    overall = analysis.overall
    if not overall.num_objects:
        return ["No objects are annotated, so there is nothing to measure against."]
    found = [_costliest_error(analysis), _weakest_class(analysis), _threshold(analysis)]
    sentences = [s for s in found if s]
    if not overall.num_detections:
        score = analysis.settings.score_threshold
        sentences.insert(0, f"Nothing is detected at a score of {score:.2f} or more.")
    sentences += analysis.limits
    return sentences or ["Nothing stands out."]


def _costliest_error(analysis: Analysis) -> Optional[str]:
    costs = [(e.AP_cost or 0, e) for e in analysis.tide.errors]
    cost, worst = max(costs, key=lambda pair: pair[0], default=(0, None))
    if worst is None or cost <= _NOTABLE_COST:
        return None
    return (
        f"The costliest errors: {_ERRORS[worst.name]} ({worst.count} times, at any score). "
        f"Mending them would add {100 * cost:.1f} points of "
        f"AP{round(100 * analysis.settings.iou_threshold)}. {_REMEDIES[worst.name]}"
    )


def _weakest_class(analysis: Analysis) -> Optional[str]:
    measured = [(c.AP, c) for c in analysis.classes if c.AP is not None and c.num_objects]
    if len(measured) < 2:
        return None
    ap, worst = min(measured, key=lambda pair: pair[0])
    recall = "" if worst.recall is None else f", of which {worst.recall:.0%} are found"
    return f"The weakest class is “{worst.name}”: AP {ap:.1%}, {worst.num_objects} objects{recall}."


def _threshold(analysis: Analysis) -> Optional[str]:
    overall, used = analysis.overall, analysis.settings.score_threshold
    if overall.best_threshold is None or overall.best_f1 is None:
        return None
    f1, best_f1 = overall.f1 or 0, overall.best_f1
    if best_f1 - f1 < _NOTABLE:
        return f"The score threshold of {used:.2f} is about the best one (F1 {f1:.1%})."
    return (
        f"Take a score threshold of {overall.best_threshold:.2f} instead of {used:.2f}: "
        f"F1 rises from {f1:.1%} to {best_f1:.1%}."
    )
