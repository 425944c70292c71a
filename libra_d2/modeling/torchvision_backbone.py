"""Torchvision's ImageNet classifiers as Detectron2 backbones."""

import math
from typing import Dict, List, Sequence, Tuple

import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from ..config.choices import TORCHVISION_CLASSIFIERS as NAMES
from .classifier_backbone import ClassifierBackbone, check_choice


# Sequential, because the layers of a ResNet have no name in common that they could be run by in
# TorchScript.
class TorchvisionBackbone(ClassifierBackbone, nn.Sequential):
    """
    The feature layers of a torchvision classifier, with torchvision's parameter names.

    The feature of a stage is what its last layer returns.
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
            name: one of `NAMES`. Weights are not loaded here: see `MODEL.WEIGHTS`.
            norm: "FrozenBN" keeps the statistics and scales of the pre-trained weights,
                "BN" and "SyncBN" train them. Layer norms train with their stage.
            freeze_at: as for a ResNet: 0 trains everything, 1 freezes the layers of stride 2 (a
                ConvNeXt has none: its stem is of stride 4), 2 these and res2, and so on up to 5.
            out_features: names of the features to return.

        Raises:
            ValueError: unknown name, norm or feature.
        """
        check_choice("MODEL.CLASSIFIER.NAME", name, NAMES)
        super().__init__("MODEL.CLASSIFIER", norm, freeze_at, out_features)
        classifier = torchvision.models.get_model(name, weights=None)
        prefix = "features." if hasattr(classifier, "features") else ""
        layers = dict(classifier.get_submodule(prefix[:-1]).named_children())
        if not prefix:  # a ResNet, which has its head among them
            del layers["avgpool"], layers["fc"]
        strides, channels = _strides_and_channels(layers.values())
        self._last_layer: Dict[str, int] = {
            feature: max(i for i, s in enumerate(strides) if s == stride)
            for feature, stride in self._out_feature_strides.items()
        }
        self._out_feature_channels = {f: channels[i] for f, i in self._last_layer.items()}
        # Layers behind the last feature would train without a gradient.
        names = list(layers)[: max(self._last_layer.values()) + 1]
        if prefix:
            self.features = nn.Sequential()
        for child in names:
            self.get_submodule(prefix[:-1]).add_module(child, layers[child])
        self._freeze({prefix + child: s for child, s in zip(names, strides)}, freeze_at)
        self._convert_norms(norm)

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        """(N, 3, H, W) -> {feature name: (N, C, H / stride, W / stride)}, rounded up (by a
        ConvNeXt, down)."""
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
    """Stride relative to the input, and number of channels, of what each layer returns."""
    size = 64
    x = torch.zeros(1, 3, size, size)
    strides, channels = [], []
    for layer in layers:
        x = layer.eval()(x)
        layer.train()
        strides.append(2 ** round(math.log2(size / x.shape[-1])))
        channels.append(x.shape[1])
    return strides, channels
