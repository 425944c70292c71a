"""
Convert between the parameter names of mmdetection and of Detectron2.

The keys show the version (in 1.x the heads have no prefix `roi_head.` and the background class
comes first), the detector (RetinaNet or a two-stage one) and whether a BFP follows the FPN. In
addition to the names, the order of RetinaNet's anchors and the class order of 1.x are converted.

Sources: mmdetection 3.3, `mmdet/models`, and its `tools/model_converters/upgrade_model_version.py`
for 1.x.
"""

import re
from typing import Dict, Iterator, Tuple

import torch

from ..errors import UserError

Weights = Dict[str, torch.Tensor]
Names = Iterator[Tuple[str, str]]

_COUNTER = ".num_batches_tracked"  # of batch norms; Detectron2's frozen ones have none
# Names that only a model of Detectron2 has.
_OURS = re.compile(r"(backbone\.(bottom_up|fpn|bfp|top_block)|proposal_generator|roi_heads|head)\b")
# Constants in old files of Detectron2's zoo.
_NO_WEIGHT = re.compile(r"^pixel_(mean|std)$|cell_anchors")


def is_mmdet(weights: Weights) -> bool:
    """Whether the names are those of an mmdetection detector with a ResNet or ResNeXt."""
    return any(key.startswith("backbone.layer1.") for key in weights)


def is_background_first(weights: Weights) -> bool:
    """Whether the names are those of a two-stage detector of mmdetection 1.x."""
    return "bbox_head.fc_cls.weight" in weights


def to_detectron2(weights: Weights) -> Tuple[Weights, Weights]:
    """
    Convert the weights of a detector of mmdetection to Detectron2's names and layout.

    Args:
        weights: state dict of an mmdetection detector. It is not modified.

    Returns:
        The state dict for Detectron2's model, in which tensors with unknown names keep them, and
        the counters of the batch norms under mmdetection's names. Detectron2's model has no
        counters; :func:`to_mmdet` restores them.

    Raises:
        UserError: the detector is not supported, or it is a RetinaNet without 3 aspect ratios.
    """
    counters = {k: v for k, v in weights.items() if k.endswith(_COUNTER)}
    weights = {k: v for k, v in weights.items() if k not in counters}
    _refuse_other_detectors(weights)
    if is_background_first(weights):
        weights = _background_last(weights)
    # RetinaNet's convolutions before 1.0.
    weights = {
        re.sub(r"((cls|reg)_convs\.\d+)\.(weight|bias)$", r"\1.conv.\3", k): v
        for k, v in weights.items()
    }
    retinanet = "bbox_head.retina_cls.weight" in weights
    names = dict(_modules(retinanet, bfp="neck.0.lateral_convs.0.conv.weight" in weights))
    if retinanet:
        _reorder_anchors(weights, "bbox_head.retina_cls", "bbox_head.retina_reg", size_first=True)
    return rename(weights, names), counters


def _refuse_other_detectors(weights: Weights) -> None:
    if any(re.match(r"bbox_head\.\d+\.|mask_head\.", key) for key in weights):
        raise UserError(
            "this is a Mask or Cascade R-CNN of mmdetection 1.x. Convert it to 2.x first, with "
            "mmdetection's tools/model_converters/upgrade_model_version.py"
        )
    one_stage = any(key.startswith("bbox_head.") for key in weights)
    if (
        one_stage
        and not is_background_first(weights)
        and "bbox_head.retina_cls.weight" not in weights
    ):
        raise UserError("among mmdetection's one-stage detectors, only RetinaNet is supported")


def to_mmdet(weights: Weights, counters: Weights) -> Weights:
    """
    Convert weights of Detectron2 to the names and the layout of mmdetection 2.x and 3.x. This is
    the inverse of :func:`to_detectron2`.

    Args:
        weights: state dict of a Detectron2 model with a ResNet and an FPN, with or without BFP.
        counters: as returned by :func:`to_detectron2`. Missing ones are set to zero.

    Raises:
        UserError: mmdetection has no name for some tensors.
    """
    weights = {k: v for k, v in weights.items() if not _NO_WEIGHT.search(k)}
    retinanet = "head.cls_score.weight" in weights
    bfp = any(key.startswith("backbone.fpn.") for key in weights)
    names = {ours: theirs for theirs, ours in _modules(retinanet, bfp)}
    if retinanet:
        _reorder_anchors(weights, "head.cls_score", "head.bbox_pred", size_first=False)
    nameless = [k for k in weights if _OURS.match(k) and k.rpartition(".")[0] not in names]
    if nameless:
        raise UserError(
            f"mmdetection has no names for {len(nameless)} tensors, such as {nameless[:3]}"
        )
    ret = {}
    for key, value in rename(weights, names).items():
        ret[key] = value
        counter = key.replace(".running_var", _COUNTER)
        if counter != key and counter not in ret:
            ret[counter] = counters.get(counter, torch.zeros((), dtype=torch.int64))
    return ret


def resnet_modules(num_blocks: int = 48) -> Names:
    """
    Yield the names of a ResNet's or ResNeXt's modules: (torchvision and mmdetection, Detectron2).

    Args:
        num_blocks: largest number of blocks per stage. ResNet-101 has 23, ResNet-152 has 36.
    """
    yield "conv1", "stem.conv1"
    yield "bn1", "stem.conv1.norm"
    for stage in range(1, 5):
        for block in range(num_blocks):
            theirs, ours = f"layer{stage}.{block}", f"res{stage + 1}.{block}"
            for i in range(1, 4):
                yield f"{theirs}.conv{i}", f"{ours}.conv{i}"
                yield f"{theirs}.bn{i}", f"{ours}.conv{i}.norm"
            yield f"{theirs}.downsample.0", f"{ours}.shortcut"
            yield f"{theirs}.downsample.1", f"{ours}.shortcut.norm"


def _modules(retinanet: bool, bfp: bool) -> Names:
    """Yield the names of a detector's modules: (mmdetection, Detectron2)."""
    neck, fpn = ("neck.0", "backbone.fpn") if bfp else ("neck", "backbone")
    for theirs, ours in resnet_modules():
        yield f"backbone.{theirs}", f"{fpn}.bottom_up.{ours}"

    first = 3 if retinanet else 2  # level
    for i, level in enumerate(range(first, 6)):
        yield f"{neck}.lateral_convs.{i}.conv", f"{fpn}.fpn_lateral{level}"
        yield f"{neck}.fpn_convs.{i}.conv", f"{fpn}.fpn_output{level}"
    if bfp:
        for conv in ("g", "theta", "phi", "conv_out"):
            yield f"neck.1.refine.{conv}.conv", f"backbone.bfp.refine.{conv}"
        yield "neck.1.refine.conv", "backbone.bfp.refine"

    if retinanet:
        yield f"{neck}.fpn_convs.3.conv", f"{fpn}.top_block.p6"
        yield f"{neck}.fpn_convs.4.conv", f"{fpn}.top_block.p7"
        for i in range(8):
            yield (
                f"bbox_head.cls_convs.{i}.conv",
                f"head.cls_subnet.{2 * i}",
            )  # and ReLUs
            yield f"bbox_head.reg_convs.{i}.conv", f"head.bbox_subnet.{2 * i}"
        yield "bbox_head.retina_cls", "head.cls_score"
        yield "bbox_head.retina_reg", "head.bbox_pred"
        return
    yield "rpn_head.rpn_conv", "proposal_generator.rpn_head.conv"
    yield "rpn_head.rpn_cls", "proposal_generator.rpn_head.objectness_logits"
    yield "rpn_head.rpn_reg", "proposal_generator.rpn_head.anchor_deltas"
    for stage in ("", ".0", ".1", ".2"):  # a cascade has numbered stages
        for i in range(2):
            yield (
                f"roi_head.bbox_head{stage}.shared_fcs.{i}",
                f"roi_heads.box_head{stage}.fc{i + 1}",
            )
        yield f"roi_head.bbox_head{stage}.fc_cls", f"roi_heads.box_predictor{stage}.cls_score"
        yield f"roi_head.bbox_head{stage}.fc_reg", f"roi_heads.box_predictor{stage}.bbox_pred"
    for i in range(4):
        yield f"roi_head.mask_head.convs.{i}.conv", f"roi_heads.mask_head.mask_fcn{i + 1}"
    yield "roi_head.mask_head.upsample", "roi_heads.mask_head.deconv"
    yield "roi_head.mask_head.conv_logits", "roi_heads.mask_head.predictor"


def rename(weights: Weights, names: Dict[str, str]) -> Weights:
    """Rename the weights of the modules in `names`, and keep the names of all others."""
    ret = {}
    for key, value in weights.items():
        module, dot, tensor = key.rpartition(".")
        ret[names.get(module, module) + dot + tensor] = value
    return ret


def _background_last(weights: Weights) -> Weights:
    """Convert weights from the names and the class order of mmdetection 1.x to those of 2.x."""
    num_rows = len(weights["bbox_head.fc_cls.weight"])
    ret = {}
    for key, value in weights.items():
        if key.startswith("bbox_head.fc_cls."):
            value = torch.cat([value[1:], value[:1]])
        elif key.startswith("bbox_head.fc_reg.") and len(value) == 4 * num_rows:
            value = value[4:]  # 2.x does not regress boxes of the background
        ret[re.sub("^bbox_head", "roi_head.bbox_head", key)] = value
    return ret


def _reorder_anchors(weights: Weights, cls: str, reg: str, size_first: bool) -> None:
    """
    Reorder the anchors of a cell. mmdetection orders them by aspect ratio, Detectron2 by size.

    Args:
        cls, reg: names of the modules that predict logits and deltas; changed in place.
        size_first: whether to bring them to Detectron2's order.
    """
    num_ratios = 3
    num_anchors = len(weights[f"{reg}.bias"]) // 4
    if num_anchors % num_ratios:
        raise UserError(
            f"a RetinaNet must have {num_ratios} aspect ratios to be converted, but {reg}.bias is "
            f"for {num_anchors} anchors per cell"
        )
    num_sizes = num_anchors // num_ratios
    shape = (num_ratios, num_sizes) if size_first else (num_sizes, num_ratios)
    for module in (cls, reg):
        for key in (f"{module}.weight", f"{module}.bias"):
            value = weights[key]
            rows = value.reshape(*shape, -1, *value.shape[1:])
            weights[key] = rows.transpose(0, 1).reshape(value.shape)
