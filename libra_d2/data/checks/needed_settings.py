"""
Rules for the settings that a data set needs: numbers of detections, proposals and positives, and
the threshold of NMS.

The data check suggests them, and `libra-d2 plan` sets them for the training set, so that the check
has no problem to report about a planned config. Each rule returns the keys and values that a config
should change, and nothing for a config that has enough.

Shapes: I: number of images; N: number of objects in all images; P: number of pairs of objects.
"""

import math
from typing import Any, Dict

import numpy as np
from detectron2.config import CfgNode

from ...config.detectors import head_name, is_retinanet
from ...config.flattening import value_at
from .anchors import uses_anchors
from .overlaps import Overlaps

Settings = Dict[str, Any]

# Each object needs several proposals, because some of them fit badly, and before NMS more
# candidates, because NMS removes most of them.
PROPOSALS_PER_OBJECT = 2
CANDIDATES_PER_OBJECT = 4
# Share of the images that get a positive for each object. The others are rare, and a larger batch
# costs time in each step.
_USUAL_IMAGES = 0.9
_MOST_POSITIVES = 256  # in one image: more cost time in each step and add little
_MOST_ROIS = 512
_MOST_ANCHORS = 1024
_ANCHORS_PER_OBJECT = 2
# If NMS suppresses at most this share of the objects, its threshold is kept.
_SUPPRESSED = 0.005
# With a higher IoU threshold, NMS would hardly remove duplicates.
_HIGHEST_NMS_THRESHOLD = 0.8
_HIGHEST_RPN_NMS_THRESHOLD = 0.9


def needed_detections(most: int, cfg: CfgNode) -> Settings:
    """
    Allow a fifth more detections than the most objects of an image, as COCO's 100 do.

    Source: COCO's limit of 100 detections for at most 93 objects an image (Lin et al., 2014).
    """
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    if limit < 0 or 1.2 * most <= limit:
        return {}
    return {"TEST.DETECTIONS_PER_IMAGE": with_room(most)}


def needed_proposals(most: int, cfg: CfgNode, split: str) -> Settings:
    """
    Keep two proposals for each object after NMS, with room for images that hold a fifth more.

    Source: proposals have to outnumber the objects for a high recall (Ren et al., 2015, figure 2).
    The factor comes from our own experiments (docs/planning.md).

    Args:
        split: "train" or "test".
    """
    if is_retinanet(cfg) or cfg.MODEL.LOAD_PROPOSALS:
        return {}
    needed = with_room(PROPOSALS_PER_OBJECT * most)
    return _at_least(cfg, f"MODEL.RPN.POST_NMS_TOPK_{split.upper()}", needed)


def needed_candidates(most_of_level: int, cfg: CfgNode, split: str) -> Settings:
    """
    Pass on four candidates to NMS for each object of a level, with room for a fifth more objects.

    Args:
        most_of_level: the most objects of an image whose best anchor is on one level.
        split: "train" or "test".
    """
    if not uses_anchors(cfg) or (is_retinanet(cfg) and split == "train"):
        return {}  # RetinaNet trains on all anchors
    needed = with_room(CANDIDATES_PER_OBJECT * most_of_level)
    return _at_least(cfg, candidates_key(cfg, split), needed)


def candidates_key(cfg: CfgNode, split: str) -> str:
    """Return the key of the number of candidates that a level passes on to NMS."""
    if is_retinanet(cfg):
        return "MODEL.RETINANET.TOPK_CANDIDATES_TEST"
    return f"MODEL.RPN.PRE_NMS_TOPK_{split.upper()}"


def needed_positives(counts: np.ndarray, cfg: CfgNode) -> Settings:
    """
    Sample a positive for each object of nine out of ten images, up to 256 in an image.

    Up to 512 proposals, as in Detectron2's configs, the batch of the heads grows; beyond that, the
    share of positives grows, up to a half. The RPN samples two anchors for each of these objects.

    Source: the paper's sampler draws positives evenly over the objects (Pang et al., 2019), which
    needs at least one each.

    Args:
        counts: (I,) numbers of objects that training sees at once, see
            :func:`~.anchors.objects_per_view`. Images without objects do not count.
    """
    if is_retinanet(cfg) or not counts.any():
        return {}  # RetinaNet trains on all anchors
    positives = min(usual_number(counts), _MOST_POSITIVES)
    heads, rpn = cfg.MODEL.ROI_HEADS, cfg.MODEL.RPN
    settings: Settings = {}
    if int(heads.BATCH_SIZE_PER_IMAGE * heads.POSITIVE_FRACTION) < positives:
        size = min(rounded_up(positives / max(heads.POSITIVE_FRACTION, 1e-9)), _MOST_ROIS)
        size = max(size, heads.BATCH_SIZE_PER_IMAGE)
        if size != heads.BATCH_SIZE_PER_IMAGE:
            settings["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"] = size
        fraction = float(min(np.ceil(20 * positives / size) / 20, 0.5))
        if int(size * heads.POSITIVE_FRACTION) < positives and fraction > heads.POSITIVE_FRACTION:
            settings["MODEL.ROI_HEADS.POSITIVE_FRACTION"] = fraction
    if uses_anchors(cfg):
        anchors = _ANCHORS_PER_OBJECT * positives
        if int(rpn.BATCH_SIZE_PER_IMAGE * rpn.POSITIVE_FRACTION) < anchors:
            size = min(rounded_up(anchors / max(rpn.POSITIVE_FRACTION, 1e-9)), _MOST_ANCHORS)
            settings.update(_at_least(cfg, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", size))
    return settings


def usual_number(counts: np.ndarray) -> int:
    """Return the number of objects that nine out of ten images with objects do not exceed."""
    return int(np.ceil(np.quantile(counts[counts > 0], _USUAL_IMAGES)))


def sampled_positives(cfg: CfgNode, name: str) -> int:
    """
    Return the number of objects of an image for which a training step can sample positives.

    Args:
        name: "ROI_HEADS" or "RPN".
    """
    node = cfg.MODEL[name]
    positives = int(node.BATCH_SIZE_PER_IMAGE * node.POSITIVE_FRACTION)
    return positives // _ANCHORS_PER_OBJECT if name == "RPN" else positives


def needed_nms(overlaps: Overlaps, num_objects: int, cfg: CfgNode) -> Settings:
    """
    Raise the IoU threshold of NMS until it suppresses at most one out of 200 objects, or use
    Soft-NMS if that needs more than 0.8.

    Two objects of a class whose IoU is above the threshold cannot both be found.

    Source: Soft-NMS (Bodla et al., 2017) was made for such objects.

    Args:
        overlaps: objects of a class that overlap by more than the threshold of the config, from
            :func:`~.overlaps.overlapping_objects`.
    """
    if cfg.TEST.NMS.TYPE != "hard":
        return {}
    key = nms_key(cfg)
    needed = _needed_threshold(overlaps, num_objects)
    if needed > _HIGHEST_NMS_THRESHOLD:
        return {"TEST.NMS.TYPE": "gaussian"}
    return {key: needed} if needed > value_at(cfg, key) else {}


def nms_key(cfg: CfgNode) -> str:
    """Return the key of the IoU threshold of NMS for the detections of a class."""
    return f"MODEL.{head_name(cfg)}.NMS_THRESH_TEST"


def needed_rpn_nms(overlaps: Overlaps, num_objects: int, cfg: CfgNode) -> Settings:
    """
    Raise the IoU threshold of the NMS of an RPN like :func:`needed_nms`, across classes.

    The data check does not ask for it: that proposals suppress each other costs less than that
    detections do.

    Args:
        overlaps: objects of any class that overlap by more than `MODEL.RPN.NMS_THRESH`.
    """
    needed = min(_needed_threshold(overlaps, num_objects), _HIGHEST_RPN_NMS_THRESHOLD)
    return {"MODEL.RPN.NMS_THRESH": needed} if needed > cfg.MODEL.RPN.NMS_THRESH else {}


def with_room(number: float) -> int:
    """Add a fifth and round up, because other images may have more objects than these."""
    return rounded_up(1.2 * number)


def rounded_up(number: float) -> int:
    """Round up to two digits, but at least to a multiple of 10."""
    step = 10 ** max(1, int(math.log10(max(number, 1))) - 1)
    return int(math.ceil(number / step - 1e-9) * step)


def _needed_threshold(overlaps: Overlaps, total: int) -> float:
    """The lowest multiple of 0.05 that suppresses at most `_SUPPRESSED` of the objects."""
    first, ious = overlaps
    for threshold in np.arange(1, 20) * 0.05:
        if len(np.unique(first[ious > threshold])) <= _SUPPRESSED * total:
            return round(float(threshold), 2)
    return 1.0


def _at_least(cfg: CfgNode, key: str, value: int) -> Settings:
    return {key: value} if value > value_at(cfg, key) else {}
