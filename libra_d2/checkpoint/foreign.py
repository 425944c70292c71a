"""Recognize weights of other models by their keys, and rename them to fit the model."""

import re
from typing import Any, Dict, List, Sequence, Tuple

import torch
from detectron2.modeling import ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import nn

from ..modeling import BFP, ClassifierBackbone, TimmBackbone
from . import mmdet

Weights = Dict[str, torch.Tensor]

DETECTRON2 = "Detectron2"
CLASSIFIER = "ImageNet classifier"

# Tensors of a classifier that a backbone does not need.
_HEAD = re.compile(r"(^|\.)(fc|head|classifier)\.|num_batches_tracked$")

_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB
_IMAGENET_STD = (58.395, 57.12, 57.375)


def adapt(weights: Weights, model: nn.Module) -> Tuple[Weights, str]:
    """
    Rename weights so that they fit a model, with or without a BFP on its FPN.

    Args:
        weights: a state dict of Detectron2, of mmdetection (see :mod:`.mmdet`), or of an image
            classifier in torchvision's or timm's format.

    Returns:
        The weights under the names of the model, and their origin: `DETECTRON2`, `CLASSIFIER` or
        "mmdetection <version>". The head of a classifier is dropped.
    """
    if mmdet.is_mmdet(weights):
        version = "1.x" if mmdet.is_background_first(weights) else "2.x or 3.x"
        return _fit_fpn_names(mmdet.to_detectron2(weights)[0], model), f"mmdetection {version}"
    own_names = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, ClassifierBackbone):
            body = module.from_classifier(weights)
        elif isinstance(module, ResNet):
            body = mmdet.rename(weights, dict(mmdet.resnet_modules()))
        else:
            continue
        body = {f"{name}.{key}": value for key, value in body.items()}
        if any(key in own_names for key in body):
            origin = DETECTRON2 if "stem.conv1.weight" in weights else CLASSIFIER
            return {k: v for k, v in body.items() if k in own_names or not _HEAD.search(k)}, origin
    return _fit_fpn_names(weights, model), DETECTRON2


def _fit_fpn_names(weights: Weights, model: nn.Module) -> Weights:
    """Add or remove the prefix `fpn.`, which the names of an FPN have if a BFP wraps it."""
    weights = dict(weights)
    for name, module in model.named_modules():
        if isinstance(module, BFP):
            # Rename before Detectron2 compares the shapes by key.
            BFP.adopt_fpn_keys(weights, f"{name}.")
            return weights
    return {_without_bfp(key): value for key, value in weights.items()}


def _without_bfp(key: str) -> str:
    wrapped = "backbone.fpn."
    return "backbone." + key[len(wrapped) :] if key.startswith(wrapped) else key


def unfit_settings(model: nn.Module, origin: str) -> List[str]:
    """
    List the settings that differ from those that the published weights of mmdetection or of
    classifiers were trained with: the key, its value, and the expected value.
    """
    if origin == DETECTRON2:
        return []
    wrong = []
    mean: Sequence[float] = _IMAGENET_MEAN
    std: Sequence[float] = _IMAGENET_STD
    for module in model.modules():
        if origin == CLASSIFIER and isinstance(module, TimmBackbone):
            own: Any = module.body.pretrained_cfg
            mean, std = ([255 * x for x in own[key]] for key in ("mean", "std"))
    if getattr(model, "input_format", "RGB") != "RGB":
        wrong.append(f"INPUT.FORMAT is {model.input_format}, not RGB")
    for key, expected in (("pixel_mean", mean), ("pixel_std", std)):
        value = getattr(model, key, None)
        if value is not None:
            value = [round(x, 3) for x in value.flatten().tolist()]
            if any(abs(a - b) > 0.01 for a, b in zip(value, expected)):
                wrong.append(
                    f"MODEL.{key.upper()} is {value}, not {[round(x, 3) for x in expected]}"
                )
    for module in model.modules():
        if isinstance(module, ResNet):
            conv1 = getattr(module.stages[1][0], "conv1", None)
            if conv1 is not None and hasattr(module.stages[1][0], "conv3") and conv1.stride[0] != 1:
                wrong.append("MODEL.RESNETS.STRIDE_IN_1X1 is True, not False")
    if origin != CLASSIFIER and hasattr(model, "head"):
        if not getattr(model, "clip_before_nms", False):
            wrong.append("MODEL.RETINANET.CLIP_BEFORE_NMS is False, not True")
        if any(type(module) is LastLevelP6P7 for module in model.modules()):
            wrong.append("MODEL.RETINANET.P7_RELU is True, not False")
    return wrong
