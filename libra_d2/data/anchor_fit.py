"""
Whether a config's anchors fit the objects of a data set.

Shapes: I images; N objects of all of them; A anchors of one place, of all levels together.
"""

from typing import Tuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from .annotation_arrays import Annotations
from .findings import DatasetReport

# Up to this share of the objects may be out of the anchors' reach without being a problem.
_FEW = 0.01


def check_anchors(report: DatasetReport, objects: Annotations, cfg: CfgNode) -> None:
    """Add figures and findings to `report`; without an RPN's or RetinaNet's anchors, none."""
    if cfg.MODEL.LOAD_PROPOSALS or cfg.MODEL.ANCHOR_GENERATOR.NAME != "DefaultAnchorGenerator":
        return
    low, high = _thresholds(cfg)
    shapes = objects.widths_heights[~objects.crowd]
    shapes = shapes * _scales(objects.sizes, cfg, report.split)[objects.image[~objects.crowd]]
    ious = best_shape_ious(shapes, anchor_shapes(cfg))
    if not len(ious):
        return
    report.figures[f"best anchor IoU below {high}"] = f"{(ious < high).mean():.1%}"
    report.figures[f"best anchor IoU below {low}"] = f"{(ious < low).mean():.1%}"
    report.details["anchors"] = {
        "foreground_threshold": high,
        "background_threshold": low,
        "num_below_foreground": int((ious < high).sum()),
        "num_below_background": int((ious < low).sum()),
        "mean_best_iou": float(ious.mean()),
    }
    ids = np.array(objects.ids, dtype=object)[~objects.crowd]
    after = "after the resize (MODEL.ANCHOR_GENERATOR.SIZES; annotation ids)"
    between = (ious < high) & (ious >= low)
    report.add(
        "loose_anchors",
        f"objects have a best anchor of IoU {low} to {high}, the only one they train, {after}",
        ids[between].tolist(),
        len(ids),
        problem=False,
    )
    report.add(
        "no_anchor",
        f"objects have no anchor of IoU {low} or more {after}",
        ids[ious < low].tolist(),
        len(ids),
        problem=bool((ious < low).mean() > _FEW),
    )


def _thresholds(cfg: CfgNode) -> Tuple[float, float]:
    """IoUs below which an anchor is background, and from which it is foreground."""
    node = cfg.MODEL.RETINANET if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE else cfg.MODEL.RPN
    return min(node.IOU_THRESHOLDS), max(node.IOU_THRESHOLDS)


def _scales(sizes: np.ndarray, cfg: CfgNode, split: str) -> np.ndarray:
    """(I, 2) factors by which the config's resize enlarges images; the middle one in training."""
    short = cfg.INPUT.MIN_SIZE_TEST if split == "test" else np.median(cfg.INPUT.MIN_SIZE_TRAIN)
    longest = cfg.INPUT.MAX_SIZE_TEST if split == "test" else cfg.INPUT.MAX_SIZE_TRAIN
    if any(cfg.INPUT.FIXED_SIZE):
        scales = np.array(cfg.INPUT.FIXED_SIZE[::-1]) / sizes  # (height, width)
        if cfg.INPUT.KEEP_RATIO:
            scales[:] = scales.min(1, keepdims=True)
    elif short:
        scales = np.minimum(short / sizes.min(1), longest / sizes.max(1))[:, None].repeat(2, 1)
    else:
        scales = np.ones_like(sizes)
    return np.where(np.isfinite(sizes).all(1, keepdims=True), scales, 1.0)


def anchor_shapes(cfg: CfgNode) -> np.ndarray:
    """(A, 2) widths and heights of the config's anchors, of all levels."""
    node = cfg.MODEL.ANCHOR_GENERATOR
    levels = max(len(node.SIZES), len(node.ASPECT_RATIOS))
    generator = DefaultAnchorGenerator(
        sizes=node.SIZES, aspect_ratios=node.ASPECT_RATIOS, strides=[1] * levels, offset=0.0
    )
    anchors = np.concatenate([cell.numpy() for cell in generator.cell_anchors])
    return (anchors[:, 2:] - anchors[:, :2]).astype(np.float64)


def best_shape_ious(shapes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """
    The best IoU of each object with an anchor that has the same centre: an upper bound of the
    real one, whose centre is off by up to half a stride.

    Args:
        shapes: (N, 2) widths and heights.
        anchors: (A, 2) widths and heights.

    Returns:
        (N,), in [0, 1].
    """
    best = np.zeros(len(shapes))
    area = shapes.prod(1)
    for anchor in anchors:  # a few dozen; one array of N at a time
        overlap = np.minimum(shapes, anchor).prod(1)
        np.maximum(best, overlap / (area + anchor.prod() - overlap), out=best)
    return best
