from .backbones import (
    build_libra_resnet_fpn_backbone,
    build_libra_retinanet_resnet_fpn_backbone,
    build_libra_retinanet_timm_fpn_backbone,
    build_libra_retinanet_torchvision_fpn_backbone,
    build_libra_timm_fpn_backbone,
    build_libra_torchvision_fpn_backbone,
)
from .bfp import BFP, BalancedFeaturePyramid
from .classifier_backbone import ClassifierBackbone
from .fast_rcnn import LibraFastRCNNOutputLayers
from .losses import balanced_l1_loss
from .non_local import NonLocal2d
from .retinanet import LibraRetinaNet
from .roi_heads import LibraCascadeROIHeads, LibraROIHeads, LibraSamplingMixin
from .rpn import LibraRPN
from .sampling import sample_proposals
from .soft_nms import batched_soft_nms, soft_nms
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone
from .tta import build_tta

__all__ = [
    "BFP",
    "BalancedFeaturePyramid",
    "ClassifierBackbone",
    "LibraCascadeROIHeads",
    "LibraFastRCNNOutputLayers",
    "LibraROIHeads",
    "LibraRPN",
    "LibraRetinaNet",
    "LibraSamplingMixin",
    "NonLocal2d",
    "TimmBackbone",
    "TorchvisionBackbone",
    "balanced_l1_loss",
    "batched_soft_nms",
    "build_libra_resnet_fpn_backbone",
    "build_libra_retinanet_resnet_fpn_backbone",
    "build_libra_retinanet_timm_fpn_backbone",
    "build_libra_retinanet_torchvision_fpn_backbone",
    "build_libra_timm_fpn_backbone",
    "build_libra_torchvision_fpn_backbone",
    "build_tta",
    "sample_proposals",
    "soft_nms",
]
