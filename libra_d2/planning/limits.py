"""Numbers of proposals, detections and sampled positives, and the threshold of NMS."""

from typing import Dict

from detectron2.config import CfgNode

from ..config.detectors import is_retinanet
from ..config.flattening import value_at
from ..data.checks.anchors import (
    objects_by_level,
    objects_per_view,
    training_views,
    uses_anchors,
)
from ..data.checks.needed_settings import (
    needed_candidates,
    needed_detections,
    needed_nms,
    needed_positives,
    needed_proposals,
    needed_rpn_nms,
    nms_key,
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
    crops = (training_views(data.objects.sizes, cfg) < data.objects.sizes).any()
    for split in ("train", "test"):
        view = "a crop" if split == "train" and crops else "an image"
        if uses_anchors(cfg):
            most = int(objects_by_level(*of_all, split).max())
            why = f"up to {most} objects of one level in {view}"
            advice += _advice(needed_candidates(most, cfg, split), why)
        most = int(objects_per_view(*of_all, split).max())
        why = f"up to {most} objects in {view}"
        advice += _advice(needed_proposals(most, cfg, split), why)
    return advice


def plan_positives(data: TrainingSet, cfg: CfgNode) -> Advice:
    """Set what :func:`needed_positives` asks for."""
    counts = data.objects_per_view(cfg)
    why = f"nine out of ten images have up to {usual_number(counts)} objects"
    return _advice(needed_positives(counts, cfg), why)


def plan_nms(data: TrainingSet, cfg: CfgNode) -> Advice:
    """Set what :func:`needed_nms` and :func:`needed_rpn_nms` ask for."""
    advice: Advice = []
    if cfg.TEST.NMS.TYPE == "hard":
        key = nms_key(cfg)
        threshold = value_at(cfg, key)
        overlaps = overlapping_objects(data.objects, threshold)
        pairs = (
            f"{len(overlaps.ious)} pairs of objects of a class overlap by an IoU above "
            f"{threshold:g}, up to {overlaps.ious.max(initial=0):.2f}: NMS at {threshold:g} keeps "
            "one of each"
        )
        advice += _advice(needed_nms(overlaps, data.num_objects, cfg), pairs)
        if len(overlaps.ious) and not advice:
            advice.append(Note(f"{pairs} (too few to change {key})"))
    if uses_anchors(cfg) and not is_retinanet(cfg):
        threshold = cfg.MODEL.RPN.NMS_THRESH
        overlaps = overlapping_objects(data.objects, threshold, any_class=True)
        why = f"{len(overlaps.ious)} pairs of objects overlap by an IoU above {threshold:g}"
        advice += _advice(needed_rpn_nms(overlaps, data.num_objects, cfg), why)
    return advice


def _advice(needed: Dict, why: str) -> Advice:
    return [Setting(key, value, why) for key, value in needed.items()]
