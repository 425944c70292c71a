"""Balanced feature pyramid, Libra R-CNN section 3.2 (https://arxiv.org/abs/1904.02701)."""

from typing import Dict, List, Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from ..config.choices import REFINE_TYPES
from .non_local import NonLocal2d


class BalancedFeaturePyramid(nn.Module):
    """
    Refine the levels of a feature pyramid together: resize all levels to the size of one of them,
    average them, refine the average, and add it to every level.

    Levels are resized to a smaller size by adaptive max pooling and to a larger one by
    nearest-neighbor interpolation. As in the paper's code, all convolutions have a Xavier
    initialization, so a new block is not the identity.
    """

    def __init__(
        self, in_channels: int, num_levels: int, refine_level: int, refine_type: str = "non_local"
    ):
        """
        Args:
            in_channels: number of channels of every level.
            num_levels: number of levels.
            refine_level: index of the level whose size the others are resized to; 0 is the finest.
            refine_type: "non_local" (an embedded Gaussian without reduction of the channels and
                without scale), "conv" (a 3x3 convolution and ReLU) or "none".

        Raises:
            ValueError: `refine_type` is unknown or `refine_level` is not the index of a level.
        """
        super().__init__()
        if refine_type not in REFINE_TYPES:
            raise ValueError(f"BFP: refine_type must be one of {REFINE_TYPES}, got {refine_type!r}")
        if not 0 <= refine_level < num_levels:
            raise ValueError(
                f"BFP: refine_level must be in [0, {num_levels - 1}] for {num_levels} levels, "
                f"got {refine_level}"
            )
        self.num_levels = num_levels
        self.refine_level = refine_level
        if refine_type == "non_local":
            self.refine: nn.Module = NonLocal2d(in_channels, reduction=1, use_scale=False)
        elif refine_type == "conv":
            self.refine = _ConvReLU(in_channels, in_channels, 3, padding=1)
        else:
            self.refine = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: List[torch.Tensor]) -> List[torch.Tensor]:
        """
        Args:
            features: tensors (N, C, Hi, Wi), one for each level, finest first. Sizes may be odd.

        Returns:
            The refined features, of the same shapes.
        """
        assert len(features) == self.num_levels
        height, width = features[self.refine_level].shape[-2:]
        gathered = _resize(features[0], [height, width])
        for feature in features[1:]:
            gathered = gathered + _resize(feature, [height, width])
        refined = self.refine(gathered / self.num_levels)
        return [_add_resized(feature, refined) for feature in features]


class _ConvReLU(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self._conv_forward(x, self.weight, self.bias))


def _resize(x: torch.Tensor, size: List[int]) -> torch.Tensor:
    """Resize by nearest-neighbor interpolation (to a larger size) or adaptive max pooling."""
    height, width = x.shape[-2:]
    if height == size[0] and width == size[1]:
        return x
    if height < size[0] or width < size[1]:  # one side may be equal, for very flat images
        return F.interpolate(x, size=size, mode="nearest")
    if height % size[0] or width % size[1]:
        return F.adaptive_max_pool2d(x, size)
    # The windows do not overlap here, so faster kernels give the same result. max_pool2d also
    # stores the indices of the maxima, which only the backward pass needs.
    rows, columns = height // size[0], width // size[1]
    if x.requires_grad and torch.is_grad_enabled():
        return F.max_pool2d(x, [rows, columns])
    return x.unflatten(2, (size[0], rows)).amax(3).unflatten(3, (size[1], columns)).amax(4)


def _add_resized(feature: torch.Tensor, refined: torch.Tensor) -> torch.Tensor:
    height, width = feature.shape[-2:]
    rows = height // max(refined.shape[2], 1)
    if rows <= 1 or rows * refined.shape[2] != height or width < refined.shape[3]:
        return feature + _resize(refined, [height, width])
    # Nearest-neighbor interpolation repeats whole rows, so broadcasting can add them without
    # building the interpolated tensor.
    wide = F.interpolate(refined, size=[refined.shape[2], width], mode="nearest")
    return (feature.unflatten(2, (refined.shape[2], rows)) + wide[:, :, :, None]).flatten(2, 3)


class BFP(Backbone):
    """
    A backbone that refines the features of another one by a balanced feature pyramid. Feature
    names and shapes stay the same.

    The weights of the wrapped FPN alone, such as those of Detectron2's model zoo, can be loaded.

    Examples:
        >>> from detectron2.modeling import FPN
        >>> from detectron2.modeling.backbone.resnet import BasicStem, ResNet
        >>> stages = ResNet.make_default_stages(18, norm="BN")
        >>> bottom_up = ResNet(BasicStem(), stages, out_features=["res3", "res4", "res5"])
        >>> fpn = FPN(bottom_up, ["res3", "res4", "res5"], out_channels=64)
        >>> backbone = BFP(fpn, refine_level="p4")
        >>> {name: tuple(x.shape) for name, x in backbone(torch.zeros(1, 3, 64, 64)).items()}
        {'p3': (1, 64, 8, 8), 'p4': (1, 64, 4, 4), 'p5': (1, 64, 2, 2)}
    """

    def __init__(self, fpn: Backbone, refine_level: str = "p4", refine_type: str = "non_local"):
        """
        Args:
            fpn: any backbone whose features all have the same number of channels.
            refine_level: name of the feature whose size the others are resized to.
            refine_type: see :class:`BalancedFeaturePyramid`.

        Raises:
            ValueError: the backbone has no feature of this name, or its features differ in the
                number of channels.
        """
        super().__init__()
        shapes = fpn.output_shape()
        names = sorted(shapes, key=lambda name: shapes[name].stride)
        if refine_level not in names:
            raise ValueError(
                f"MODEL.BFP.REFINE_LEVEL must be one of the features {names}, got {refine_level!r}"
            )
        channels = {name: shapes[name].channels for name in names}
        if len(set(channels.values())) != 1:
            raise ValueError(
                f"BFP: all features must have the same number of channels, got {channels}"
            )
        self.fpn = fpn
        self.bfp = BalancedFeaturePyramid(
            channels[refine_level], len(names), names.index(refine_level), refine_type
        )
        self._out_features: Sequence[str] = names

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        """(N, 3, H, W) -> {feature name: (N, C, Hi, Wi)}."""
        features = self.fpn(x)
        refined = self.bfp([features[name] for name in self._out_features])
        return dict(zip(self._out_features, refined))

    def output_shape(self) -> Dict[str, ShapeSpec]:
        return self.fpn.output_shape()

    @property
    def size_divisibility(self) -> int:
        return self.fpn.size_divisibility

    @property
    def padding_constraints(self) -> Dict[str, int]:
        return self.fpn.padding_constraints

    @staticmethod
    def adopt_fpn_keys(state_dict: Dict[str, torch.Tensor], prefix: str) -> None:
        """Rename, in place, the keys of a bare FPN to those of the wrapped one (`fpn.*`)."""
        own = (prefix + "fpn.", prefix + "bfp.")
        for key in [k for k in state_dict if k.startswith(prefix) and not k.startswith(own)]:
            state_dict[own[0] + key[len(prefix) :]] = state_dict.pop(key)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        self.adopt_fpn_keys(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
