"""From a config to a model."""

from detectron2.config import CfgNode
from detectron2.modeling import build_model as build_detectron2_model
from torch import nn

from ..errors import UserError


def build_model(cfg: CfgNode) -> nn.Module:
    """
    Build the model as Detectron2 does.

    Raises:
        UserError: a component refuses one of the settings.
    """
    try:
        model = build_detectron2_model(cfg)
        if cfg.INPUT.DIVIDER and model.backbone.size_divisibility % cfg.INPUT.DIVIDER:
            raise UserError("INPUT.DIVIDER needs a MODEL.BACKBONE.NAME of libra_d2")
    except UserError:
        raise
    except (ValueError, KeyError) as e:
        raise UserError(str(e.args[0]) if e.args else repr(e)) from e
    return model
