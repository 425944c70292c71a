"""Torchvision's ImageNet classifiers as Detectron2 backbones."""

import math
from typing import Dict, Sequence

import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import Backbone
from torch import nn

NAMES = ("mobilenet_v2",)
NORMS = ("FrozenBN", "BN", "SyncBN")
_FEATURES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class TorchvisionBackbone(Backbone):
    """
    The feature layers of a torchvision classifier, with torchvision's parameter names.

    A stage is the run of layers with the same stride; its feature is what its last layer returns,
    named as Detectron2 names those of a ResNet: "res2" (stride 4) to "res5" (stride 32).
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
                "BN" and "SyncBN" train them.
            freeze_at: as for a ResNet: 0 trains everything, 1 freezes the layers before res2,
                2 these and res2, and so on up to 5.
            out_features: names of the features to return, finest first.

        Raises:
            ValueError: unknown name, norm or feature.
        """
        super().__init__()
        for key, value, choices in (
            ("MODEL.TORCHVISION.NAME", name, NAMES),
            ("MODEL.TORCHVISION.NORM", norm, NORMS),
            ("MODEL.BACKBONE.FREEZE_AT", freeze_at, tuple(range(6))),
            *(("MODEL.FPN.IN_FEATURES", f, tuple(_FEATURES)) for f in out_features),
        ):
            if value not in choices:
                raise ValueError(f"{key} {value!r} is not one of {choices}")
        layers = torchvision.models.get_model(name, weights=None).features
        strides, channels = _strides_and_channels(layers)
        self._out_feature_strides = {f: _FEATURES[f] for f in out_features}
        self._last_layer = {
            f: max(i for i, s in enumerate(strides) if s == _FEATURES[f]) for f in out_features
        }
        self._out_feature_channels = {f: channels[i] for f, i in self._last_layer.items()}
        self._out_features = list(out_features)
        # Layers behind the last feature would train without a gradient.
        self.features = layers[: max(self._last_layer.values()) + 1]

        frozen_stride = 2**freeze_at if freeze_at else 0
        for layer, stride in zip(self.features, strides):
            if stride <= frozen_stride:
                for parameter in layer.parameters():
                    parameter.requires_grad = False
                FrozenBatchNorm2d.convert_frozen_batchnorm(layer)
        if norm == "FrozenBN":
            self.features = FrozenBatchNorm2d.convert_frozen_batchnorm(self.features)
        elif norm == "SyncBN":
            self.features = nn.SyncBatchNorm.convert_sync_batchnorm(self.features)

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        """(N, 3, H, W) -> {feature name: (N, C, H / stride, W / stride)}, rounded up."""
        outputs = []
        for layer in self.features:
            x = layer(x)
            outputs.append(x)
        return {name: outputs[self._last_layer[name]] for name in self._out_features}


@torch.no_grad()
def _strides_and_channels(layers: nn.Module):
    """Stride relative to the input, and number of channels, of what each layer returns."""
    size = 64
    x = torch.zeros(1, 3, size, size)
    strides, channels = [], []
    training = layers.training
    layers.eval()
    for layer in layers:
        x = layer(x)
        strides.append(2 ** round(math.log2(size / x.shape[-1])))
        channels.append(x.shape[1])
    layers.train(training)
    return strides, channels
