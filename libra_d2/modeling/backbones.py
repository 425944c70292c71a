"""Builders of backbones, registered under the names that `MODEL.BACKBONE.NAME` takes."""

import math

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import (
    LastLevelMaxPool,
    LastLevelP6P7,
    build_resnet_fpn_backbone,
    build_retinanet_resnet_fpn_backbone,
)
from torch import nn

from .bfp import BFP
from .default_trainer import refuse_silent_differences
from .retinanet import LinearP6P7
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone


def _with_divider(cfg, fpn: FPN) -> FPN:
    """
    Make the model pad batches to multiples of `INPUT.DIVIDER`. Padding by the model itself is not
    part of its `image_sizes`, so boxes stay in pixels of the image.
    """
    if cfg.INPUT.DIVIDER < 0:
        raise ValueError(
            f"INPUT.DIVIDER must be at least 0 (0: no padding), got {cfg.INPUT.DIVIDER}"
        )
    fpn._size_divisibility = math.lcm(fpn.size_divisibility, cfg.INPUT.DIVIDER or 1)
    return refuse_silent_differences(fpn, cfg)


def _with_bfp(cfg, fpn: Backbone) -> Backbone:
    node = cfg.MODEL.BFP
    return BFP(fpn, node.REFINE_LEVEL, node.REFINE_TYPE) if node.ENABLED else fpn


@BACKBONE_REGISTRY.register()
def build_libra_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """ResNet -> FPN (p2 to p6) -> BFP, with Detectron2's own ResNet and FPN."""
    return _with_bfp(cfg, _with_divider(cfg, build_resnet_fpn_backbone(cfg, input_shape)))


@BACKBONE_REGISTRY.register()
def build_libra_retinanet_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """ResNet -> FPN (p3 to p7) -> BFP, with Detectron2's own ResNet and FPN."""
    fpn = build_retinanet_resnet_fpn_backbone(cfg, input_shape)
    if not cfg.MODEL.RETINANET.P7_RELU:
        p6 = fpn.top_block.p6
        fpn.top_block = LinearP6P7(p6.in_channels, p6.out_channels)
    return _with_bfp(cfg, _with_divider(cfg, fpn))


def _torchvision(cfg) -> Backbone:
    node = cfg.MODEL.CLASSIFIER
    freeze_at, out_features = cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.FPN.IN_FEATURES
    return TorchvisionBackbone(node.NAME, node.NORM, freeze_at, out_features)


def _timm(cfg) -> Backbone:
    node = cfg.MODEL.CLASSIFIER
    freeze_at, out_features = cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.FPN.IN_FEATURES
    return TimmBackbone(node.NAME, node.NORM, freeze_at, out_features)


def _fpn(cfg, bottom_up: Backbone, top_block: nn.Module) -> Backbone:
    node = cfg.MODEL.FPN
    fpn = FPN(bottom_up, node.IN_FEATURES, node.OUT_CHANNELS, node.NORM, top_block, node.FUSE_TYPE)
    return _with_divider(cfg, fpn)


def _retinanet_fpn(cfg, bottom_up: Backbone) -> Backbone:
    """FPN with p6 and p7 on top, which is p3 to p7 if `IN_FEATURES` are res3 to res5."""
    if "res5" not in bottom_up.output_shape():
        raise ValueError(
            "MODEL.FPN.IN_FEATURES must contain 'res5', from which p6 and p7 are computed, got "
            f"{list(cfg.MODEL.FPN.IN_FEATURES)}"
        )
    top_block = LastLevelP6P7 if cfg.MODEL.RETINANET.P7_RELU else LinearP6P7
    channels = bottom_up.output_shape()["res5"].channels
    return _fpn(cfg, bottom_up, top_block(channels, cfg.MODEL.FPN.OUT_CHANNELS))


@BACKBONE_REGISTRY.register()
def build_libra_torchvision_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """A torchvision classifier (`MODEL.CLASSIFIER.NAME`) -> FPN (p2 to p6) -> BFP."""
    return _with_bfp(cfg, _fpn(cfg, _torchvision(cfg), LastLevelMaxPool()))


@BACKBONE_REGISTRY.register()
def build_libra_retinanet_torchvision_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """A torchvision classifier (`MODEL.CLASSIFIER.NAME`) -> FPN (p3 to p7) -> BFP."""
    return _with_bfp(cfg, _retinanet_fpn(cfg, _torchvision(cfg)))


@BACKBONE_REGISTRY.register()
def build_libra_timm_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """A timm model (`MODEL.CLASSIFIER.NAME`) -> FPN (p2 to p6) -> BFP."""
    return _with_bfp(cfg, _fpn(cfg, _timm(cfg), LastLevelMaxPool()))


@BACKBONE_REGISTRY.register()
def build_libra_retinanet_timm_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """A timm model (`MODEL.CLASSIFIER.NAME`) -> FPN (p3 to p7) -> BFP."""
    return _with_bfp(cfg, _retinanet_fpn(cfg, _timm(cfg)))
