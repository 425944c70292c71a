"""Backbones of timm, PyTorch Image Models (https://github.com/huggingface/pytorch-image-models)."""

import difflib
from types import ModuleType
from typing import Dict, List, Sequence, Tuple

import torch
from torch import nn

from ..utils.extras import import_extra
from .classifier_backbone import ClassifierBackbone


def import_timm() -> ModuleType:
    """
    Raises:
        UserError: timm, an extra of this package, is not installed.
    """
    return import_extra("timm", "timm", "the backbones and weights of timm")


class TimmBackbone(ClassifierBackbone):
    """
    A model of timm (`timm.create_model(name, features_only=True)`) whose features are NCHW.

    Its parameters are in `body`, with the names that timm's wrapper for features gives them.
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
            name: of `timm.list_models()`, with or without a tag of pre-trained weights, which are
                not loaded here: see `MODEL.WEIGHTS`.
            norm: "FrozenBN" keeps the statistics and scales of the pre-trained weights,
                "BN" and "SyncBN" train them. Layer norms train with their stage.
            freeze_at: as for a ResNet: 0 trains everything, 1 freezes the layers of stride 2 (some
                models have none), 2 these and res2, and so on up to 5. 0 for models that timm does
                not wrap as a list of layers.
            out_features: names of the features to return.

        Raises:
            UserError: timm is not installed.
            ValueError: unknown name, norm or feature; a model that does not have the features, or
                not as NCHW; stages to freeze in a model that is not a list of layers.
        """
        super().__init__("MODEL.CLASSIFIER", norm, freeze_at, out_features)
        body = _create(name)
        if getattr(body, "output_fmt", "NCHW") != "NCHW":
            raise ValueError(f"MODEL.CLASSIFIER.NAME {name!r}: its features are not NCHW")
        info = body.feature_info
        # Of features with the same stride, the last.
        index_of = dict(zip(info.reduction(), info.out_indices))
        channels_of = dict(zip(info.reduction(), info.channels()))
        for feature, stride in self._out_feature_strides.items():
            if stride not in index_of:
                raise ValueError(
                    f"MODEL.CLASSIFIER.NAME {name!r} has no feature of stride {stride} ({feature} "
                    f"of MODEL.FPN.IN_FEATURES): its features have the strides {info.reduction()}"
                )
        self._out_feature_channels = {
            f: channels_of[stride] for f, stride in self._out_feature_strides.items()
        }
        wanted = tuple(index_of[stride] for stride in self._out_feature_strides.values())
        if wanted != tuple(info.out_indices):
            body = _create(name, out_indices=wanted)
        self.body = body
        if isinstance(body, import_timm().models.FeatureListNet):
            strides = _strides(list(body), dict(zip(info.module_name(), info.reduction())))
            self._freeze({f"body.{child}": stride for child, stride in strides.items()}, freeze_at)
        elif freeze_at:
            raise ValueError(
                f"MODEL.BACKBONE.FREEZE_AT must be 0 for MODEL.CLASSIFIER.NAME {name!r}, which "
                f"timm does not wrap as a list of layers but as {type(body).__name__}, got "
                f"{freeze_at}"
            )
        else:
            self._freeze_unused()
        self._convert_norms(norm)

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        """(N, 3, H, W) -> {feature name: (N, C, H / stride, W / stride)}, rounded as timm does."""
        return dict(zip(self._out_features, self.body(x)))

    def _own_names(self, key: str) -> Tuple[str, ...]:
        # The wrappers keep the model as it is, put it into an attribute, or flatten it.
        return tuple(
            f"body.{prefix}{name}"
            for prefix in ("", "model.", "body.", "graph_module.")
            for name in (key, key.replace(".", "_", 1))
        )

    def _freeze_unused(self) -> None:
        """
        Such a wrapper keeps layers behind the last feature, and others that nothing reads. They
        would train without a gradient, which DistributedDataParallel does not accept.
        """
        size = import_timm().data.resolve_model_data_config(self.body)["input_size"]
        training = self.training
        parameters = list(self.body.parameters())
        with torch.enable_grad():
            outputs = self.eval().body(torch.zeros(1, *size))
            loss = torch.stack([output.sum() for output in outputs]).sum()
        self.train(training)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True)
        ):
            parameter.requires_grad_(gradient is not None)

    # timm's own conversions, because its BatchNormAct2d has the activation in it, which those of
    # Detectron2 and torch drop.
    @staticmethod
    def _freeze_norms(module: nn.Module) -> nn.Module:
        return import_timm().layers.freeze_batch_norm_2d(module)

    @staticmethod
    def _sync_norms(module: nn.Module) -> nn.Module:
        return import_timm().layers.convert_sync_batchnorm(module)


def _create(name: str, **kwargs) -> nn.Module:
    timm = import_timm()
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name, timm.list_models(), n=5)
        raise ValueError(
            f"MODEL.CLASSIFIER.NAME {name!r} is not one of timm.list_models()"
            + (f". Similar: {', '.join(similar)}" if similar else "")
        )
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **kwargs)
    except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError) as e:
        raise ValueError(
            f"MODEL.CLASSIFIER.NAME {name!r}: timm gives no features of it ({e})"
        ) from e


def _strides(children: List[str], stride_of: Dict[str, int]) -> Dict[str, int]:
    """
    Stride of the feature that each child works towards.

    Args:
        children: in the order of their execution, the last of them gives a feature.
        stride_of: of the modules that give features.
    """
    stride_of = {name.replace(".", "_"): stride for name, stride in stride_of.items()}
    ret, stride = {}, 0
    for child in reversed(children):
        stride = stride_of.get(child, stride)
        ret[child] = stride
    return ret
