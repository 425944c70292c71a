"""Convert weights between the formats of Detectron2 and mmdetection."""

import pickle
from pathlib import Path
from typing import Dict

import numpy as np
import torch

from ..config.choices import WEIGHTS_FORMATS
from ..errors import UserError
from ..utils.files import check_outputs, replacing
from ..utils.local_paths import is_url
from ..utils.progress import announced
from . import mmdet
from .checkpoint_files import read_checkpoint, without_wrappers
from .weights_files import check_weights, parse_weights

FORMATS = WEIGHTS_FORMATS


def convert(source: str, destination: str, to: str = "detectron2") -> str:
    """
    Convert a checkpoint file to the format of another framework.

    Converting a checkpoint of mmdetection 2.x or 3.x to Detectron2's format and back restores every
    tensor and key. A checkpoint of 1.x is returned in the format of 2.x. Data that have no
    counterpart in Detectron2 are kept in the file under "mmdet".

    Args:
        source: path of a checkpoint of mmdetection, of torchvision's ResNet or ResNeXt (only to
            "detectron2"), or of Detectron2 with a ResNet and FPN (only to "mmdet").
            `file.pth#part` selects weights in a file, see :class:`WeightsName`.
        destination: path to write, `.pth` or (only for "detectron2") `.pkl`. Optimizer states and
            training logs are not written.
        to: one of `FORMATS`.

    Returns:
        A line that says what was written.

    Raises:
        UserError: the source cannot be read or cannot be converted.

    Example::

        convert("libra_faster_rcnn_r50_fpn_1x_coco.pth", "libra_r50.pth")
    """
    name = parse_weights(source)
    if is_url(name.file):
        raise UserError(
            f"the source must be a path on this machine, got {source}. Download the file first"
        )
    check_weights(source)
    if to not in FORMATS:
        raise UserError(f"--to must be one of {FORMATS}, got {to!r}")
    check_outputs({"the output": destination}, {"the source": name.file})
    checkpoint = read_checkpoint(name.file, name.part)
    weights = without_wrappers(checkpoint["model"], source)
    weights = {k: torch.as_tensor(v) for k, v in weights.items()}
    if to == "detectron2":
        content = _to_detectron2(source, weights, checkpoint)
    else:
        content = _to_mmdet(source, weights, checkpoint)
    _write(content, destination, to)
    key = "model" if to == "detectron2" else "state_dict"
    return f"{destination}: {len(content[key])} tensors in the format of {to}"


def _to_detectron2(source: str, weights: Dict, checkpoint: Dict) -> Dict:
    if mmdet.is_mmdet(weights):
        model, counters = mmdet.to_detectron2(weights)
        meta = _plain(checkpoint.get("meta", {}))
        return {
            "model": model,
            "__author__": "mmdetection",
            "mmdet": {"counters": counters, "meta": meta},
        }
    if "layer1.0.conv1.weight" in weights:
        model = mmdet.rename(weights, dict(mmdet.resnet_modules()))
        model = {
            k: v
            for k, v in model.items()
            if k.startswith(("stem.", "res")) and not k.endswith("num_batches_tracked")
        }
        # Like in Detectron2's model zoo, names have no prefix and are matched by their suffixes.
        return {"model": model, "__author__": "torchvision", "matching_heuristics": True}
    raise _unknown(source, weights, "mmdetection or of torchvision's ResNet")


def _to_mmdet(source: str, weights: Dict, checkpoint: Dict) -> Dict:
    if not any(
        k.startswith(("backbone.bottom_up.res2", "backbone.fpn.bottom_up.res2")) for k in weights
    ):
        raise _unknown(source, weights, "a Detectron2 detector with a ResNet and FPN")
    kept = checkpoint.get("mmdet", {})
    counters = {k: torch.as_tensor(v) for k, v in kept.get("counters", {}).items()}
    return {
        "state_dict": mmdet.to_mmdet(weights, counters),
        "meta": _plain(kept.get("meta", {})),
    }


def _unknown(source: str, weights: Dict, expected: str) -> UserError:
    return UserError(
        f"{source} must be a checkpoint of {expected}, got the tensors {list(weights)[:3]} ..."
    )


def _write(content: Dict, destination: str, to: str) -> None:
    if not destination.endswith((".pth", ".pkl")) or (
        destination.endswith(".pkl") and to == "mmdet"
    ):
        raise UserError(
            "the name of the output must end in .pth"
            + (" or .pkl" * (to != "mmdet"))
            + f", got {destination}"
        )
    with announced(f"Writing {destination}"), replacing(destination) as partial:
        if destination.endswith(".pth"):
            torch.save(content, partial)
        else:
            Path(partial).write_bytes(pickle.dumps(_arrays(content)))


def _arrays(content):
    """Convert tensors to arrays, which Detectron2's zoo uses in `.pkl` files."""
    if isinstance(content, dict):
        return {k: _arrays(v) for k, v in content.items()}
    if isinstance(content, torch.Tensor):
        content = content.detach()
        return (content.float() if content.dtype == torch.bfloat16 else content).numpy()
    return content


def _plain(meta):
    """Keep numbers, strings and containers, which any reader accepts; set all else to None."""
    if isinstance(meta, dict):
        return {k: _plain(v) for k, v in meta.items() if isinstance(k, (str, int))}
    if isinstance(meta, (list, tuple)):
        return type(meta)(map(_plain, meta))
    if isinstance(meta, np.generic):
        meta = meta.item()
    return meta if isinstance(meta, (str, int, float, bool)) else None
