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
