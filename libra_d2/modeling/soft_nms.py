"""
Soft-NMS (Bodla et al., "Soft-NMS -- Improving Object Detection With One Line of Code", ICCV 2017,
arXiv:1704.04503). The results equal those of mmcv's `soft_nms`.

Shape shorthand in this module:

    R: number of boxes
    K: number of groups (classes) among them
    n: number of boxes in the largest group
"""

from typing import Any, Dict, Tuple

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances

from ..config.choices import NMS_TYPES

_CHECK_EVERY = 64  # steps; each check synchronizes with the device


def checked_nms(
    type: str = "hard", sigma: float = 0.5, min_score: float = 0.001
) -> Tuple[str, float, float]:
    """
    Check the settings of `TEST.NMS`, and fill in the defaults.

    Raises:
        ValueError: a setting is outside its range.
    """
    if type not in NMS_TYPES:
        raise ValueError(f"TEST.NMS.TYPE must be one of {NMS_TYPES}, got {type!r}")
    if not sigma > 0:
        raise ValueError(f"TEST.NMS.SIGMA must be a number above 0, got {sigma!r}")
    if not 0 <= min_score < 1:
        raise ValueError(f"TEST.NMS.MIN_SCORE must be a number in [0, 1), got {min_score!r}")
    return type, sigma, min_score


def nms_settings(cfg: CfgNode) -> Dict[str, Any]:
    """Return the settings of `TEST.NMS` as keyword arguments of both kinds of heads."""
    node = cfg.TEST.NMS
    return {"type": node.TYPE, "sigma": node.SIGMA, "min_score": node.MIN_SCORE}


def soft_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    method: str = "linear",
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 0.001,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Apply :func:`batched_soft_nms` to boxes of a single class."""
    idxs = torch.zeros_like(scores, dtype=torch.int64)
    return batched_soft_nms(boxes, scores, idxs, method, iou_thresh, sigma, min_score)


@torch.no_grad()
def batched_soft_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor,
    method: str = "linear",
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 0.001,
    topk: int = -1,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    Apply Soft-NMS to the boxes of each class, all classes in parallel.

    Soft-NMS repeatedly takes the box with the highest score and multiplies the scores of the
    remaining boxes by a weight that falls with their IoU with that box. The weight at IoU x is:

        "linear": 1 - x if x >= iou_thresh, else 1;
        "gaussian": exp(-x^2 / sigma).

    Args:
        boxes: (R, 4), XYXY, absolute pixels.
        scores: (R,), in [0, 1]. Scores of half precision are decayed in float32.
        idxs: (R,), class of each box.
        method: "linear" or "gaussian".
        iou_thresh: IoU threshold of "linear".
        sigma: width of "gaussian", > 0.
        min_score: boxes whose decayed score is below this value are dropped.
        topk: maximum number of boxes to return; -1 for all. Small values save time.

    Returns:
        (keep, decayed): the indices of the kept boxes (int64) and their decayed scores (with the
        dtype of `scores`), both sorted by falling decayed score.

    Raises:
        ValueError: a setting is outside its range.
    """
    checked_nms(method, sigma, min_score)
    if method == "hard":
        raise ValueError(f"method must be one of {NMS_TYPES[1:]}, got {method!r}")
    if len(boxes) == 0 or topk == 0:
        return idxs.new_zeros(0, dtype=torch.int64), scores.new_zeros(0)
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    live, coords, source = _pad_by_class(boxes.to(dtype), scores.to(dtype), idxs)
    areas = (coords[2] - coords[0]) * (coords[3] - coords[1])

    # No weight exceeds 1, so the boxes of a class are taken by falling decayed score. Hence the
    # best `topk` boxes of all classes are among the first `topk` of each.
    num_steps = live.shape[1] if topk < 0 else min(topk, live.shape[1])
    taken_per_step, score_per_step = [], []
    for step in range(num_steps):
        if step % _CHECK_EVERY == 0 and step > 0:
            rows = (live >= min_score).any(1).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            if len(rows) < len(live):
                live, source, areas = live[rows], source[rows], areas[rows]
                coords = coords[:, rows]
        score, top = live.max(dim=1, keepdim=True)  # K x 1
        taken_per_step.append(source.gather(1, top))
        score_per_step.append(score)
        live.scatter_(1, top, -1.0)  # like the padding, never taken again

        x1, y1, x2, y2 = coords
        width = torch.minimum(x2, x2.gather(1, top)) - torch.maximum(x1, x1.gather(1, top))
        height = torch.minimum(y2, y2.gather(1, top)) - torch.maximum(y1, y1.gather(1, top))
        inter = width.clamp_(min=0).mul_(height.clamp_(min=0))
        union = areas + areas.gather(1, top) - inter
        iou = inter.div_(union.clamp_(min=torch.finfo(dtype).tiny))  # 0 if both are empty
        if method == "linear":
            weight = torch.where(iou >= iou_thresh, 1 - iou, 1.0)
        else:
            weight = iou.square_().div_(-sigma).exp_()
        live = torch.where(live < 0, live, live * weight)

    taken, decayed = torch.cat(taken_per_step).flatten(), torch.cat(score_per_step).flatten()
    # Once a class has no boxes left, its steps take padding, whose scores are negative.
    above = (decayed >= min_score).nonzero().squeeze(1)
    decayed, order = decayed[above].sort(descending=True, stable=True)
    if topk >= 0:
        decayed, order = decayed[:topk], order[:topk]
    return taken[above[order]], decayed.to(scores.dtype)


def soft_nms_instances(
    instances: Instances,
    method: str,
    iou_thresh: float,
    sigma: float,
    min_score: float,
    topk: int = -1,
) -> Tuple[Instances, torch.Tensor]:
    """
    Apply :func:`batched_soft_nms` to the detections of an image.

    Args:
        instances: detections with the fields "pred_boxes", "scores" and "pred_classes".
        Others: see :func:`batched_soft_nms`.

    Returns:
        (instances, keep): the kept detections, with decayed scores, and their indices.
    """
    keep, scores = batched_soft_nms(
        instances.pred_boxes.tensor,
        instances.scores,
        instances.pred_classes,
        method,
        iou_thresh,
        sigma,
        min_score,
        topk,
    )
    kept = instances[keep]
    kept.scores = scores
    return kept, keep


def _pad_by_class(boxes, scores, idxs) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Return scores (K, n), box coordinates (4, K, n) and indices of the boxes (K, n), with one row
    per class. The padding has the score -1.
    """
    # Without torch.unique, the host waits for the device only to read the shape.
    grouped, order = idxs.sort(stable=True)
    row = torch.zeros_like(order)
    row[1:] = (grouped[1:] != grouped[:-1]).cumsum(0)
    counts = torch.zeros_like(row).scatter_add_(0, row, torch.ones_like(row))  # of rows, then zeros
    column = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    shape = torch.stack([row[-1] + 1, counts.max()]).tolist()
    padded_scores = scores.new_full(shape, -1.0)
    padded_scores[row, column] = scores[order]
    coords = boxes.new_zeros((4, *shape))
    coords[:, row, column] = boxes[order].t()
    source = order.new_zeros(shape)
    source[row, column] = order
    return padded_scores, coords, source
