"""The floating-point operations of a detector on an image."""

from math import prod
from typing import Any, Dict, List

import torch
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn


@torch.no_grad()
def count_flops(model: nn.Module, inputs: List[Dict[str, Any]]) -> int:
    """
    Count the operations of convolutions, linear layers and matrix products as fvcore does. A
    multiplication and the addition that follows it count as one, as in most published tables.
    Elementwise operations, ROIAlign and NMS are not counted.

    The head of a two-stage detector runs on as many proposals as the RPN finds in these inputs.

    Args:
        model: a Detectron2 model in evaluation mode.
        inputs: images, as the model takes them.

    Raises:
        Exception: the model cannot be traced by `torch.jit`.
    """
    images = [{k: v for k, v in record.items() if k != "instances"} for record in inputs]
    analysis = FlopCountAnalysis(model, images)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    # The attention of a balanced feature pyramid, which fvcore does not know.
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
    return int(analysis.total())


def _attention(inputs: List[Any], outputs: List[Any]) -> int:
    """Of the products query (..., L, C) x key (..., S, C) and weights (..., L, S) x value."""
    query, key, value = map(get_shape, inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
