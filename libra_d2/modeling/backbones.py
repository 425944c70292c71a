"""Backbones by the names that `MODEL.BACKBONE.NAME` takes."""

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import (
    LastLevelMaxPool,
    build_resnet_fpn_backbone,
    build_retinanet_resnet_fpn_backbone,
)

from .bfp import BFP
from .torchvision_backbone import TorchvisionBackbone


def _with_bfp(cfg, fpn: Backbone) -> Backbone:
    node = cfg.MODEL.BFP
    return BFP(fpn, node.REFINE_LEVEL, node.REFINE_TYPE) if node.ENABLED else fpn


@BACKBONE_REGISTRY.register()
def build_libra_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """ResNet -> FPN (p2 to p6) -> BFP, with Detectron2's own ResNet and FPN."""
    return _with_bfp(cfg, build_resnet_fpn_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_libra_retinanet_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """ResNet -> FPN (p3 to p7) -> BFP, with Detectron2's own ResNet and FPN."""
    return _with_bfp(cfg, build_retinanet_resnet_fpn_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_torchvision_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """A torchvision classifier (`MODEL.TORCHVISION.NAME`) -> FPN (p2 to p6)."""
    bottom_up = TorchvisionBackbone(
        cfg.MODEL.TORCHVISION.NAME,
        norm=cfg.MODEL.TORCHVISION.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        out_features=cfg.MODEL.FPN.IN_FEATURES,
    )
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@BACKBONE_REGISTRY.register()
def build_libra_torchvision_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """A torchvision classifier (`MODEL.TORCHVISION.NAME`) -> FPN (p2 to p6) -> BFP."""
    return _with_bfp(cfg, build_torchvision_fpn_backbone(cfg, input_shape))
