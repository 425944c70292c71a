"""Backbones of timm, PyTorch Image Models (https://github.com/huggingface/pytorch-image-models)."""

import difflib
from types import ModuleType
from typing import Any, Dict, List, Sequence, Tuple

import torch
from torch import nn

from ..utils.extras import import_extra
from .classifier_backbone import ClassifierBackbone


def import_timm() -> ModuleType:
    """
    Import timm, which is an optional dependency.

    Raises:
        UserError: timm is not installed.
    """
    return import_extra("timm", "timm", "the backbones and weights of timm")


class TimmBackbone(ClassifierBackbone):
    """
    A timm model (`timm.create_model(name, features_only=True)`) with features in NCHW layout.

    Its parameters are in `body`, under the names that timm's feature wrapper gives them.
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
            name: one of `timm.list_models()`, with or without a tag of pre-trained weights. The
                weights are not loaded here; `MODEL.WEIGHTS` names them.
            norm: "FrozenBN" keeps the statistics and scales of the pre-trained weights, "BN" and
                "SyncBN" train them. Layer norms are trained with their stage.
            freeze_at: number of stages to freeze, counted as for Detectron2's ResNet: 0 trains
                everything, 1 freezes the layers of stride 2 (some models have none), 2 freezes
                res2 as well, and so on up to 5. It must be 0 for models that timm does not wrap as
                a list of layers.
            out_features: names of the features to return.

        Raises:
            UserError: timm is not installed.
            ValueError: the name, norm or a feature is unknown; the model does not have the
                features or returns them in another layout than NCHW; stages of a model that is
                not a list of layers are to be frozen.
        """
        super().__init__("MODEL.CLASSIFIER", norm, freeze_at, out_features)
        body = _create(name)
        if getattr(body, "output_fmt", "NCHW") != "NCHW":
            raise ValueError(
                "MODEL.CLASSIFIER.NAME must be a model with features in NCHW layout, got "
                f"{name!r}, whose layout is {body.output_fmt}"
            )
        info: Any = body.feature_info
        # If several features have the same stride, the last one is used.
        index_of = dict(zip(info.reduction(), info.out_indices))
        channels_of = dict(zip(info.reduction(), info.channels()))
        for feature, stride in self._out_feature_strides.items():
            if stride not in index_of:
                raise ValueError(
                    f"MODEL.CLASSIFIER.NAME {name!r} has no feature of stride {stride} ({feature} "
                    f"of MODEL.FPN.IN_FEATURES). Its features have the strides {info.reduction()}"
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
                f"MODEL.BACKBONE.FREEZE_AT must be 0 for MODEL.CLASSIFIER.NAME {name!r}, got "
                f"{freeze_at}: timm wraps this model as {type(body).__name__} and not as a list of "
                "layers, of which some can be frozen"
            )
        else:
            self._freeze_unused()
        self._convert_norms(norm)

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        """(N, 3, H, W) -> {feature name: (N, C, H / stride, W / stride)}, rounded as by timm."""
        return dict(zip(self._out_features, self.body(x)))

    def _own_names(self, key: str) -> Tuple[str, ...]:
        # timm's wrappers keep the model as it is, move it into an attribute, or flatten its names.
        return tuple(
            f"body.{prefix}{name}"
            for prefix in ("", "model.", "body.", "graph_module.")
            for name in (key, key.replace(".", "_", 1))
        )

    def _freeze_unused(self) -> None:
        """
        Freeze parameters that no feature depends on. These wrappers keep layers after the last
        feature and others whose output is not used. Such parameters would get no gradient, which
        DistributedDataParallel does not accept.
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

    # timm's BatchNormAct2d includes the activation, which the conversions of Detectron2 and torch
    # would drop.
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
            f"MODEL.CLASSIFIER.NAME must be one of timm.list_models(), got {name!r}"
            + (f". Similar names: {', '.join(similar)}" if similar else "")
        )
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **kwargs)
    except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError) as e:
        raise ValueError(
            f"MODEL.CLASSIFIER.NAME must be a model that timm can extract features from, got "
            f"{name!r} ({e})"
        ) from e


def _strides(children: List[str], stride_of: Dict[str, int]) -> Dict[str, int]:
    """
    Return for each child the stride of the next feature that is computed by it or after it.

    Args:
        children: names in the order of execution. The last child computes a feature.
        stride_of: strides of the modules that compute features.
    """
    stride_of = {name.replace(".", "_"): stride for name, stride in stride_of.items()}
    ret: Dict[str, int] = {}
    stride = 0
    for child in reversed(children):
        stride = stride_of.get(child, stride)
        ret[child] = stride
    return ret
