"""A balanced feature pyramid without branches on sizes, so that one trace serves all sizes."""

from typing import List, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..modeling.bfp import BFP, BalancedFeaturePyramid


class TraceablePyramid(nn.Module):
    """
    Computes the same as :class:`BalancedFeaturePyramid`, bit for bit, and can be traced.

    The original pyramid chooses how to resize by the sizes of its inputs, and a trace would keep
    the choice made for its example. In addition, ONNX has no adaptive pooling to a size that is
    only known at run time. This module chooses by the strides of the levels, which do not change.
    If strides do not determine the ratio of two sizes, it selects rows and columns by computed
    indices.
    """

    def __init__(self, bfp: BalancedFeaturePyramid, strides: Sequence[int], divisibility: int):
        """
        Args:
            bfp: pyramid to replace, whose `refine` module is used.
            strides: strides of the levels, powers of two, finest first. A level with stride s has
                ceil(side / s) positions along a side of the image.
            divisibility: number of which the sides of padded images are multiples.
        """
        super().__init__()
        self.bfp = bfp
        self.strides = list(strides)
        self.divisibility = divisibility

    def forward(self, features: List[torch.Tensor]) -> List[torch.Tensor]:
        bfp, at = self.bfp, self.bfp.refine_level
        target = features[at]
        gathered = self._resize(features[0], target, self.strides[0], self.strides[at])
        for feature, stride in zip(features[1:], self.strides[1:]):
            gathered = gathered + self._resize(feature, target, stride, self.strides[at])
        refined = bfp.refine(gathered / bfp.num_levels)
        return [
            feature + self._resize(refined, feature, self.strides[at], stride)
            for feature, stride in zip(features, self.strides)
        ]

    def _resize(self, x: torch.Tensor, like: torch.Tensor, source: int, target: int):
        if source == target:
            return x
        exact = max(source, target) <= self.divisibility
        if source < target:
            ratio = target // source
            if exact:
                return F.max_pool2d(x, ratio)
            return _max_along(_max_along(x, 2, like.shape[2], ratio), 3, like.shape[3], ratio)
        if exact:
            return F.interpolate(x, scale_factor=float(source // target), mode="nearest")
        return _nearest_along(_nearest_along(x, 2, like.shape[2]), 3, like.shape[3])


def _max_along(x: torch.Tensor, dim: int, size, ratio: int) -> torch.Tensor:
    """
    Apply adaptive max pooling along a dimension, from `length` to `size` positions, where
    `size <= length <= ratio * size`.

    The window of position i is [floor(i * length / size), ceil((i + 1) * length / size)), which
    has at most `ratio` + 1 elements. Shorter windows repeat their last element.
    """
    length = x.shape[dim]
    i = torch.arange(size, device=x.device)
    first = torch.div(i * length, size, rounding_mode="floor")
    last = torch.div((i + 1) * length + size - 1, size, rounding_mode="floor") - 1
    ret = x.index_select(dim, first)
    for k in range(1, ratio + 1):
        ret = torch.maximum(ret, x.index_select(dim, torch.minimum(first + k, last)))
    return ret


def _nearest_along(x: torch.Tensor, dim: int, size) -> torch.Tensor:
    """Resize to the nearest neighbors, with indices computed in float32 as in torch."""
    length, one = x.shape[dim], torch.ones((), device=x.device)
    scale = (one * length) / (one * size)
    index = (torch.arange(size, device=x.device) * scale).floor().long()
    return x.index_select(dim, index.clamp(max=length - 1))


def make_pyramids_traceable(model: nn.Module) -> None:
    """Replace, in place, the pyramid of every :class:`BFP` in the model."""
    for module in model.modules():
        if isinstance(module, BFP) and isinstance(module.bfp, BalancedFeaturePyramid):
            shapes = module.output_shape()
            strides = [shapes[name].stride for name in module._out_features]
            pyramid = TraceablePyramid(module.bfp, strides, module.size_divisibility)
            module.add_module("bfp", pyramid)
