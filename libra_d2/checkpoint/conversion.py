"""Files of weights from one framework's form into the other's."""

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
    Write the weights of a checkpoint file in another framework's form.

    To Detectron2's form and back, every tensor and every key of a checkpoint of mmdetection 2.x or
    3.x comes out as it was; one of 1.x comes back as one of 2.x. What Detectron2 has no place for
    is kept in the file beside the weights, under "mmdet".

    Args:
        source: a checkpoint of mmdetection, of torchvision's ResNet or ResNeXt (only to
            "detectron2"), or of Detectron2 with a ResNet and FPN (only to "mmdet"). `file.pth#part`
            names weights in it, see :class:`WeightsName`.
        destination: path to write, `.pth` or (Detectron2's form alone) `.pkl`. Optimiser states
            and training logs are left out.
        to: one of `FORMATS`.

    Returns:
        What was written, in one line.

    Raises:
        UserError: the source cannot be read, or is nothing that can be converted.
    """
    name = parse_weights(source)
    if is_url(name.file):
        raise UserError(f"{source} must be a path on this machine: download the file first")
    check_weights(source)
    if to not in FORMATS:
        raise UserError(f"--to {to!r} is not one of {FORMATS}")
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
    return f"{destination}: {len(content[key])} tensors in the form of {to}"


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
        # As in Detectron2's zoo: the names have no prefix, and are matched by their ends.
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
    return UserError(f"{source} is no checkpoint of {expected}: it begins with {list(weights)[:3]}")


def _write(content: Dict, destination: str, to: str) -> None:
    if not destination.endswith((".pth", ".pkl")) or (
        destination.endswith(".pkl") and to == "mmdet"
    ):
        raise UserError(
            f"{destination}: the name must end in .pth" + (" or .pkl" * (to != "mmdet"))
        )
    with announced(f"Writing {destination}"), replacing(destination) as partial:
        if destination.endswith(".pth"):
            torch.save(content, partial)
        else:
            Path(partial).write_bytes(pickle.dumps(_arrays(content)))


def _arrays(content):
    """Tensors as arrays, as in Detectron2's zoo."""
    if isinstance(content, dict):
        return {k: _arrays(v) for k, v in content.items()}
    if isinstance(content, torch.Tensor):
        content = content.detach()
        return (content.float() if content.dtype == torch.bfloat16 else content).numpy()
    return content


def _plain(meta):
    """What is no number, text or container of them becomes None, so that any reader takes it."""
    if isinstance(meta, dict):
        return {k: _plain(v) for k, v in meta.items() if isinstance(k, (str, int))}
    if isinstance(meta, (list, tuple)):
        return type(meta)(map(_plain, meta))
    if isinstance(meta, np.generic):
        meta = meta.item()
    return meta if isinstance(meta, (str, int, float, bool)) else None
