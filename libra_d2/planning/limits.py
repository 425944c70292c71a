"""Numbers of proposals, detections and sampled positives, and the threshold of NMS."""

from typing import Dict

from detectron2.config import CfgNode

from ..config.detectors import head_name
from ..config.flattening import value_at
from ..data.checks.anchors import objects_by_level, objects_per_view, uses_anchors
from ..data.checks.needed_settings import (
    needed_candidates,
    needed_detections,
    needed_nms,
    needed_positives,
    needed_proposals,
    needed_rpn_nms,
    usual_number,
)
from ..data.checks.overlaps import overlapping_objects
from .settings import Advice, Note, Setting
from .training_set import TrainingSet


def plan_detections(data: TrainingSet, cfg: CfgNode) -> Advice:
    """Set what :func:`needed_detections` asks for."""
    most = int(data.objects_per_image.max())
    return _advice(needed_detections(most, cfg), f"up to {most} objects in an image")


def plan_proposals(data: TrainingSet, cfg: CfgNode) -> Advice:
    """Set what :func:`needed_proposals` and :func:`needed_candidates` ask for."""
    advice: Advice = []
    of_all = (data.objects, data.num_images, cfg)
    for split in ("train", "test"):
        if uses_anchors(cfg):
            most = int(objects_by_level(*of_all, split).max())
            why = f"up to {most} objects of one level in {_view(split, cfg)}"
            advice += _advice(needed_candidates(most, cfg, split), why)
        most = int(objects_per_view(*of_all, split).max())
        why = f"up to {most} objects in {_view(split, cfg)}"
        advice += _advice(needed_proposals(most, cfg, split), why)
    return advice


def _view(split: str, cfg: CfgNode) -> str:
    crops = cfg.INPUT.CROP.ENABLED or "Crop" in str(cfg.INPUT.AUGMENTATIONS)
    return "a crop" if split == "train" and crops else "an image"


def plan_positives(data: TrainingSet, cfg: CfgNode) -> Advice:
    """Set what :func:`needed_positives` asks for."""
    counts = data.objects_per_view(cfg)
    why = f"nine out of ten images have up to {usual_number(counts)} objects"
    return _advice(needed_positives(counts, cfg), why)


def plan_nms(data: TrainingSet, cfg: CfgNode) -> Advice:
    """Set what :func:`needed_nms` and :func:`needed_rpn_nms` ask for."""
    key = f"MODEL.{head_name(cfg)}.NMS_THRESH_TEST"
    threshold = value_at(cfg, key)
    advice: Advice = []
    if cfg.TEST.NMS.TYPE == "hard":
        first, ious = overlapping_objects(data.objects, threshold)
        pairs = (
            f"{len(first)} pairs of objects of a class overlap by an IoU above {threshold:g}, up "
            f"to {ious.max(initial=0):.2f}: NMS at {threshold:g} keeps one of each"
        )
        advice += _advice(needed_nms(data.objects, cfg), pairs)
        if len(first) and not advice:
            advice.append(Note(f"{pairs} (too few to change {key})"))
    needed = needed_rpn_nms(data.objects, cfg)
    if needed:
        threshold = cfg.MODEL.RPN.NMS_THRESH
        first, _ = overlapping_objects(data.objects, threshold, any_class=True)
        why = f"{len(first)} pairs of objects overlap by an IoU above {threshold:g}"
        advice += _advice(needed, why)
    return advice


def _advice(needed: Dict, why: str) -> Advice:
    return [Setting(key, value, why) for key, value in needed.items()]
