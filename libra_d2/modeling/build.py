"""Build a model from a config."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model as build_detectron2_model
from torch import nn

from ..config.detectors import uses_federated_loss
from ..errors import UserError


def build_model(cfg: CfgNode) -> nn.Module:
    """
    Build a model with Detectron2's `build_model`, and report bad settings as errors of the user.

    Raises:
        UserError: a component does not accept one of the settings.
    """
    try:
        if uses_federated_loss(cfg):
            _complete_image_counts(cfg)
        model = build_detectron2_model(cfg)
        if cfg.INPUT.DIVIDER and model.backbone.size_divisibility % cfg.INPUT.DIVIDER:
            raise UserError(
                "INPUT.DIVIDER must be 0 for a MODEL.BACKBONE.NAME that is not of libra_d2, got "
                f"{cfg.INPUT.DIVIDER}. Set a backbone of libra_d2, such as "
                "build_libra_resnet_fpn_backbone"
            )
    except UserError:
        raise
    except (ValueError, KeyError) as e:
        raise UserError(str(e.args[0]) if e.args else repr(e)) from e
    return model


def _complete_image_counts(cfg: CfgNode) -> None:
    """
    Set the metadata that the federated loss of Detectron2 reads, where the training set is not set
    up. A trained model then loads the weights of its classes from the checkpoint.
    """
    counts = [{"id": k, "image_count": 1} for k in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)]
    for name in cfg.DATASETS.TRAIN:
        MetadataCatalog.get(name).__dict__.setdefault("class_image_count", counts)
