"""Which kind of detector a config describes, and where the settings of its outputs stand."""

from detectron2.config import CfgNode


def is_retinanet(cfg: CfgNode) -> bool:
    """Whether it is Detectron2's RetinaNet or the one of this package, and not an R-CNN."""
    return "RetinaNet" in cfg.MODEL.META_ARCHITECTURE


def head_name(cfg: CfgNode) -> str:
    """
    "RETINANET" or "ROI_HEADS": the node of `MODEL` with the number of classes and with the
    thresholds at inference.
    """
    return "RETINANET" if is_retinanet(cfg) else "ROI_HEADS"
