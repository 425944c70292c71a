"""Read checkpoint files: their weights, averaged weights and class names."""

import re
from typing import Any, Dict, Iterable, Iterator, List, Tuple

import torch

from ..errors import UserError
from ..utils.messages import printable, shown
from .safe_pickle import load_pkl, load_pth
from .torchvision_weights import verify_hash_in_name

# Keys under which timm, Lightning, mmengine and many others save averaged weights.
_AVERAGED = re.compile(
    r"(^|[_.])(ema|swa(?![a-z])|averaged|average_model|avg_model)|ema$", re.IGNORECASE
)
# Keys under which a checkpoint contains a state dict, next to an optimizer's state and the like.
_WRAPPERS = ("model", "state_dict", "module", "weights")
# Tensors may share storages. Together they may be larger than these by at most this factor.
_MOST_SHARED = 8


def read_checkpoint(path: str, part: str = "") -> Dict[str, Any]:
    """
    Read a checkpoint file and return its content, with the state dict under "model".

    Args:
        part: key of the state dict to load, with dots between the keys of nested dictionaries, such
            as "model_ema" or "callbacks.EMA.state_dict"; "" for "model" or "state_dict".

    Raises:
        UserError: the file is damaged, contains code, is not a checkpoint, or has no such part.
    """
    verify_hash_in_name(path)
    loaded = load_pkl(path) if path.endswith(".pkl") else load_pth(path)
    if not isinstance(loaded, dict):
        raise UserError(f"the checkpoint {path} must contain a dict, got a {type(loaded).__name__}")
    if part:
        return {**loaded, "model": _part(path, loaded, part)}
    others = averaged_weights(loaded)
    if path.endswith(".pkl") and not ("model" in loaded and "__author__" in loaded):
        # Caffe2 and Detectron: detectors are saved under "blobs", classifiers at the top level.
        blobs = loaded.get("blobs", loaded)
        blobs = {k: v for k, v in blobs.items() if not str(k).endswith("_momentum")}
        loaded = {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}
    elif path.endswith(".pyth") and "model_state" in loaded:
        loaded = {"model": loaded["model_state"], "matching_heuristics": True}  # pycls
    elif "model" not in loaded:
        # a checkpoint of mmdetection, or only a state dict
        loaded = (
            {**loaded, "model": loaded["state_dict"]}
            if "state_dict" in loaded
            else {"model": loaded}
        )
    weights = loaded["model"]
    if not _is_state_dict(weights):
        hint = f", but averaged weights. {_how_to_load(path, others)}" if others else ""
        raise UserError(f"the checkpoint {path} contains no state dict{hint}")
    _check_memory(path, weights)
    return loaded


def averaged_weights(checkpoint: Dict[str, Any]) -> List[str]:
    """List the parts of a checkpoint (see :func:`read_checkpoint`) that are averaged weights."""
    return [
        name
        for name, value in _dictionaries(checkpoint)
        if _AVERAGED.search(name) and _is_state_dict(value)
    ]


def note_on_averaged(path: str, checkpoint: Dict[str, Any]) -> str:
    """Return a note that the file also contains averaged weights; "" if it does not."""
    others = averaged_weights(checkpoint)
    if not others:
        return ""
    return (
        f"{path} also holds averaged weights, which often perform better but are not loaded. "
        f"{_how_to_load(path, others)}"
    )


def _how_to_load(path: str, parts: List[str]) -> str:
    names = " or ".join(f'"{path}#{part}"' for part in parts[:3])
    return f"To load them, set MODEL.WEIGHTS to {names}"


def _dictionaries(checkpoint: Dict[str, Any]) -> Iterator[Tuple[str, Dict]]:
    """Yield the dictionaries in a checkpoint, three levels deep, with the path of their keys."""
    level = [(str(k), v) for k, v in checkpoint.items() if k != "model"]
    for _ in range(3):
        level = [(name, value) for name, value in level if isinstance(value, dict)]
        yield from level
        level = [
            (f"{name}.{k}", v)
            for name, value in level
            if len(value) < 100 and not _is_state_dict(value)
            for k, v in value.items()
        ]


def _part(path: str, checkpoint: Dict[str, Any], part: str) -> Dict[str, Any]:
    dictionaries = {"model": checkpoint.get("model"), **dict(_dictionaries(checkpoint))}
    found: Any = dictionaries.get(part)
    if isinstance(found, dict) and not _is_state_dict(found):
        found = next((found[k] for k in _WRAPPERS if _is_state_dict(found.get(k))), None)
    if not _is_state_dict(found):
        known = [shown(name) for name, value in dictionaries.items() if _is_state_dict(value)]
        raise UserError(
            f"the checkpoint {path} has no weights under the key {part!r}. Keys with weights: "
            f"{', '.join(known) or 'none'}"
        )
    _check_memory(path, found)
    return found


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(k, str) and hasattr(v, "shape") for k, v in value.items())
    )


def _check_memory(path: str, weights: Dict[str, Any]) -> None:
    """
    Refuse tensors that share so much memory that copies of them would take far more than the file.
    """
    total, stored = 0, {}
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            continue
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise UserError(
                f"the checkpoint {path}: all tensors must be dense, but {printable(name)} is "
                "sparse, quantized or a meta tensor without data"
            )
        total += value.numel() * value.element_size()
        storage = value.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
    if total > _MOST_SHARED * sum(stored.values()) + (1 << 20):
        raise UserError(
            f"the checkpoint {path} is refused: its tensors would take {total} bytes in memory, "
            f"but the file stores only {sum(stored.values())}"
        )


def without_wrappers(
    weights: Dict[str, Any], path: str, own_names: Iterable[str] = ()
) -> Dict[str, Any]:
    """
    Remove the prefixes that DistributedDataParallel (`module.`), torch.compile (`_orig_mod.`, also
    in the middle of a name) and Lightning (`model.`) add to the names of tensors.

    Args:
        path: file of the weights, for messages.
        own_names: names of the model's tensors. If one begins with `model.`, this is not removed.

    Raises:
        UserError: two tensors have the same name without the prefixes.

    Example:
        >>> without_wrappers({"module.fc._orig_mod.weight": 0}, "model.pth")
        {'fc.weight': 0}
    """
    ret: Dict[str, Any] = {}
    for key, value in weights.items():
        name = ".".join(part for part in key.split(".") if part != "_orig_mod")
        while name.startswith("module."):
            name = name.removeprefix("module.")
        if name in ret:
            raise UserError(
                f"the checkpoint {path} contains {printable(name)} twice, with and without "
                "`module.` or `_orig_mod.` in the name. Save it with one of them only"
            )
        ret[name] = value
    in_model = [key.startswith("model.") for key in ret]
    if all(in_model) and not any(name.startswith("model.") for name in own_names):
        ret = {key.removeprefix("model."): value for key, value in ret.items()}
    return ret


def class_names_in(checkpoint: Dict[str, Any]) -> List[str]:
    """
    Return the class names that a checkpoint of this package, or the metadata of one of mmdetection,
    contains; [] if there are none.

    Raises:
        UserError: the names are not a list of strings.
    """
    converted = checkpoint.get("mmdet")
    meta = checkpoint.get("meta") or (converted.get("meta") if isinstance(converted, dict) else {})
    meta = meta if isinstance(meta, dict) else {}
    dataset = meta.get("dataset_meta") or {}
    dataset = {str(k).lower(): v for k, v in dataset.items()} if isinstance(dataset, dict) else {}
    names = checkpoint.get("class_names") or meta.get("CLASSES") or dataset.get("classes") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise UserError(
            f"class names in a checkpoint must be a list of strings, got {shown(names)}"
        )
    return list(names)


def check_finite(weights: Dict[str, torch.Tensor], path: str) -> None:
    """
    Check that all weights are finite.

    Raises:
        UserError: a tensor contains NaN or infinity. The message names the first one.
    """
    broken = [k for k, v in weights.items() if not torch.isfinite(v).all()]
    if broken:
        first = weights[broken[0]]
        count = int((~torch.isfinite(first)).sum())
        others = f", and some of {len(broken) - 1} other tensors" if len(broken) > 1 else ""
        raise UserError(
            f"MODEL.WEIGHTS {path}: all weights must be finite, but {count} of {first.numel()} "
            f"values of {printable(broken[0])} are NaN or infinite{others}. Use an earlier "
            "checkpoint of the run"
        )
