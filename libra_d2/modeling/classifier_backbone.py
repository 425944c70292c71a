"""Base class of the backbones that adapt image classifiers of torchvision and timm."""

from typing import Dict, Sequence, Tuple

import torch
from detectron2.modeling import Backbone
from torch import nn

NORMS = ("FrozenBN", "BN", "SyncBN")
FEATURE_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class ClassifierBackbone(Backbone):
    """
    The layers of an image classifier up to the last feature to return, without the head.

    Features have the names of Detectron2's ResNet: "res2" (stride 4) to "res5" (stride 32). A stage
    consists of consecutive layers with the same stride.

    Only 2D batch norms are converted. Layer norms have no running statistics and are trained with
    their stage.
    """

    def __init__(self, node: str, norm: str, freeze_at: int, out_features: Sequence[str]):
        """
        Args:
            node: config node of the subclass, named in error messages.
            norm, freeze_at, out_features: see the subclasses.

        Raises:
            ValueError: the norm, stage or a feature is unknown, or there are no features.
        """
        super().__init__()
        check_choice(f"{node}.NORM", norm, NORMS)
        check_choice("MODEL.BACKBONE.FREEZE_AT", freeze_at, tuple(range(6)))
        if not out_features:
            raise ValueError(
                "MODEL.FPN.IN_FEATURES must have at least one feature, got none. Choose from "
                f"{tuple(FEATURE_STRIDES)}"
            )
        for feature in out_features:
            check_choice("MODEL.FPN.IN_FEATURES", feature, tuple(FEATURE_STRIDES))
        self._out_features = sorted(out_features, key=FEATURE_STRIDES.__getitem__)
        self._out_feature_strides = {f: FEATURE_STRIDES[f] for f in self._out_features}

    def from_classifier(self, weights: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """
        Choose the weights of a published classifier that belong to this backbone.

        Args:
            weights: state dict of the whole classifier.

        Returns:
            The tensors that this backbone has, under its own names; empty if there are none.
        """
        own = self.state_dict()
        ret = {}
        for key, value in weights.items():
            for name in self._own_names(key):
                if name in own:
                    ret[name] = value
                    break
        return ret

    def _own_names(self, key: str) -> Tuple[str, ...]:
        """Names that a parameter of the classifier may have in this backbone."""
        return (key,)

    def _freeze(self, strides: Dict[str, int], freeze_at: int) -> None:
        """
        Freeze the stages up to `freeze_at`. `strides` maps the name of each layer to the stride of
        its output.
        """
        for name, stride in strides.items():
            if freeze_at and stride <= 2**freeze_at:
                layer = self.get_submodule(name).requires_grad_(False)
                parent, _, child = name.rpartition(".")
                # A layer that is itself a norm is replaced.
                self.get_submodule(parent).add_module(child, self._freeze_norms(layer))

    def _convert_norms(self, norm: str) -> None:
        if norm == "FrozenBN":
            self._freeze_norms(self)
        elif norm == "SyncBN":
            self._sync_norms(self)

    @staticmethod
    def _freeze_norms(module: nn.Module) -> nn.Module:
        raise NotImplementedError

    @staticmethod
    def _sync_norms(module: nn.Module) -> nn.Module:
        raise NotImplementedError


def check_choice(key: str, value, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"{key} must be one of {choices}, got {value!r}")
