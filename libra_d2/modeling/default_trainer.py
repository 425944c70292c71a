"""
Checks that keep Detectron2's `DefaultTrainer` from silently training something else than the
config says.

`DefaultTrainer` builds the optimizer and loads weights without this package. It would ignore
settings that only :class:`libra_d2.engine.LibraTrainer` implements, and it would skip weights with
unknown names after a mere warning. Both are errors here, which say what to use instead.
"""

from functools import partial
from typing import Any, Dict, List

from detectron2.config import CfgNode
from detectron2.solver.build import GradientClipType
from torch import nn

from ..config.detectron2_only import ignored_by_detectron2
from ..config.loading import refuse
from ..errors import UserError

# A training step depends on these settings. Others, such as data sets, may be set up differently.
_OF_STEPS = ("SOLVER.", "INPUT.", "DATALOADER.")


def refuse_silent_differences(backbone: nn.Module, cfg: CfgNode) -> nn.Module:
    """
    Make the backbone raise a UserError if none of the loaded weights are its own, or if it is
    trained while the config has settings that only LibraTrainer implements.

    Returns:
        The same backbone.
    """
    backbone._weights_refusal = backbone.register_load_state_dict_pre_hook(_refuse_weights)
    ignored = [line for line in ignored_by_detectron2(cfg) if line.startswith(_OF_STEPS)]
    if ignored:
        hook = partial(_refuse_training, ignored)
        handle = backbone.register_forward_pre_hook(hook)
        # torch declares only tensors and modules as attributes of a module.
        backbone._training_refusal = handle  # type: ignore[assignment]
    return backbone


def allow_training(model: nn.Module) -> None:
    """Remove the check of settings. Call this in a trainer that implements all of them."""
    _remove(model, "_training_refusal")


def allow_any_weights(model: nn.Module) -> None:
    """Remove the check of weights. Call this in a checkpointer that reports unused weights."""
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
            f"none of the weights belong to the backbone, whose names begin with {prefix!r}. To "
            "load weights of other projects or of heads alone, use "
            "libra_d2.checkpoint.LibraCheckpointer, or convert them first (`libra-d2 convert`)"
        )


def _refuse_clip_type(cls: type, value: Any) -> None:
    if value == "global_norm":
        raise UserError(
            "SOLVER.CLIP_GRADIENTS.CLIP_TYPE must be 'norm' or 'value' for Detectron2's "
            "DefaultTrainer, got 'global_norm', which only libra_d2.engine.LibraTrainer implements"
        )


# `enum` calls this for unknown values, before it raises "is not a valid ...".
GradientClipType._missing_ = classmethod(_refuse_clip_type)
