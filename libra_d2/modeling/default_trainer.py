"""
What keeps Detectron2's own `DefaultTrainer` from training something else than the config says.

`DefaultTrainer` builds the optimizer and loads weights without asking this package. It would ignore
settings that only :class:`libra_d2.engine.LibraTrainer` implements, and skip weights whose names it
does not know with no more than a warning. Each of these is an error here that says what to use.
"""

from functools import partial
from typing import Any, Dict, List

from detectron2.config import CfgNode
from detectron2.solver.build import GradientClipType
from torch import nn

from ..config.detectron2_only import ignored_by_detectron2
from ..config.loading import refuse
from ..errors import UserError

# Settings on which a training step depends; data sets, for example, are another trainer's business.
_OF_STEPS = ("SOLVER.", "INPUT.", "DATALOADER.")


def refuse_silent_differences(backbone: nn.Module, cfg: CfgNode) -> nn.Module:
    """
    Let the backbone raise a UserError if none of the weights that are loaded are for it, or if it
    is trained while the config has settings that only LibraTrainer implements.

    Returns:
        The backbone.
    """
    backbone._weights_refusal = backbone.register_load_state_dict_pre_hook(_refuse_weights)
    ignored = [line for line in ignored_by_detectron2(cfg) if line.startswith(_OF_STEPS)]
    if ignored:
        hook = partial(_refuse_training, ignored)
        backbone._training_refusal = backbone.register_forward_pre_hook(hook)
    return backbone


def allow_training(model: nn.Module) -> None:
    """To be called by a trainer that implements all settings of the config."""
    _remove(model, "_training_refusal")


def allow_any_weights(model: nn.Module) -> None:
    """To be called by a checkpointer that reports itself which weights do not fit."""
    _remove(model, "_weights_refusal")


def _remove(model: nn.Module, name: str) -> None:
    for module in model.modules():
        if hasattr(module, name):
            getattr(module, name).remove()
            delattr(module, name)


def _refuse_training(ignored: List[str], backbone: nn.Module, inputs: Any) -> None:
    if backbone.training:
        refuse(ignored)


def _refuse_weights(backbone: nn.Module, weights: Dict[str, Any], prefix: str, *_: Any) -> None:
    own = {prefix + name for name in backbone.state_dict()}
    if own.isdisjoint(weights):
        raise UserError(
            f"none of the weights is for the backbone, whose names begin with {prefix!r}. Load "
            "weights of other projects with libra_d2.checkpoint.LibraCheckpointer, or convert them "
            "first (`libra-d2 convert`). Load weights for heads alone with LibraCheckpointer, too"
        )


def _refuse_clip_type(cls: type, value: Any) -> None:
    if value == "global_norm":
        raise UserError(
            "SOLVER.CLIP_GRADIENTS.CLIP_TYPE is 'global_norm', which only "
            "libra_d2.engine.LibraTrainer implements. With Detectron2's DefaultTrainer, set it to "
            "'norm' or 'value'"
        )


# `enum` calls this for values that are not members, before it raises "is not a valid ...".
GradientClipType._missing_ = classmethod(_refuse_clip_type)
