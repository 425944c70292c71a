"""Choose the score threshold of each class: the one with the best F1, if it can be relied on."""

from typing import Dict, List, Optional

from .results import Analysis, BestThresholds, ClassResult, OverallResult

# If all classes have the same best threshold, choosing one from 5 objects costs 7 points of F1 on
# other images, and from 10 to 14 objects 2.5 points. If the best thresholds differ much, those from
# few objects are better nevertheless.
MIN_OBJECTS = 10
_MAX_NOTES = 5


def best_thresholds(overall: OverallResult, classes: List[ClassResult]) -> Optional[BestThresholds]:
    """
    Return the score threshold with the best F1 for each class, or None if no detection finds an
    object.

    A class with fewer than `MIN_OBJECTS` objects, or of which no object is found, gets the
    threshold with the best F1 over all classes.
    """
    if overall.best_threshold is None:
        return None
    ret = BestThresholds(overall.best_threshold, {}, {})
    for of in classes:
        why = ""
        if of.num_objects < MIN_OBJECTS:
            objects = "1 object" if of.num_objects == 1 else f"{of.num_objects} objects"
            why = f"it has {objects}, fewer than {MIN_OBJECTS}"
        elif of.best_threshold is None:
            why = f"none of its {of.num_objects} objects is found"
        if why or of.best_threshold is None:
            ret.from_overall[of.name] = why
            ret.classes[of.name] = overall.best_threshold
        else:
            ret.classes[of.name] = of.best_threshold
    return ret


def threshold_notes(analysis: Analysis) -> List[str]:
    """Return sentences that say which thresholds the classes have."""
    best = thresholds_in(analysis)
    if best is None:
        return []
    shared: Dict[str, List[str]] = {}
    for name, why in best.from_overall.items():
        shared.setdefault(why, []).append(name)
    notes = [
        f"`--score-threshold best` and drawn pictures use the best threshold of each class (F1 at "
        f"an IoU of {analysis.settings.iou_threshold:g})"
    ]
    for why, names in list(shared.items())[:_MAX_NOTES]:
        listed = ", ".join(names[:_MAX_NOTES]) + ", ..." * (len(names) > _MAX_NOTES)
        notes.append(f"For {listed}, they use {best.overall:.3f}, the best of all classes: {why}")
    if len(shared) > _MAX_NOTES:
        notes.append(f"analysis.json lists all {len(best.from_overall)} such classes")
    return notes


def thresholds_in(analysis: Analysis) -> Optional[BestThresholds]:
    """Return the best thresholds of an analysis, also of one that was written without them."""
    return analysis.best_thresholds or best_thresholds(analysis.overall, analysis.classes)
