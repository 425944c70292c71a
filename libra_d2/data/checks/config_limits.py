"""
Find the objects of a data set that a config cannot train or detect.

Limits on detections, proposals and positives, the anchors, and NMS may each be too tight for a data
set. All functions depend only on annotations and a config, so that the data check, training,
evaluation and the report agree.

Shapes: I: number of images; N: number of objects in all images; A: number of anchors at one
location, over all levels.
"""

import logging
from typing import Any, Dict, List, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ...config.detectors import is_retinanet
from ...config.flattening import value_at
from ..datasets.annotation_arrays import Annotations
from ..datasets.coco_format import read_coco
from .anchor_search import fitting_anchors
from .anchors import (
    anchor_settings,
    best_anchors,
    objects_by_level,
    objects_per_view,
    resized_shapes,
    uses_anchors,
)
from .findings import Finding
from .needed_settings import (
    CANDIDATES_PER_OBJECT,
    PROPOSALS_PER_OBJECT,
    candidates_key,
    needed_candidates,
    needed_detections,
    needed_nms,
    needed_positives,
    needed_proposals,
    nms_key,
    sampled_positives,
    usual_number,
)
from .overlaps import overlapping_objects

logger = logging.getLogger(__name__)

# If at most this share of the objects is affected, a finding is a note, not a problem.
_FEW = 0.01


def config_limits(
    objects: Annotations, file_names: Sequence[str], cfg: CfgNode, split: str
) -> List[Finding]:
    """
    Find the settings of a config that are too small for a data set.

    Args:
        objects: the annotations of the data set. Crowd regions and boxes without area, which
            training does not use, are ignored.
        file_names: names of its I images.
        cfg: config of the detector.
        split: "train" or "test". Positives are checked for "train" only. Detections are checked for
            both, because test images will need as many as training images.

    Returns:
        One finding for each such setting, with keys and values that are large enough.
    """
    objects = objects.without_crowd().with_area()
    if not len(objects.boxes):
        return []
    counts = np.bincount(objects.image, minlength=len(file_names))
    findings: List[Finding] = []
    if cfg.TEST.DETECTIONS_PER_IMAGE >= 0:
        findings += _limit(
            "detections_limit",
            "have more objects than the detector may return for an image",
            counts,
            file_names,
            split,
            key="TEST.DETECTIONS_PER_IMAGE",
            value=cfg.TEST.DETECTIONS_PER_IMAGE,
            settings=needed_detections(int(counts.max()), cfg),
        )
    if not is_retinanet(cfg) and not cfg.MODEL.LOAD_PROPOSALS:
        findings += _proposals(objects, file_names, cfg, split)
    if uses_anchors(cfg):
        findings += _candidates(objects, file_names, cfg, split)
        findings += _objects_without_anchors(objects, file_names, cfg, split)
    if split == "train":
        findings += _positives(objects, file_names, cfg)
    findings += _suppressed(objects, file_names, cfg, split)
    return findings


def _limit(
    check: str,
    text: str,
    counts: np.ndarray,
    file_names: Sequence[str],
    split: str,
    *,
    key: str,
    value: int,
    settings: Dict[str, Any],
    factor: float = 1,
) -> List[Finding]:
    """
    Find images with more than `value / factor` objects.

    Args:
        counts: (I,) numbers of objects.
        key, value: the setting that limits them.
        settings: that would be large enough.
    """
    allowed = int(value / factor + 1e-6)
    lost = np.maximum(counts - allowed, 0).sum() / counts.sum()
    text = f"images {text}; up to {int(counts.max())} objects, {key} is {value}"
    return _fuller_images(
        check, text, counts, allowed, file_names, split, bool(lost > _FEW), settings
    )


def _fuller_images(
    check: str,
    text: str,
    counts: np.ndarray,
    allowed: int,
    file_names: Sequence[str],
    split: str,
    problem: bool,
    settings: Dict[str, Any],
) -> List[Finding]:
    """Return a finding about the images with more than `allowed` objects, if there are any."""
    over = np.flatnonzero(counts > allowed)
    if not len(over):
        return []
    fullest_first = over[np.argsort(-counts[over], kind="stable")]
    return [
        Finding(
            check=check,
            text=text,
            count=len(over),
            total=len(counts),
            examples=[file_names[i] for i in fullest_first[:3]],
            problem=problem,
            split=split,
            settings=settings,
        )
    ]


def _proposals(
    objects: Annotations, file_names: Sequence[str], cfg: CfgNode, split: str
) -> List[Finding]:
    counts = objects_per_view(objects, len(file_names), cfg, split)
    key = f"MODEL.RPN.POST_NMS_TOPK_{split.upper()}"
    return _limit(
        "proposals_limit",
        f"have fewer than {PROPOSALS_PER_OBJECT} proposals per object",
        counts,
        file_names,
        split,
        key=key,
        value=value_at(cfg, key),
        settings=needed_proposals(int(counts.max()), cfg, split),
        factor=PROPOSALS_PER_OBJECT,
    )


def _candidates(
    objects: Annotations, file_names: Sequence[str], cfg: CfgNode, split: str
) -> List[Finding]:
    """Check the number of candidates that a level passes on to NMS for the objects of its size."""
    if is_retinanet(cfg) and split == "train":  # all anchors are trained
        return []
    counts = objects_by_level(objects, len(file_names), cfg, split).max(1)
    key = candidates_key(cfg, split)
    return _limit(
        "candidates_limit",
        f"have a level with fewer than {CANDIDATES_PER_OBJECT} candidates before NMS per object",
        counts,
        file_names,
        split,
        key=key,
        value=value_at(cfg, key),
        settings=needed_candidates(int(counts.max()), cfg, split),
        factor=CANDIDATES_PER_OBJECT,
    )


def _positives(objects: Annotations, file_names: Sequence[str], cfg: CfgNode) -> List[Finding]:
    """
    Check the number of positives that a training step samples from an image.

    Images that are fuller than nine out of ten others are only noted.
    """
    if is_retinanet(cfg):
        return []
    counts = objects_per_view(objects, len(file_names), cfg, "train")
    needed = needed_positives(counts, cfg)
    findings: List[Finding] = []
    for name in ("ROI_HEADS", "RPN") if uses_anchors(cfg) else ("ROI_HEADS",):
        key, node = f"MODEL.{name}", cfg.MODEL[name]
        allowed = sampled_positives(cfg, name)
        settings = {k: v for k, v in needed.items() if k.startswith(f"{key}.")}
        text = (
            f"images have more than {allowed} objects, for which a step samples positives "
            f"({key}.BATCH_SIZE_PER_IMAGE {node.BATCH_SIZE_PER_IMAGE}, POSITIVE_FRACTION "
            f"{node.POSITIVE_FRACTION:g}); nine out of ten have up to {usual_number(counts)}"
        )
        findings += _fuller_images(
            "positives_limit", text, counts, allowed, file_names, "train", bool(settings), settings
        )
    return findings


def _objects_without_anchors(
    objects: Annotations, file_names: Sequence[str], cfg: CfgNode, split: str
) -> List[Finding]:
    shapes = resized_shapes(objects, cfg, split)
    low, _ = anchor_settings(cfg)
    ious, _ = best_anchors(shapes, cfg)
    without = np.flatnonzero(ious < low)
    if not len(without):
        return []
    files = list(dict.fromkeys(file_names[i] for i in objects.image[without]))
    settings = fitting_anchors(shapes, cfg)
    sides = np.sqrt(shapes[without].prod(1))
    return [
        Finding(
            check="no_anchor",
            text=f"objects in {len(files)} images have no anchor of IoU {low} or more: after the "
            f"resize they are {sides.min():.0f} to {sides.max():.0f} pixels large",
            count=len(without),
            total=len(ious),
            examples=files[:3],
            problem=bool(settings),
            split=split,
            settings=settings,
        )
    ]


def _suppressed(
    objects: Annotations, file_names: Sequence[str], cfg: CfgNode, split: str
) -> List[Finding]:
    """Find objects that NMS would remove as duplicates of others. Soft-NMS removes none."""
    if cfg.TEST.NMS.TYPE != "hard":
        return []
    key = nms_key(cfg)
    threshold = value_at(cfg, key)
    overlaps = overlapping_objects(objects, threshold)
    first, ious = overlaps
    if not len(first):
        return []
    files = list(dict.fromkeys(file_names[i] for i in objects.image[first]))
    settings = needed_nms(overlaps, len(objects.boxes), cfg)
    return [
        Finding(
            check="suppressed_by_nms",
            text=f"objects in {len(files)} images overlap another one of their class by an IoU "
            f"above {key} {threshold:g}, up to {ious.max():.2f}: NMS keeps one of the two",
            count=len(np.unique(first)),
            total=len(objects.boxes),
            examples=files[:3],
            problem=bool(settings),
            split=split,
            settings=settings,
        )
    ]


def limits_of_coco(content: Dict[str, Any], cfg: CfgNode, dataset: str = "") -> List[Finding]:
    """Apply :func:`config_limits` to a test set, given the content of its COCO annotation file."""
    file_names = [image["file_name"] for image in content["images"]]
    found = config_limits(Annotations.of_coco(content), file_names, cfg, "test")
    for finding in found:
        finding.dataset = dataset
    return found


def warn_of_limits(cfg: CfgNode) -> None:
    """Log the findings of :func:`config_limits` for the test sets, which must be registered."""
    for name in dict.fromkeys(cfg.DATASETS.TEST):
        json_file = MetadataCatalog.get(name).get("json_file")
        if json_file:
            for finding in limits_of_coco(read_coco(json_file), cfg, name):
                logger.log(finding.level, finding.line())
