"""
Check whether the anchors of a config fit the objects of a data set.

Shapes: I: number of images; N: number of objects in all images; A: number of anchors at one
location, over all levels.
"""

import re
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from ...config.augmentations import RESIZING, parse_augmentations
from ...config.detectors import is_retinanet
from ..datasets.annotation_arrays import Annotations
from .findings import DatasetReport


def check_anchors(report: DatasetReport, objects: Annotations, cfg: CfgNode) -> None:
    """Add figures and findings to `report`, unless the detector uses no anchors."""
    if not uses_anchors(cfg):
        return
    low, high = anchor_settings(cfg)
    ious, _ = best_anchors(resized_shapes(objects.without_crowd(), cfg, report.split), cfg)
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
        f"objects have a best anchor of IoU {low} to {high}, their only positive one, {after}",
        ids[between].tolist(),
        len(ids),
        problem=False,
    )


def uses_anchors(cfg: CfgNode) -> bool:
    """Return whether the detector is an RPN or a RetinaNet with Detectron2's default anchors."""
    generator = cfg.MODEL.ANCHOR_GENERATOR.NAME
    return not cfg.MODEL.LOAD_PROPOSALS and generator == "DefaultAnchorGenerator"


def resized_shapes(objects: Annotations, cfg: CfgNode, split: str) -> np.ndarray:
    """Return (N, 2) widths and heights of the objects, in pixels of the network's input."""
    return objects.widths_heights * _scales(objects.sizes, cfg, split)[objects.image]


def anchor_settings(cfg: CfgNode) -> Tuple[float, float]:
    """Return the IoUs below which an anchor is background and from which it is foreground."""
    node = cfg.MODEL.RETINANET if is_retinanet(cfg) else cfg.MODEL.RPN
    return min(node.IOU_THRESHOLDS), max(node.IOU_THRESHOLDS)


def training_views(sizes: np.ndarray, cfg: CfgNode) -> np.ndarray:
    """
    Return the (I, 2) widths and heights of the part of each image that training uses.

    This is the whole image, or with `INPUT.CROP` or the crops of `INPUT.AUGMENTATIONS` the crop. If
    the size of the crop is random, it is the mean size.
    """
    for name, arguments in _augmentations(cfg):
        if name == "ResizeScale":
            break
        if name == "RandomCrop":
            sizes = sizes * _mean_share(arguments)
        if name == "FixedSizeCrop":
            sizes = np.minimum(sizes, _width_height(arguments["size"]))
    if not cfg.INPUT.CROP.ENABLED:
        return sizes
    size = np.array(cfg.INPUT.CROP.SIZE[::-1], dtype=np.float64)  # (height, width)
    kind = cfg.INPUT.CROP.TYPE
    if kind == "relative":
        return sizes * size
    if kind == "relative_range":
        return sizes * (size + 1) / 2
    if kind == "absolute_range":
        size = size.mean().repeat(2)
    return np.minimum(sizes, size)


def _augmentations(cfg: CfgNode) -> List[Tuple[str, Dict[str, Any]]]:
    """Return the names and arguments of `INPUT.AUGMENTATIONS`."""
    return [(e.name, e.arguments) for e in parse_augmentations(cfg.INPUT.AUGMENTATIONS)]


def _mean_share(arguments: Dict[str, Any]) -> float:
    """Return the mean share of a side that a RandomCrop leaves."""
    return 1 - arguments["prob"] * (1 - arguments["min"]) / 2


def _width_height(size: Any) -> np.ndarray:
    """Return (width, height) of a number or a pair (height, width)."""
    return np.broadcast_to(np.array(size, dtype=np.float64), 2)[::-1]


def _listed_scales(sizes: np.ndarray, cfg: CfgNode) -> np.ndarray:
    """Return the (I, 2) scale factors of a list that resizes; of a range, the middle ones."""
    scales, seen = np.ones_like(sizes), sizes
    for name, arguments in _augmentations(cfg):
        if name == "RandomCrop":
            seen = seen * _mean_share(arguments)
        elif name == "FixedSizeCrop":  # which pads smaller images
            seen = np.broadcast_to(_width_height(arguments["size"]), sizes.shape)
        elif name == "ResizeScale":
            factor = (arguments["min_scale"] + arguments["max_scale"]) / 2
            factors = factor * (_width_height(arguments["size"]) / seen).min(1, keepdims=True)
            scales, seen = scales * factors, seen * factors
    return scales


def _scales(sizes: np.ndarray, cfg: CfgNode, split: str) -> np.ndarray:
    """Return the (I, 2) scale factors of the config's resize; in training, the median ones."""
    resizes = split == "train" and any(name in RESIZING for name, _ in _augmentations(cfg))
    whole, sizes = sizes, training_views(sizes, cfg) if split == "train" else sizes
    short = cfg.INPUT.MIN_SIZE_TEST if split == "test" else np.median(cfg.INPUT.MIN_SIZE_TRAIN)
    longest = cfg.INPUT.MAX_SIZE_TEST if split == "test" else cfg.INPUT.MAX_SIZE_TRAIN
    if resizes:
        scales = _listed_scales(whole, cfg)
    elif any(cfg.INPUT.FIXED_SIZE):
        scales = np.array(cfg.INPUT.FIXED_SIZE[::-1]) / sizes  # (height, width)
        if cfg.INPUT.KEEP_RATIO:
            scales[:] = scales.min(1, keepdims=True)
    elif short:
        scales = np.minimum(short / sizes.min(1), longest / sizes.max(1))[:, None].repeat(2, 1)
    else:
        scales = np.ones_like(sizes)
    return np.where(np.isfinite(sizes).all(1, keepdims=True), scales, 1.0)


def strides_of(cfg: CfgNode) -> np.ndarray:
    """Return the stride of each level with anchors, from its name: 8 for "p3", 16 for "res4"."""
    node = cfg.MODEL.RETINANET if is_retinanet(cfg) else cfg.MODEL.RPN
    levels = [re.search(r"\d+$", name) for name in node.IN_FEATURES]
    return np.array([2.0 ** int(level[0]) if level else 1.0 for level in levels])


def anchor_shapes(cfg: CfgNode) -> np.ndarray:
    """Return the (A, 2) widths and heights of the config's anchors."""
    return np.concatenate(_shapes_by_level(cfg))


def anchor_levels(cfg: CfgNode) -> np.ndarray:
    """Return the (A,) level of each anchor of :func:`anchor_shapes`, counted from 0."""
    by_level = _shapes_by_level(cfg)
    return np.repeat(np.arange(len(by_level)), [len(shapes) for shapes in by_level])


def _shapes_by_level(cfg: CfgNode) -> List[np.ndarray]:
    node = cfg.MODEL.ANCHOR_GENERATOR
    generator = DefaultAnchorGenerator(
        sizes=node.SIZES,
        aspect_ratios=node.ASPECT_RATIOS,
        strides=[1] * len(strides_of(cfg)),
        offset=0.0,
    )
    anchors = [cell.numpy().astype(np.float64) for cell in generator.cell_anchors]
    return [cell[:, 2:] - cell[:, :2] for cell in anchors]


def values_by_level(values: Sequence[Any], num_levels: int) -> Tuple[Tuple[float, ...], ...]:
    """
    Return the sizes or aspect ratios of each level. As in Detectron2, one list, which may be
    nested, holds for all levels.

    >>> values_by_level([0.5, 1], 2), values_by_level([[32], [64]], 2)
    (((0.5, 1.0), (0.5, 1.0)), ((32.0,), (64.0,)))
    """
    lists = list(values) if isinstance(values[0], (list, tuple)) else [values]
    if len(lists) == 1:
        lists *= num_levels
    return tuple(tuple(float(value) for value in level) for level in lists)


def best_anchors(shapes: np.ndarray, cfg: CfgNode) -> Tuple[np.ndarray, np.ndarray]:
    """Return :func:`best_shape_ious` for the config's anchors, and the (N,) indices of the best."""
    best, which = np.zeros(len(shapes)), np.zeros(len(shapes), dtype=np.int64)
    for i, anchor in enumerate(anchor_shapes(cfg)):
        iou = best_shape_ious(shapes, anchor[None])
        better = iou > best
        best[better], which[better] = iou[better], i
    return best, which


def objects_by_level(objects: Annotations, num_images: int, cfg: CfgNode, split: str) -> np.ndarray:
    """
    Return the (I, levels) number of objects whose best anchor is on a level, for each image; in
    training, the expected number of what is seen at once, see :func:`objects_per_view`.
    """
    _, best = best_anchors(resized_shapes(objects, cfg, split), cfg)
    level = anchor_levels(cfg)[best]
    counts = np.zeros((num_images, int(level.max()) + 1), dtype=np.int64)
    np.add.at(counts, (objects.image, level), 1)
    if split == "test":
        return counts
    return np.ceil(counts * _seen_share(objects, cfg)[:, None]).astype(np.int64)


def objects_per_view(objects: Annotations, num_images: int, cfg: CfgNode, split: str) -> np.ndarray:
    """
    Return the (I,) number of objects that the detector sees at once: those of an image, or in
    training with crops those that a crop has on average.
    """
    counts = np.bincount(objects.image, minlength=num_images)
    if split == "test":
        return counts
    return np.ceil(counts * _seen_share(objects, cfg)).astype(np.int64)


def _seen_share(objects: Annotations, cfg: CfgNode) -> np.ndarray:
    """Return the (I,) share of the area of each image that training sees at once."""
    share = training_views(objects.sizes, cfg).prod(1) / objects.sizes.prod(1)
    return np.minimum(np.where(np.isfinite(share), share, 1.0), 1.0)


def rounded_size(size: float) -> float:
    """Round the size of an anchor to whole pixels, or to half pixels if it is small."""
    return round(size) if size >= 8 else max(round(2 * size) / 2, 1)


def best_shape_ious(shapes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """
    Return the best IoU of each object with the anchors, placed on a common center.

    This is an upper bound: the centers of real anchors are off by up to half a stride.

    Args:
        shapes: (N, 2) widths and heights.
        anchors: (A, 2) widths and heights.

    Returns:
        (N,), in [0, 1].
    """
    best = np.zeros(len(shapes))
    area = shapes.prod(1)
    for anchor in anchors:  # few anchors, many objects: needs memory for N values only
        overlap = np.minimum(shapes, anchor).prod(1)
        np.maximum(best, overlap / (area + anchor.prod() - overlap), out=best)
    return best


def off_center_ious(shapes: np.ndarray, anchor: np.ndarray, stride: float) -> np.ndarray:
    """
    Return the IoU of each object with an anchor whose center is off by a quarter of the stride.

    The offset is along both axes. It is that of the nearest anchor on average.

    Args:
        shapes: (N, 2) widths and heights.
        anchor: (2,) width and height.

    Returns:
        (N,), in [0, 1].
    """
    sides = np.minimum(np.minimum(shapes, anchor), (shapes + anchor) / 2 - stride / 4)
    shared = np.maximum(sides, 0).prod(1)
    return shared / (shapes.prod(1) + anchor.prod() - shared)
