"""Check the values of `MODEL`: names of components, pyramid levels, anchors and samplers."""

import re
from typing import List, Optional, Sequence

from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)
from detectron2.modeling.proposal_generator import RPN_HEAD_REGISTRY
from fvcore.common.registry import Registry

from ..utils.messages import printable
from . import choices
from .detectors import has_box_heads
from .removed_keys import replaced_backbone
from .values import choice, number, numbers

_WITH_PROPOSALS = ("GeneralizedRCNN", "ProposalNetwork", "PanopticFPN")
_WITH_ROI_HEADS = ("GeneralizedRCNN", "PanopticFPN")
_RETINANETS = ("RetinaNet", "LibraRetinaNet")


def check_model(cfg: CfgNode) -> List[str]:
    name = cfg.MODEL.META_ARCHITECTURE
    messages = _registered("MODEL.META_ARCHITECTURE", name, META_ARCH_REGISTRY)
    messages += _backbone(cfg)
    if name in _WITH_PROPOSALS:
        messages += _proposal_generator(cfg)
    if name in _WITH_ROI_HEADS:
        messages += _roi_heads(cfg)
    if name in _RETINANETS:
        messages += _retinanet(cfg)
    if cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS and not has_box_heads(cfg):
        messages.append(
            "MODEL.ROI_BOX_HEAD.USE_FED_LOSS must be False with MODEL.META_ARCHITECTURE "
            f"{printable(name)}, which has no box head, got True. Leave the key out, or use an "
            "R-CNN"
        )
    return messages


def _registered(key: str, name: str, registry: Registry) -> List[str]:
    return choice(key, name, tuple(sorted(n for n, _ in registry)))


def pyramid_levels(cfg: CfgNode) -> Optional[List[str]]:
    """Names of the features of a pyramid of Detectron2 or libra_d2; None for other backbones."""
    name, features = cfg.MODEL.BACKBONE.NAME, list(cfg.MODEL.FPN.IN_FEATURES)
    pyramid = re.fullmatch(
        r"build_(libra_)?(retinanet_)?(resnet|torchvision|timm)_fpn_backbone", name
    )
    if not pyramid or not all(re.fullmatch(r"res[1-9]", str(f)) for f in features) or not features:
        return None
    stages = sorted(int(f[3:]) for f in features)
    above = 2 if pyramid[2] else 1
    return [f"p{s}" for s in [*stages, *range(stages[-1] + 1, stages[-1] + 1 + above)]]


def _backbone(cfg: CfgNode) -> List[str]:
    model = cfg.MODEL
    name = model.BACKBONE.NAME
    if replaced_backbone(name):
        return [
            f"MODEL.BACKBONE.NAME {name} is a name of an earlier version: set "
            f"{replaced_backbone(name)}, and set MODEL.BFP.ENABLED to False"
        ]
    messages = _registered("MODEL.BACKBONE.NAME", name, BACKBONE_REGISTRY)
    messages += number(
        "MODEL.BACKBONE.FREEZE_AT", model.BACKBONE.FREEZE_AT, low=0, high=5, whole=True
    )
    if "resnet" in name:
        messages += choice("MODEL.RESNETS.DEPTH", model.RESNETS.DEPTH, choices.RESNET_DEPTHS)
    if "fpn" in name:
        messages += number("MODEL.FPN.OUT_CHANNELS", model.FPN.OUT_CHANNELS, low=1, whole=True)
        if not model.FPN.IN_FEATURES:
            messages.append(
                "MODEL.FPN.IN_FEATURES must name features of the backbone, such as "
                "\"['res2','res3','res4','res5']\", got []"
            )
    classifier = model.CLASSIFIER
    if "torchvision" in name or "timm" in name:
        messages += choice("MODEL.CLASSIFIER.NORM", classifier.NORM, choices.CLASSIFIER_NORMS)
    if "torchvision" in name:
        known = choices.TORCHVISION_CLASSIFIERS
        messages += choice("MODEL.CLASSIFIER.NAME", classifier.NAME, known)
    levels = pyramid_levels(cfg)
    if "libra" in name and model.BFP.ENABLED:
        messages += choice("MODEL.BFP.REFINE_TYPE", model.BFP.REFINE_TYPE, choices.REFINE_TYPES)
        if levels:
            messages += choice("MODEL.BFP.REFINE_LEVEL", model.BFP.REFINE_LEVEL, tuple(levels))
    return messages


def _features(cfg: CfgNode, key: str, names: Sequence[str]) -> List[str]:
    """Check that the features of a head are levels of the pyramid."""
    levels = pyramid_levels(cfg)
    if not names:
        return [f"{key} must name features of the backbone, got []"]
    if levels is None:
        return []
    unknown = [name for name in names if name not in levels]
    return choice(key, unknown[0], tuple(levels)) if unknown else []


def _anchors(cfg: CfgNode, key: str, features: Sequence[str]) -> List[str]:
    node = cfg.MODEL.ANCHOR_GENERATOR
    messages = _registered("MODEL.ANCHOR_GENERATOR.NAME", node.NAME, ANCHOR_GENERATOR_REGISTRY)
    for name in ("SIZES", "ASPECT_RATIOS"):
        own, value = f"MODEL.ANCHOR_GENERATOR.{name}", node[name]
        nested = [isinstance(v, (list, tuple)) for v in value]
        if (
            not value
            or any(nested) != all(nested)
            or any(n and not v for n, v in zip(nested, value))
        ):
            messages.append(f"{own} must be a list with one list per level, got {value}")
            continue
        if not any(nested):  # Detectron2 uses a single list for all levels
            messages += numbers(own, value, above=0)
            continue
        for of_level in value:
            messages += numbers(own, of_level, above=0)
        if len(value) not in (1, len(features)):
            messages.append(
                f"{own} must have one list per level of {key} {list(features)}, or a single list "
                f"for all levels, got {len(value)} lists"
            )
    return messages


def _matching(node: CfgNode, name: str, key: str) -> List[str]:
    thresholds, labels = node.IOU_THRESHOLDS, node.IOU_LABELS
    messages = numbers(f"{name}.IOU_THRESHOLDS", thresholds, low=0, high=1)
    if not messages and sorted(thresholds) != list(thresholds):
        messages.append(f"{name}.IOU_THRESHOLDS must increase, got {list(thresholds)}")
    if len(labels) != len(thresholds) + 1:
        messages.append(
            f"{name}.IOU_LABELS must have one element more than IOU_THRESHOLDS {list(thresholds)}, "
            f"got {list(labels)}"
        )
    return messages


def _sampled(node: CfgNode, name: str) -> List[str]:
    """Check the number of samples and the sampler settings that the RPN and ROI heads share."""
    sampler = node.SAMPLER
    return [
        *number(f"{name}.BATCH_SIZE_PER_IMAGE", node.BATCH_SIZE_PER_IMAGE, low=1, whole=True),
        *number(f"{name}.POSITIVE_FRACTION", node.POSITIVE_FRACTION, low=0, high=1),
        *number(f"{name}.SAMPLER.NEG_POS_UB", sampler.NEG_POS_UB, low=0, off=-1),
        *number(f"{name}.SAMPLER.NUM_NEGATIVES", sampler.NUM_NEGATIVES, low=0, whole=True, off=-1),
    ]


def _proposal_generator(cfg: CfgNode) -> List[str]:
    name, node = cfg.MODEL.PROPOSAL_GENERATOR.NAME, cfg.MODEL.RPN
    if name == "PrecomputedProposals":
        return []
    messages = _registered("MODEL.PROPOSAL_GENERATOR.NAME", name, PROPOSAL_GENERATOR_REGISTRY)
    messages += _registered("MODEL.RPN.HEAD_NAME", node.HEAD_NAME, RPN_HEAD_REGISTRY)
    messages += choice(
        "MODEL.RPN.BBOX_REG_LOSS_TYPE",
        node.BBOX_REG_LOSS_TYPE,
        choices.UPSTREAM_BOX_REG_LOSS_TYPES,
    )
    messages += number("MODEL.RPN.NMS_THRESH", node.NMS_THRESH, low=0, high=1)
    for key in ("PRE_NMS_TOPK", "POST_NMS_TOPK"):
        for split in ("TRAIN", "TEST"):
            own = f"{key}_{split}"
            messages += number(f"MODEL.RPN.{own}", node[own], low=1, whole=True)
    messages += _matching(node, "MODEL.RPN", "MODEL.RPN.IN_FEATURES")
    messages += _sampled(node, "MODEL.RPN")
    messages += _features(cfg, "MODEL.RPN.IN_FEATURES", node.IN_FEATURES)
    return messages + _anchors(cfg, "MODEL.RPN.IN_FEATURES", node.IN_FEATURES)


def _roi_heads(cfg: CfgNode) -> List[str]:
    model, node, box = cfg.MODEL, cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
    messages = _registered("MODEL.ROI_HEADS.NAME", node.NAME, ROI_HEADS_REGISTRY)
    messages += number("MODEL.ROI_HEADS.NUM_CLASSES", node.NUM_CLASSES, low=1, whole=True)
    for key in ("SCORE_THRESH_TEST", "NMS_THRESH_TEST"):
        messages += number(f"MODEL.ROI_HEADS.{key}", node[key], low=0, high=1)
    messages += _matching(node, "MODEL.ROI_HEADS", "MODEL.ROI_HEADS.IN_FEATURES")
    messages += _sampled(node, "MODEL.ROI_HEADS")
    if box.NAME:
        messages += _registered("MODEL.ROI_BOX_HEAD.NAME", box.NAME, ROI_BOX_HEAD_REGISTRY)
    if model.MASK_ON:
        mask = model.ROI_MASK_HEAD.NAME
        messages += _registered("MODEL.ROI_MASK_HEAD.NAME", mask, ROI_MASK_HEAD_REGISTRY)
    if model.KEYPOINT_ON:
        keypoint = model.ROI_KEYPOINT_HEAD.NAME
        messages += _registered(
            "MODEL.ROI_KEYPOINT_HEAD.NAME", keypoint, ROI_KEYPOINT_HEAD_REGISTRY
        )
    messages += _features(cfg, "MODEL.ROI_HEADS.IN_FEATURES", node.IN_FEATURES)
    if box.USE_FED_LOSS and not box.USE_SIGMOID_CE:
        messages.append(
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE must be True with MODEL.ROI_BOX_HEAD.USE_FED_LOSS, "
            "got False"
        )
    libra = node.NAME.startswith("Libra")
    if libra or node.NAME in ("StandardROIHeads", "CascadeROIHeads", "Res5ROIHeads"):
        known = choices.BOX_REG_LOSS_TYPES if libra else choices.UPSTREAM_BOX_REG_LOSS_TYPES
        messages += choice("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", box.BBOX_REG_LOSS_TYPE, known)
    if libra:
        messages += _proposal_sampler(node.SAMPLER)
        if box.BBOX_REG_LOSS_TYPE == "balanced_l1":
            messages += _balanced_l1("MODEL.ROI_BOX_HEAD.BALANCED_L1", box.BALANCED_L1)
    return messages


def _proposal_sampler(sampler: CfgNode) -> List[str]:
    name = "MODEL.ROI_HEADS.SAMPLER"
    return [
        *choice(f"{name}.POSITIVES", sampler.POSITIVES, choices.POSITIVES),
        *choice(f"{name}.NEGATIVES", sampler.NEGATIVES, choices.NEGATIVES),
        *choice(f"{name}.BIN_RANGE", sampler.BIN_RANGE, choices.BIN_RANGES),
        *number(f"{name}.NUM_BINS", sampler.NUM_BINS, low=1, whole=True),
        *number(f"{name}.FLOOR_FRACTION", sampler.FLOOR_FRACTION, low=0, high=1),
        *number(f"{name}.FLOOR_THRESH", sampler.FLOOR_THRESH, low=0, high=1, off=-1),
    ]


def _balanced_l1(name: str, node: CfgNode) -> List[str]:
    messages = choice(f"{name}.FORM", node.FORM, choices.BALANCED_L1_FORMS)
    for key in ("ALPHA", "GAMMA", "BETA"):
        messages += number(f"{name}.{key}", node[key], above=0)
    return messages


def _retinanet(cfg: CfgNode) -> List[str]:
    name, node = "MODEL.RETINANET", cfg.MODEL.RETINANET
    messages = number(f"{name}.NUM_CLASSES", node.NUM_CLASSES, low=1, whole=True)
    messages += number(f"{name}.TOPK_CANDIDATES_TEST", node.TOPK_CANDIDATES_TEST, low=1, whole=True)
    messages += number(f"{name}.PRIOR_PROB", node.PRIOR_PROB, above=0, below=1)
    for key in ("SCORE_THRESH_TEST", "NMS_THRESH_TEST"):
        messages += number(f"{name}.{key}", node[key], low=0, high=1)
    messages += _matching(node, name, f"{name}.IN_FEATURES")
    messages += _features(cfg, f"{name}.IN_FEATURES", node.IN_FEATURES)
    messages += _anchors(cfg, f"{name}.IN_FEATURES", node.IN_FEATURES)
    libra = cfg.MODEL.META_ARCHITECTURE == "LibraRetinaNet"
    known = choices.BOX_REG_LOSS_TYPES if libra else choices.UPSTREAM_BOX_REG_LOSS_TYPES
    messages += choice(f"{name}.BBOX_REG_LOSS_TYPE", node.BBOX_REG_LOSS_TYPE, known)
    if libra and node.BBOX_REG_LOSS_TYPE == "balanced_l1":
        messages += _balanced_l1(f"{name}.BALANCED_L1", node.BALANCED_L1)
    return messages
