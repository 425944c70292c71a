"""Tell which kind of detector a config describes and which node has the settings of its outputs."""

from detectron2.config import CfgNode


def is_retinanet(cfg: CfgNode) -> bool:
    """Whether the detector is Detectron2's or this package's RetinaNet rather than an R-CNN."""
    return "RetinaNet" in cfg.MODEL.META_ARCHITECTURE


def head_name(cfg: CfgNode) -> str:
    """
    Return "RETINANET" or "ROI_HEADS", the node of `MODEL` that has the number of classes and the
    thresholds for inference.
    """
    return "RETINANET" if is_retinanet(cfg) else "ROI_HEADS"


def has_box_heads(cfg: CfgNode) -> bool:
    """Whether `MODEL.ROI_BOX_HEAD` matters. RetinaNets and proposal networks have no box heads."""
    return not is_retinanet(cfg) and cfg.MODEL.META_ARCHITECTURE != "ProposalNetwork"


def uses_federated_loss(cfg: CfgNode) -> bool:
    """Whether the box heads need the number of training images of each class for their loss."""
    return cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS and has_box_heads(cfg)
