"""Numbers of proposals, detections and sampled positives, and the threshold of NMS."""

import numpy as np
from detectron2.config import CfgNode

from ..config.detectors import head_name, is_retinanet
from ..config.flattening import value_at
from ..data.checks.anchors import objects_by_level, uses_anchors
from ..data.checks.config_limits import (
    HIGHEST_NMS_THRESHOLD,
    PROPOSALS_PER_OBJECT,
    overlapping_objects,
    with_room,
)
from .settings import Advice, Note, Setting
from .training_set import TrainingSet

_CANDIDATES_PER_OBJECT = 4  # before NMS, which removes most of them
_USUAL = 0.9  # quantile of the number of objects in an image
_MOST_POSITIVES = 256  # in one image: more cost time in each step and add little
_MOST_ROIS = 512
_MOST_ANCHORS = 1024
_SUPPRESSED = 0.005  # share of the objects that NMS may suppress


def plan_detections(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Allow a fifth more detections than the most objects of a training image, as COCO's 100 do.

    Source: COCO's limit of 100 detections for at most 93 objects an image (Lin et al., 2014).
    """
    most = int(data.objects_per_image.max())
    if cfg.TEST.DETECTIONS_PER_IMAGE < 0 or 1.2 * most <= cfg.TEST.DETECTIONS_PER_IMAGE:
        return []
    why = f"up to {most} objects in an image"
    return [Setting("TEST.DETECTIONS_PER_IMAGE", with_room(most), why)]


def plan_proposals(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Keep two proposals for each object after NMS, and four candidates for each object of a level
    before it, with room for images that hold a fifth more.

    Source: proposals have to outnumber the objects for a high recall (Ren et al., 2015, figure 2);
    the factors come from our own experiments (docs/planning.md).
    """
    if not uses_anchors(cfg):
        return []
    per_level = objects_by_level(data.objects, data.num_images, cfg, "train")
    most, most_of_level = int(data.objects_per_image.max()), int(per_level.max())
    before = with_room(_CANDIDATES_PER_OBJECT * most_of_level)
    why_before = f"up to {most_of_level} objects of one level in an image"
    if is_retinanet(cfg):
        key = "MODEL.RETINANET.TOPK_CANDIDATES_TEST"
        return _at_least(cfg, key, before, why_before)
    after = with_room(PROPOSALS_PER_OBJECT * most)
    why_after = f"up to {most} objects in an image"
    advice: Advice = []
    for split in ("TRAIN", "TEST"):
        advice += _at_least(cfg, f"MODEL.RPN.PRE_NMS_TOPK_{split}", before, why_before)
        advice += _at_least(cfg, f"MODEL.RPN.POST_NMS_TOPK_{split}", after, why_after)
    return advice


def plan_positives(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Sample a positive for each object of nine out of ten images, up to 256 in an image.

    Up to 512 proposals, as in Detectron2's configs, the batch of the heads grows; beyond that, the
    share of positives grows, up to a half. The RPN samples two anchors for each of these objects.

    Source: the paper's sampler draws positives evenly over the objects (Pang et al., 2019), which
    needs at least one each.
    """
    if is_retinanet(cfg):
        return []  # it trains on all anchors
    usual = int(np.ceil(np.quantile(data.objects_per_view(cfg), _USUAL)))
    positives = min(usual, _MOST_POSITIVES)
    heads, rpn = cfg.MODEL.ROI_HEADS, cfg.MODEL.RPN
    advice: Advice = []
    why = f"{usual} objects in an image at the ninth decile"
    if int(heads.BATCH_SIZE_PER_IMAGE * heads.POSITIVE_FRACTION) < positives:
        size = max(heads.BATCH_SIZE_PER_IMAGE, with_room(positives / heads.POSITIVE_FRACTION / 1.2))
        size = max(min(size, _MOST_ROIS), heads.BATCH_SIZE_PER_IMAGE)
        if size != heads.BATCH_SIZE_PER_IMAGE:
            advice.append(Setting("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", size, why))
        if int(size * heads.POSITIVE_FRACTION) < positives:
            fraction = min(np.ceil(20 * positives / size) / 20, 0.5)
            advice.append(Setting("MODEL.ROI_HEADS.POSITIVE_FRACTION", float(fraction), why))
    if uses_anchors(cfg):
        wanted = min(with_room(2 * positives / rpn.POSITIVE_FRACTION / 1.2), _MOST_ANCHORS)
        advice += _at_least(cfg, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", wanted, why)
    return advice


def plan_nms(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Raise the IoU threshold of NMS until it suppresses at most one out of 200 objects, or use
    Soft-NMS if that needs more than 0.8.

    Two objects of a class whose IoU is above the threshold cannot both be found. For proposals, the
    classes do not matter.

    Source: Soft-NMS (Bodla et al., 2017) was made for such objects.
    """
    advice: Advice = []
    name = head_name(cfg)
    key = f"MODEL.{name}.NMS_THRESH_TEST"
    threshold = cfg.MODEL[name].NMS_THRESH_TEST
    if cfg.TEST.NMS.TYPE == "hard":
        first, ious = overlapping_objects(data.objects, threshold)
        needed = _needed_threshold(first, ious, len(data.objects.boxes))
        pairs = (
            f"{len(first)} pairs of objects of a class overlap by an IoU above {threshold:g}, up "
            f"to {ious.max(initial=0):.2f}: NMS at {threshold:g} keeps one of each"
        )
        if needed > HIGHEST_NMS_THRESHOLD:
            advice.append(Setting("TEST.NMS.TYPE", "gaussian", pairs))
        elif needed > threshold:
            advice.append(Setting(key, needed, pairs))
        elif len(first):
            advice.append(Note(f"{pairs} (too few to change {key})"))
    if uses_anchors(cfg) and not is_retinanet(cfg):
        threshold = cfg.MODEL.RPN.NMS_THRESH
        first, ious = overlapping_objects(data.objects, threshold, any_class=True)
        needed = min(_needed_threshold(first, ious, len(data.objects.boxes)), 0.9)
        if needed > threshold:
            why = f"{len(first)} pairs of objects overlap by an IoU above {threshold:g}"
            advice.append(Setting("MODEL.RPN.NMS_THRESH", needed, why))
    return advice


def _needed_threshold(first: np.ndarray, ious: np.ndarray, total: int) -> float:
    """The lowest multiple of 0.05 that suppresses at most `_SUPPRESSED` of the objects."""
    for threshold in np.arange(1, 20) * 0.05:
        if len(np.unique(first[ious > threshold])) <= _SUPPRESSED * total:
            return round(float(threshold), 2)
    return 1.0


def _at_least(cfg: CfgNode, key: str, value: int, why: str) -> Advice:
    return [Setting(key, value, why)] if value > value_at(cfg, key) else []
