"""
Detectors with random weights that cost as much as trained ones.

Fresh weights do not: in a ResNet with frozen batch norms the features grow from block to block
until they overflow, and scores are so alike that either all of them pass the score threshold or
none does, so that NMS and a mask head have far too much work or none at all.
"""

from typing import Any, ContextManager, Dict, List, NamedTuple, Optional

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import RetinaNet
from torch import nn

from ...modeling.build import build_model

_SEED = 0
_NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)
_CANDIDATES = 100  # where the config does not limit the detections


class Found(NamedTuple):
    """What a detector finds in an image."""

    proposals: Optional[int]  # None for a detector of one stage
    detections: int


@torch.no_grad()
def random_model(cfg: CfgNode, image: Dict[str, Any], precision: ContextManager[Any]) -> nn.Module:
    """
    Build a model with random weights, always the same, and adjust them on an image:

    - The statistics of batch norms are those of their inputs, so that features stay of order 1.
    - The class logits have a standard deviation of 1.
    - As many scores exceed the score threshold as the config allows detections in an image
      (`TEST.DETECTIONS_PER_IMAGE`). NMS then leaves fewer.

    Args:
        image: an input of the model.
        precision: context in which the model will be run for inference.

    Returns:
        The model in evaluation mode, on `MODEL.DEVICE`.
    """
    torch.manual_seed(_SEED)
    model = build_model(cfg).eval()
    handles = [
        m.register_forward_pre_hook(_take_statistics)
        for m in model.modules()
        if isinstance(m, _NORMS) and m.running_mean is not None
    ]
    handles += [layer.register_forward_hook(_Spread()) for layer in _score_layers(model)]
    model([image])
    for handle in handles:
        handle.remove()
    _limit_candidates(model, cfg.TEST.DETECTIONS_PER_IMAGE, image, precision)
    return model


@torch.no_grad()
def found_in(model: nn.Module, image: Dict[str, Any], precision: ContextManager[Any]) -> Found:
    """Run a detector on an image and count what it finds."""
    numbers: List[int] = []
    rpn = getattr(model, "proposal_generator", None)
    handles = []
    if rpn is not None:
        count = lambda module, inputs, outputs: numbers.append(len(outputs[0][0]))
        handles.append(rpn.register_forward_hook(count))
    with precision:
        instances = model([image])[0]["instances"]
    for handle in handles:
        handle.remove()
    if "proposals" in image and not numbers:
        numbers.append(len(image["proposals"]))
    return Found(numbers[0] if numbers else None, len(instances))


def _take_statistics(norm: Any, inputs: Any) -> None:
    x = inputs[0].float()
    if x.numel():  # a box head may have no boxes
        norm.running_mean.copy_(x.mean((0, 2, 3)))
        norm.running_var.copy_(x.var((0, 2, 3), unbiased=False))


class _Spread:
    """Scales the weights of a layer, once, to a standard deviation of 1 of its outputs."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, layer: Any, inputs: Any, outputs: torch.Tensor) -> None:
        if not self.done and outputs.numel() > 1:
            layer.weight.div_(outputs.float().std().clamp(min=1e-6))
            self.done = True


def _score_layers(model: nn.Module) -> List[nn.Module]:
    if isinstance(model, RetinaNet):
        return [model.head.cls_score]
    return [predictor.cls_score for predictor in box_predictors(model)]


def box_predictors(model: nn.Module) -> List[Any]:
    """The box predictors of a detector: several of a cascade, none without ROI heads."""
    predictor = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    if predictor is None:
        return []
    return list(predictor) if isinstance(predictor, nn.ModuleList) else [predictor]


def _limit_candidates(
    model: Any, limit: int, image: Dict[str, Any], precision: ContextManager[Any]
) -> None:
    """Set the score threshold so that `limit` scores of the image exceed it."""
    per_stage: List[torch.Tensor] = []  # (number of scores,) each
    predictors = box_predictors(model)
    owner = predictors[-1] if predictors else model
    if isinstance(model, RetinaNet):
        scores_of = lambda module, inputs, outputs: per_stage.append(
            torch.cat([logits.flatten() for logits in outputs[0]]).float().sigmoid()
        )
        handles = [model.head.register_forward_hook(scores_of)]
    else:
        scores_of = lambda module, inputs, outputs: per_stage.append(_class_scores(module, outputs))
        handles = [predictor.register_forward_hook(scores_of) for predictor in predictors]
    with precision:
        model([image])
    for handle in handles:
        handle.remove()
    if per_stage:
        scores = torch.stack(per_stage).mean(0)  # as a cascade averages its stages
        number = min(limit if limit > 0 else _CANDIDATES, len(scores) - 1)
        owner.test_score_thresh = scores.topk(number + 1).values[-1].item()


def _class_scores(predictor: Any, outputs: Any) -> torch.Tensor:
    logits = outputs[0].float()
    scores = logits.sigmoid() if predictor.use_sigmoid_ce else logits.softmax(-1)
    return scores[:, :-1].flatten()
