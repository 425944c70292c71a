"""Torchvision's ImageNet classifiers as Detectron2 backbones."""

import math
from typing import Dict, List, Sequence, Tuple

import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from ..config.choices import TORCHVISION_CLASSIFIERS as NAMES
from .classifier_backbone import ClassifierBackbone, check_choice


# This is a Sequential, because TorchScript could not iterate over the layers of a ResNet otherwise:
# they are not children of one attribute.
class TorchvisionBackbone(ClassifierBackbone, nn.Sequential):
    """
    The feature layers of a torchvision classifier, under torchvision's parameter names.

    The feature of a stage is the output of its last layer.
    """

    def __init__(
        self,
        name: str,
        norm: str = "FrozenBN",
        freeze_at: int = 0,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
    ):
        """
        Args:
            name: one of `NAMES`. Weights are not loaded here; `MODEL.WEIGHTS` names them.
            norm: "FrozenBN" keeps the statistics and scales of the pre-trained weights, "BN" and
                "SyncBN" train them. Layer norms are trained with their stage.
            freeze_at: number of stages to freeze, counted as for Detectron2's ResNet: 0 trains
                everything, 1 freezes the layers of stride 2 (a ConvNeXt has none, because its stem
                has stride 4), 2 freezes res2 as well, and so on up to 5.
            out_features: names of the features to return.

        Raises:
            ValueError: the name, norm or a feature is unknown.
        """
        check_choice("MODEL.CLASSIFIER.NAME", name, NAMES)
        super().__init__("MODEL.CLASSIFIER", norm, freeze_at, out_features)
        classifier = torchvision.models.get_model(name, weights=None)
        prefix = "features." if hasattr(classifier, "features") else ""
        layers = dict(classifier.get_submodule(prefix[:-1]).named_children())
        if not prefix:  # a ResNet, whose head is a sibling of its feature layers
            del layers["avgpool"], layers["fc"]
        strides, channels = _strides_and_channels(list(layers.values()))
        self._last_layer: Dict[str, int] = {
            feature: max(i for i, s in enumerate(strides) if s == stride)
            for feature, stride in self._out_feature_strides.items()
        }
        self._out_feature_channels = {f: channels[i] for f, i in self._last_layer.items()}
        # Layers after the last feature are dropped, because they would get no gradient.
        names = list(layers)[: max(self._last_layer.values()) + 1]
        if prefix:
            self.features = nn.Sequential()
        for child in names:
            self.get_submodule(prefix[:-1]).add_module(child, layers[child])
        self._freeze({prefix + child: s for child, s in zip(names, strides)}, freeze_at)
        self._convert_norms(norm)

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        """
        (N, 3, H, W) -> {feature name: (N, C, H / stride, W / stride)}. Sizes are rounded up, those
        of a ConvNeXt down.
        """
        outputs: List[torch.Tensor] = []
        if hasattr(self, "features"):
            for layer in self.features:
                x = layer(x)
                outputs.append(x)
        else:
            for layer in self:
                x = layer(x)
                outputs.append(x)
        return {name: outputs[self._last_layer[name]] for name in self._out_features}

    @staticmethod
    def _freeze_norms(module: nn.Module) -> nn.Module:
        return FrozenBatchNorm2d.convert_frozen_batchnorm(module)

    @staticmethod
    def _sync_norms(module: nn.Module) -> nn.Module:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)


@torch.no_grad()
def _strides_and_channels(layers: Sequence[nn.Module]) -> Tuple[List[int], List[int]]:
    """Return the stride, relative to the input, and the number of channels of each output."""
    size = 64
    x = torch.zeros(1, 3, size, size)
    strides, channels = [], []
    for layer in layers:
        x = layer.eval()(x)
        layer.train()
        strides.append(2 ** round(math.log2(size / x.shape[-1])))
        channels.append(x.shape[1])
    return strides, channels
