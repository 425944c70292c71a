from .backbones import (
    build_libra_resnet_fpn_backbone,
    build_libra_retinanet_resnet_fpn_backbone,
    build_libra_torchvision_fpn_backbone,
    build_torchvision_fpn_backbone,
)
from .bfp import BFP, BalancedFeaturePyramid
from .fast_rcnn import LibraFastRCNNOutputLayers
from .losses import balanced_l1_loss
from .non_local import NonLocal2d
from .roi_heads import LibraCascadeROIHeads, LibraROIHeads, LibraSamplingMixin
from .rpn import LibraRPN
from .sampling import sample_proposals
from .torchvision_backbone import TorchvisionBackbone

__all__ = [
    "BFP",
    "BalancedFeaturePyramid",
    "LibraCascadeROIHeads",
    "LibraFastRCNNOutputLayers",
    "LibraROIHeads",
    "LibraRPN",
    "LibraSamplingMixin",
    "NonLocal2d",
    "TorchvisionBackbone",
    "balanced_l1_loss",
    "build_libra_resnet_fpn_backbone",
    "build_libra_retinanet_resnet_fpn_backbone",
    "build_libra_torchvision_fpn_backbone",
    "build_torchvision_fpn_backbone",
    "sample_proposals",
]
