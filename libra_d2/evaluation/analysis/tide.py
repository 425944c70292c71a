"""
Classify the errors of a detector, and compute how much AP each kind of error costs.

The kinds are those of TIDE (Bolya et al., ECCV 2020, https://arxiv.org/abs/2008.08115). The costs
equal those of its package `tidecv`, with the exceptions that docs/analysis.md lists.

D: detections, G: objects.
"""

from typing import Dict, NamedTuple

import numpy as np

from ...predictions.detection_set import DetectionSet, Overlaps, best_overlap
from ...predictions.matching import Matches
from .average_precision import interpolated_ap, mean_or_nan

BACKGROUND_IOU = 0.1
FALSE_KINDS = ("classification", "localisation", "both", "duplicate", "background")


class ErrorTypes(NamedTuple):
    """The kind of every detection, and the objects that are missed."""

    kind: np.ndarray  # (D,) strings: "hit", "ignored", or one of FALSE_KINDS
    best_iou: np.ndarray  # (D,) largest overlap with an object of any class, crowds excluded
    fixes: np.ndarray  # (D,) object that the detection would find if it were corrected, or -1
    missed: np.ndarray  # (G,) bool: not found, and would not be found by a corrected detection


def error_types(
    data: DetectionSet, overlaps: Overlaps, matches: Matches, iou_threshold: float
) -> ErrorTypes:
    """
    Find the kind of error of every detection.

    Args:
        matches: at `iou_threshold` only.
        iou_threshold: overlap from which a detection finds an object.
    """
    num = len(data.det_scores)
    hits, ignored = matches.hits[0], matches.ignored[0]
    taken = np.zeros(len(data.obj_area), dtype=bool)
    taken[matches.obj[0][hits]] = True

    real = ~data.obj_crowd[overlaps.obj]
    same = data.det_class[overlaps.det] == data.obj_class[overlaps.obj]
    any_iou, _ = best_overlap(overlaps, real, num)
    same_iou, same_obj = best_overlap(overlaps, real & same, num)
    other_iou, other_obj = best_overlap(overlaps, real & ~same, num)
    used_iou, _ = best_overlap(overlaps, real & same & taken[overlaps.obj], num)

    near = (same_iou >= BACKGROUND_IOU) & (same_iou <= iou_threshold)
    conditions = {
        "hit": hits,
        "ignored": ignored,
        "localisation": near,
        "classification": other_iou >= iou_threshold,
        "duplicate": used_iou >= iou_threshold,
        "background": any_iou <= BACKGROUND_IOU,
    }
    kind = np.select(list(conditions.values()), list(conditions), default="both").astype("U14")

    target = np.select(
        [kind == "localisation", kind == "classification"], [same_obj, other_obj], default=-1
    )
    if len(taken):
        target[taken[target]] = -1
    missed = matches.counts & ~taken
    missed[target[target >= 0]] = False
    fixes = np.full(num, -1)
    dets = np.flatnonzero(target >= 0)
    _, first = np.unique(target[dets], return_index=True)  # only the best detection of an object
    fixes[dets[first]] = target[dets[first]]
    return ErrorTypes(kind, any_iou, fixes, missed)


class ErrorCosts(NamedTuple):
    """A cost is how much AP would rise if only that kind of error were fixed."""

    ap: float  # NaN, like the costs, if there are no objects
    counts: Dict[str, int]  # by kind of error
    costs: Dict[str, float]  # by kind of error
    special: Dict[str, float]  # costs of all false detections and of all missed objects


def error_costs(data: DetectionSet, errors: ErrorTypes) -> ErrorCosts:
    """Compute the cost of each kind of error, at the IoU threshold of `errors`."""
    kind = errors.kind
    hit, counted = kind == "hit", kind != "ignored"
    num_objects = data.num_objects()
    present = num_objects > 0

    def ap(of_class, hits, kept, objects) -> float:
        return _mean_ap(of_class[kept], hits[kept], objects, present)

    base = ap(data.det_class, hit, counted, num_objects)
    counts, fixed = {}, {}
    for name in FALSE_KINDS:
        of_kind = kind == name
        corrected = of_kind & (errors.fixes >= 0)
        of_class = data.det_class.copy()
        of_class[corrected] = data.obj_class[errors.fixes[corrected]]
        counts[name] = int(of_kind.sum())
        fixed[name] = ap(of_class, hit | corrected, counted & (~of_kind | corrected), num_objects)
    missed = np.bincount(data.obj_class[errors.missed], minlength=len(num_objects))
    counts["missed"] = int(missed.sum())
    fixed["missed"] = ap(data.det_class, hit, counted, num_objects - missed)

    found = np.bincount(data.det_class[hit], minlength=len(num_objects))
    special = {
        "false positives": ap(data.det_class, hit, hit, num_objects),
        "false negatives": ap(data.det_class, hit, counted, found),
    }
    # Because AP is read at 101 recalls, it may fall slightly when an error is fixed. Such a cost is
    # set to 0. `np.maximum` keeps NaN.
    costs = {name: float(np.maximum(value - base, 0.0)) for name, value in fixed.items()}
    return ErrorCosts(base, counts, costs, {name: v - base for name, v in special.items()})


def _mean_ap(
    of_class: np.ndarray, hits: np.ndarray, num_objects: np.ndarray, present: np.ndarray
) -> float:
    """
    Compute the mean AP over the classes. A class does not count if it has neither objects nor
    detections left.

    Args:
        of_class, hits: (N,) of the detections, best first.
        num_objects: (K,) numbers of objects.
        present: (K,) bool, classes that have objects in the annotations.
    """
    values = []
    order = np.argsort(of_class, kind="stable")
    bounds = np.searchsorted(of_class[order], np.arange(len(present) + 1))
    for k in np.flatnonzero(present):
        own = hits[order[bounds[k] : bounds[k + 1]]]
        if not num_objects[k]:
            values.append(0.0 if len(own) else np.nan)
            continue
        at = np.flatnonzero(own)
        values.append(interpolated_ap(np.arange(1, len(at) + 1), at + 1, num_objects[k]))
    return mean_or_nan(np.array(values))
