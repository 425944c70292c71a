"""Fusing of batch norms into convolutions, so that a detector runs faster on a CPU."""

from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn


def fuse_for_cpu(model: nn.Module) -> int:
    """
    Fuse batch norms into the convolutions before them, and store weights in channels-last format.

    The model is changed in place and can then be used for inference only. Boxes and scores change
    by rounding.

    Args:
        model: a model in evaluation mode. Batch norms are fused that follow a convolution in an
            `nn.Sequential`, or are the `norm` of a Detectron2 `Conv2d`.

    Returns:
        Number of batch norms that were fused.
    """
    fused = 0
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _fits(module, getattr(module, "norm", None)):
            _multiply_in(module, module.norm)
            module.register_module("norm", None)
            fused += 1
        if isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                conv = module[i]
                plain = not getattr(conv, "norm", None) and not getattr(conv, "activation", None)
                if isinstance(conv, nn.Conv2d) and plain and _fits(conv, module[i + 1]):
                    _multiply_in(conv, module[i + 1])
                    module[i + 1] = nn.Identity()
                    fused += 1
    model.to(memory_format=torch.channels_last)
    return fused


def _fits(conv: nn.Conv2d, norm) -> bool:
    frozen = isinstance(norm, FrozenBatchNorm2d)
    return frozen or (
        isinstance(norm, nn.BatchNorm2d)
        and norm.track_running_stats
        and norm.affine
        and not norm.training
    )


@torch.no_grad()
def _multiply_in(conv: nn.Conv2d, norm: Any) -> None:
    """y = (w x + b - mean) / sqrt(var + eps) * weight + bias, in double precision."""
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    offset = 0.0 if conv.bias is None else conv.bias.double()
    bias = (offset - norm.running_mean.double()) * scale + norm.bias.double()
    weight = conv.weight.double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
