"""Which detection belongs to which object, by the rules of COCO's evaluation."""

from typing import Sequence, Tuple

import numpy as np


def match(
    det_boxes: np.ndarray,
    det_scores: Sequence[float],
    det_classes: Sequence,
    gt_boxes: np.ndarray,
    gt_classes: Sequence,
    gt_crowd: Sequence[bool],
    iou_threshold: float = 0.5,
) -> Tuple[np.ndarray, np.ndarray]:
    """
    Match the detections of one image with its objects, as `COCOeval.evaluateImg` of pycocotools.

    From the highest score to the lowest (of equal ones the first goes first), a detection takes
    the object of its class, not taken yet, that it overlaps most (of equal ones the last), if the
    threshold is reached. Only where there is none, it may lie in a crowd region, which is never
    used up; that overlap is measured against the area of the detection alone.

    Args:
        det_boxes, gt_boxes: (N, 4) and (M, 4), XYXY, absolute pixels.
        det_scores: N numbers.
        det_classes, gt_classes: N and M names or ids.
        gt_crowd: M flags.
        iou_threshold: in (0, 1].

    Returns:
        (N,) indices of objects, or -1: a false detection; and an (N,) mask of the detections
        that lie in a crowd region (their index is the region's) and count neither as hits nor
        as false ones. An object that is no crowd and whose index does not occur was missed.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold {iou_threshold!r} is not in (0, 1]")
    crowd = np.asarray(gt_crowd, dtype=bool).reshape(-1)
    matched = np.full(len(det_scores), -1)
    if not len(matched) or not len(crowd):
        return matched, np.zeros(len(matched), dtype=bool)
    ious = box_ious(det_boxes, gt_boxes, crowd)
    ious[np.array(list(det_classes))[:, None] != np.array(list(gt_classes))] = 0
    ious[ious < min(iou_threshold, 1 - 1e-10)] = 0  # pycocotools' leave for rounding
    in_crowd = np.where(crowd, ious, 0)
    ious[:, crowd] = 0
    for d in np.argsort(-np.asarray(det_scores, dtype=np.float64), kind="stable"):
        for candidates in (ious[d], in_crowd[d]):
            best = len(crowd) - 1 - candidates[::-1].argmax()
            if candidates[best] > 0:
                matched[d] = best
                ious[:, best] = 0
                break
    return matched, (matched >= 0) & crowd[matched]


def box_ious(det_boxes: np.ndarray, gt_boxes: np.ndarray, gt_crowd: Sequence[bool]) -> np.ndarray:
    """
    Args:
        det_boxes, gt_boxes: (N, 4) and (M, 4), XYXY, absolute pixels.
        gt_crowd: M flags.

    Returns:
        (N, M): intersection over union, or over the detection's area for a crowd region.
    """
    dets = np.asarray(det_boxes, dtype=np.float64).reshape(-1, 1, 4)
    gts = np.asarray(gt_boxes, dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(dets[..., 2:], gts[..., 2:]) - np.maximum(dets[..., :2], gts[..., :2])
    overlap = sides.clip(min=0).prod(-1)
    areas = (dets[..., 2:] - dets[..., :2]).prod(-1)
    gt_areas = (gts[..., 2:] - gts[..., :2]).prod(-1)
    union = np.where(np.asarray(gt_crowd, dtype=bool), areas, areas + gt_areas - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)
