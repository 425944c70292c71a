"""What the adapters of torchvision's and timm's image classifiers have in common."""

from typing import Dict, Sequence, Tuple

import torch
from detectron2.modeling import Backbone
from torch import nn

NORMS = ("FrozenBN", "BN", "SyncBN")
FEATURE_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class ClassifierBackbone(Backbone):
    """
    The layers of an image classifier up to its last wanted feature, without its head.

    Features are named as Detectron2 names those of a ResNet: "res2" (stride 4) to "res5"
    (stride 32). A stage is the run of layers with the same stride.

    Norms: only 2D batch norms are converted. A layer norm has no statistics and trains with the
    stage that it is in.
    """

    def __init__(self, node: str, norm: str, freeze_at: int, out_features: Sequence[str]):
        """
        Args:
            node: config node of the adapter, to name a bad setting with.
            norm, freeze_at, out_features: see the adapters.

        Raises:
            ValueError: unknown norm, stage or feature, or no feature.
        """
        super().__init__()
        check_choice(f"{node}.NORM", norm, NORMS)
        check_choice("MODEL.BACKBONE.FREEZE_AT", freeze_at, tuple(range(6)))
        if not out_features:
            raise ValueError(f"MODEL.FPN.IN_FEATURES is empty: choose of {tuple(FEATURE_STRIDES)}")
        for feature in out_features:
            check_choice("MODEL.FPN.IN_FEATURES", feature, tuple(FEATURE_STRIDES))
        self._out_features = sorted(out_features, key=FEATURE_STRIDES.get)
        self._out_feature_strides = {f: FEATURE_STRIDES[f] for f in self._out_features}

    def from_classifier(self, weights: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """
        Args:
            weights: state dict of the whole classifier, as it is published.

        Returns:
            Those of its tensors that this backbone has by name, under the names that they have
            here; empty if there are none.
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
        """Names that a parameter of the classifier may have in here."""
        return (key,)

    def _freeze(self, strides: Dict[str, int], freeze_at: int) -> None:
        """`strides`: of what each layer returns, by the layer's name in here."""
        for name, stride in strides.items():
            if freeze_at and stride <= 2**freeze_at:
                layer = self.get_submodule(name).requires_grad_(False)
                parent, _, child = name.rpartition(".")
                # A layer that is a norm itself is replaced.
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
        raise ValueError(f"{key} {value!r} is not one of {choices}")
