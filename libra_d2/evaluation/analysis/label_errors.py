"""
Find labels that are probably wrong: where a confident detection contradicts the ground truth.

A detector that has learned from many labels is often right where a single label is wrong. This is
only so for images that it was not trained on.
"""

from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from ...predictions.detection_set import best_overlap
from .best_thresholds import MIN_OBJECTS
from .matched_detections import MatchedDetections
from .results import BestThresholds, ImageToCheck, LabelError
from .score_curves import floor6
from .tide import BACKGROUND_IOU

MISSING, WRONG_CLASS, MISPLACED = KINDS = ("missing label", "wrong class", "badly placed")
# Share of the labels that are assumed to be wrong in each way. It moves all suspicions up or down,
# and hardly changes their order.
PRIOR = 0.05
LEAST_SUSPICION = 0.05  # less is not listed


def label_errors(
    matched: MatchedDetections, thresholds: Optional[BestThresholds]
) -> List[LabelError]:
    """
    List probable label errors, the most suspicious first.

    Only detections with at least the best score threshold of their class count; these are called
    sure. A sure detection suggests one of these errors:

    - *Missing label*: it finds no object, overlaps no object by `iou_threshold` or more, and every
      object of its class that it overlaps by more than 0.1 is found by another detection.
    - *Wrong class*: it overlaps an object of another class by `iou_threshold` or more, and the
      object is not found, or by a detection of its own class that is less likely to be right.
    - *Badly placed*: it finds an object of its class, or is the nearest to one that is not found,
      and their IoU is below the usual one, the median of all objects that are found.

    The suspicion weighs two explanations: the label is wrong, or the detection is. With p for the
    precision of detections like this one (:func:`precision_at_score`), and c for the share of the
    sure false detections that contradict labels in this way, it is

        w PRIOR p / (PRIOR p + (1 - p) c)

    where w is 1 - IoU for a missing label, 1 - p' / p for a wrong class with p' of the detection of
    the own class, and (m - IoU) / m for a badly placed one with the usual IoU m. There, the second
    explanation is a detection that is right but badly placed, so that the suspicion is
    w p PRIOR / (PRIOR + c), with the sum of w over all sure detections as c.

    Of several detections that suggest an error of one label, only the most suspicious is listed.
    Crowd regions and detections in them do not count.
    """
    data = matched.data
    if thresholds is None:
        return []
    names = [c["name"] for c in data.categories]
    least = np.array([thresholds.classes[name] for name in names])
    sure = matched.counted & (floor6(data.det_scores) >= least[data.det_class])
    chance = precision_at_score(matched)
    num_sure, num_false = max(1, sure.sum()), max(1, (sure & ~matched.hits).sum())
    found = []
    for kind, suspects in {
        MISSING: _missing(matched, sure),
        WRONG_CLASS: _wrong_class(matched, sure, chance),
        MISPLACED: _misplaced(matched, sure),
    }.items():
        p = chance[suspects.det]
        if kind == MISPLACED:
            suspicion = suspects.weight * p * PRIOR / (PRIOR + suspects.weight.sum() / num_sure)
        else:
            share = max(1, len(suspects.det)) / num_false
            suspicion = suspects.weight * PRIOR * p / (PRIOR * p + (1 - p) * share)
        found += [
            _entry(matched, names, kind, float(suspicion[i]), suspects, i)
            for i in np.flatnonzero(suspicion >= LEAST_SUSPICION).tolist()
        ]
    return sorted(found, key=lambda e: (-e.suspicion, -e.score, e.file_name, e.kind))


def images_to_check(errors: List[LabelError]) -> List[ImageToCheck]:
    """
    List the images by the number of corrections that their labels probably need, which is the sum
    of the suspicions. Images without suspicious labels are left out.
    """
    of_image: Dict[Any, List[LabelError]] = {}
    for error in errors:
        of_image.setdefault((error.image_id, error.file_name), []).append(error)
    ret = [
        ImageToCheck(
            image_id,
            file_name,
            round(sum(e.suspicion for e in own), 6),
            *(sum(e.kind == kind for e in own) for kind in KINDS),
        )
        for (image_id, file_name), own in of_image.items()
    ]
    return sorted(ret, key=lambda image: (-image.expected_corrections, image.file_name))


def precision_at_score(matched: MatchedDetections) -> np.ndarray:
    """
    Estimate for each detection how likely it is right, given its class and score (D,): the best fit
    of the hits by a function that never falls with the score (isotonic regression), for each class.

    Classes with fewer than 10 objects have no fit of their own, and share that of all classes.
    """
    data = matched.data
    ret = np.zeros(len(data.det_scores))
    counted = np.flatnonzero(matched.counted)
    ret[counted] = isotonic(matched.hits[counted].astype(float))
    for k in np.flatnonzero(data.num_objects() >= MIN_OBJECTS):
        own = counted[data.det_class[counted] == k]
        ret[own] = isotonic(matched.hits[own].astype(float))
    return ret


def isotonic(values: np.ndarray) -> np.ndarray:
    """
    Return the values that never rise and are closest to the given ones by squares, found by pooling
    adjacent violators. A value of 0.5 before the first one keeps few values from being certain.

    >>> isotonic(np.array([1.0, 0.0, 1.0, 0.0])).tolist()
    [0.75, 0.5, 0.5, 0.0]
    """
    means: List[float] = []
    counts: List[int] = []
    for value in [0.5, *values.tolist()]:
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] <= means[-1]:
            total = counts[-2] + counts[-1]
            means[-2] = (means[-2] * counts[-2] + means[-1] * counts[-1]) / total
            counts[-2] = total
            del means[-1], counts[-1]
    return np.repeat(means, counts)[1:]


class _Suspects(NamedTuple):
    """Detections that contradict a label, and a factor in [0, 1] of the suspicion."""

    det: np.ndarray
    obj: np.ndarray  # -1: no object
    iou: np.ndarray
    weight: np.ndarray


def _missing(matched: MatchedDetections, sure: np.ndarray) -> _Suspects:
    data = matched.data
    det, obj, iou = matched.overlaps
    real = ~data.obj_crowd[obj]
    any_iou, _ = best_overlap(matched.overlaps, real, len(sure))
    same = data.det_class[det] == data.obj_class[obj]
    found = ~np.isnan(matched.found_scores())
    explained = real & same & (iou > BACKGROUND_IOU) & ~found[obj]
    free = sure & ~matched.hits & (any_iou < matched.iou_threshold)
    free[det[explained]] = False
    dets = np.flatnonzero(free)
    return _Suspects(dets, np.full(len(dets), -1), any_iou[dets], 1 - any_iou[dets])


def _wrong_class(matched: MatchedDetections, sure: np.ndarray, chance: np.ndarray) -> _Suspects:
    data = matched.data
    obj = matched.overlaps.obj
    other = ~data.obj_crowd[obj] & (data.det_class[matched.overlaps.det] != data.obj_class[obj])
    iou, which = best_overlap(matched.overlaps, other, len(sure))
    own = np.zeros(len(data.obj_area))
    own[matched.at_iou.obj[0][matched.hits]] = chance[matched.hits]
    wrong = np.flatnonzero(sure & ~matched.hits & (iou >= matched.iou_threshold))
    doubt = 1 - np.minimum(1, own[which[wrong]] / np.maximum(chance[wrong], 1e-9))
    return _one_per_object(_Suspects(wrong, which[wrong], iou[wrong], doubt), chance)


def _misplaced(matched: MatchedDetections, sure: np.ndarray) -> _Suspects:
    data = matched.data
    det, obj, iou = matched.overlaps
    of_hit = matched.hits[det] & (matched.at_iou.obj[0][det] == obj)
    found = ~np.isnan(matched.found_scores())
    same = (data.det_class[det] == data.obj_class[obj]) & ~data.obj_crowd[obj]
    near = same & ~matched.hits[det] & ~found[obj] & (iou > BACKGROUND_IOU)
    sure_hits = of_hit & sure[det]
    usual = float(np.median(iou[sure_hits])) if sure_hits.any() else 0.0
    pairs = np.flatnonzero(sure[det] & (of_hit | near) & (iou < usual))
    weight = (usual - iou[pairs]) / max(usual, 1e-9)
    return _one_per_object(_Suspects(det[pairs], obj[pairs], iou[pairs], weight), data.det_scores)


def _one_per_object(suspects: _Suspects, chance: np.ndarray) -> _Suspects:
    order = np.argsort(-suspects.weight * chance[suspects.det], kind="stable")
    _, first = np.unique(suspects.obj[order], return_index=True)
    return _Suspects(*(part[order[np.sort(first)]] for part in suspects))


def _entry(
    matched: MatchedDetections,
    names: List[str],
    kind: str,
    suspicion: float,
    suspects: _Suspects,
    index: int,
) -> LabelError:
    data = matched.data
    det, obj = int(suspects.det[index]), int(suspects.obj[index])
    image = data.images[data.det_image[det]]
    known = obj >= 0
    return LabelError(
        image_id=image["id"],
        file_name=image["file_name"],
        kind=kind,
        suspicion=round(suspicion, 6),
        annotation_id=data.obj_ids[obj] if known else None,
        class_name=names[data.obj_class[obj]] if known else None,
        bbox=np.round(data.obj_boxes[obj], 6).tolist() if known else None,
        detected_class=names[data.det_class[det]],
        detected_bbox=np.round(data.det_boxes[det], 6).tolist(),
        score=float(floor6(data.det_scores[det])),
        iou=round(float(suspects.iou[index]), 6),
    )
