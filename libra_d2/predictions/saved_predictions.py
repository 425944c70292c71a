"""
Predictions of an evaluation on disk, with a record of what they were made from.

The record tells whether predictions can be used again. Both are in the folder of an evaluation:
`coco_instances_results.json` and `record.json`.
"""

import hashlib
import json
import os
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import GeneralizedRCNNWithTTA
from torch import nn

from ..config.flattening import flat
from ..data.datasets.packed import PREFIX as PACKED
from ..data.datasets.setup import class_names
from ..errors import UserError
from ..utils.files import file_stamp, replacing
from ..utils.json_files import read_json, read_regular_file
from ..utils.package_versions import package_versions

RESULTS = "coco_instances_results.json"
RECORD = "record.json"

# Keys that do not change detections. Weights and data have their own hashes.
_WITHOUT_EFFECT = ("MODEL.WEIGHTS", "MODEL.DEVICE")


def made_by(
    cfg: CfgNode, dataset_name: str, images: Iterable[Dict[str, Any]], model: nn.Module
) -> Dict[str, Any]:
    """
    Record what predictions are made from: weights, data, settings and versions.

    Args:
        cfg: config of the detector.
        dataset_name: name of the data set.
        images: the list of images of its annotations.
        model: the detector with its weights.

    Returns:
        `weights` and `data`, see :func:`weights_hash` and :func:`data_hash`; `config`, see
        :func:`relevant_config`; and `versions` of packages.
    """
    model = getattr(model, "module", model)
    return {
        "weights": weights_hash(model),
        "data": data_hash(dataset_name, images, _proposal_files(cfg)),
        "config": relevant_config(cfg, with_tta=isinstance(model, GeneralizedRCNNWithTTA)),
        "versions": package_versions(),
    }


def weights_hash(model: nn.Module) -> str:
    """Hash all parameters and buffers as they are in memory, whatever file they came from."""
    digest = hashlib.blake2b(digest_size=20)
    for name, value in model.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def data_hash(
    dataset_name: str, images: Iterable[Dict[str, Any]], other_files: Sequence[str] = ()
) -> str:
    """
    Hash the content of the annotation file, and the path, size and time of change of each image and
    of the other files, whose content is not read.
    """
    metadata = MetadataCatalog.get(dataset_name)
    digest = _digest(metadata.json_file)
    root = metadata.get("image_root", "")
    for path in (*_files(root, images), *other_files):
        digest.update(f"{path} {file_stamp(path)}\n".encode())
    return digest.hexdigest()


def _proposal_files(cfg: CfgNode) -> Sequence[str]:
    return cfg.DATASETS.PROPOSAL_FILES_TEST if cfg.MODEL.LOAD_PROPOSALS else ()


def _files(root: str, images: Iterable[Dict[str, Any]]) -> Iterator[str]:
    if root.startswith(PACKED):  # one file holds all images
        yield root[len(PACKED) :]
    else:
        yield from (os.path.join(root, image["file_name"]) for image in images)


def relevant_config(cfg: CfgNode, with_tta: bool = False) -> Dict[str, Any]:
    """
    Return the settings that detections depend on, as a flat dictionary with values of JSON types:
    `MODEL` and `INPUT` (including keys that only training reads), the selection of detections, and
    the classes.
    """
    test, data = cfg.TEST, cfg.DATASETS
    part = {
        "MODEL": cfg.MODEL,
        "INPUT": cfg.INPUT,
        "TEST": {"DETECTIONS_PER_IMAGE": test.DETECTIONS_PER_IMAGE, "NMS": test.NMS},
        "DATASETS": {"CLASS_NAMES": class_names(cfg)},
    }
    if with_tta:
        part["TEST"]["AUG"] = test.AUG
    if cfg.MODEL.LOAD_PROPOSALS:
        for key in ("PROPOSAL_FILES_TEST", "PRECOMPUTED_PROPOSAL_TOPK_TEST"):
            part["DATASETS"][key] = data[key]
    values = {k: v for k, v in flat(part).items() if k not in _WITHOUT_EFFECT}
    return json.loads(json.dumps(values, default=str))


def save_results(folder: str, results: List[Dict[str, Any]]) -> None:
    """Write COCO results to the folder."""
    os.makedirs(folder, exist_ok=True)
    _write_json(os.path.join(folder, RESULTS), results)


def save_record(
    folder: str, made_by: Dict[str, Any], *, num_images: int, unreadable: Sequence[str]
) -> None:
    """
    Write the record of the results in the folder, with their hash.

    Args:
        folder: folder of the results.
        made_by: see :func:`made_by`.
        num_images: number of images, including those that could not be read.
        unreadable: file names of the images that could not be read.
    """
    record = {
        **made_by,
        "predictions": _file_hash(os.path.join(folder, RESULTS)),
        "num_images": num_images,
        "unreadable": list(unreadable),
    }
    _write_json(os.path.join(folder, RECORD), record, indent=1)


def _write_json(path: str, content: Any, **kwargs: Any) -> None:
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as f:
        f.write(json.dumps(content, **kwargs))


def why_not_reusable(folder: str, made_by: Dict[str, Any]) -> str:
    """
    Return why the results in the folder are not those that `made_by` would give, or "" if they are.
    """
    path, results = os.path.join(folder, RECORD), os.path.join(folder, RESULTS)
    for file in (path, results):
        if not os.path.exists(file):
            return f"there is no {file}"
    try:
        record = read_json(path)
        file_hash = hashlib.blake2b(read_regular_file(results), digest_size=20).hexdigest()
    except UserError as e:
        return str(e)
    if not _is_record(record):
        return f"{path} is not a record of predictions"
    if record["predictions"] != file_hash:
        return f"{RESULTS} was changed after its record was written"
    for what, text in (("weights", "the weights"), ("data", "annotations or images")):
        if record.get(what) != made_by[what]:
            return f"{text} have changed"
    for part in ("config", "versions"):
        why = _difference(record.get(part), made_by[part])
        if why:
            return why
    return ""


def _is_record(record: Any) -> bool:
    unreadable = record.get("unreadable") if isinstance(record, dict) else None
    return (
        isinstance(unreadable, list)
        and all(isinstance(name, str) for name in unreadable)
        and isinstance(record.get("predictions"), str)
    )


def _difference(old: Any, new: Dict[str, Any]) -> str:
    old = old if isinstance(old, dict) else {}
    keys = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    others = f", and {len(keys) - 1} others" if len(keys) > 1 else ""
    if not keys:
        return ""
    return f"{keys[0]} was {old.get(keys[0])!r} and is now {new.get(keys[0])!r}{others}"


def weights_of(path: str) -> str:
    """
    Return the hash of the weights that made predictions, see :func:`weights_hash`, or "" if no
    record next to the file says so.
    """
    file = os.path.join(os.path.dirname(path), RECORD)
    if os.path.basename(path) != RESULTS or not os.path.isfile(file):
        return ""
    record = read_json(file)
    if not _is_record(record) or record["predictions"] != _file_hash(path):
        return ""
    weights = record.get("weights")
    return weights if isinstance(weights, str) else ""


def read_saved(folder: str) -> Tuple[List[Dict[str, Any]], List[str]]:
    """
    Read the COCO results of a folder, and the file names of images that could not be read.

    Raises:
        UserError: the files are not as :func:`save_results` and :func:`save_record` write them.
    """
    path = os.path.join(folder, RESULTS)
    results, record = read_json(path), read_json(os.path.join(folder, RECORD))
    keys = {"image_id", "category_id", "score"}
    if not isinstance(results, list) or not all(
        isinstance(r, dict) and keys <= r.keys() for r in results
    ):
        raise UserError(f"{path} must contain COCO results. Evaluate the detector again")
    if not _is_record(record):
        raise UserError(
            f"{os.path.join(folder, RECORD)} must be a record of predictions. Evaluate the "
            "detector again"
        )
    return results, record["unreadable"]


def _file_hash(path: str) -> str:
    return _digest(path).hexdigest()


def _digest(path: str):
    """Hash the content of a file. More can be added to the digest."""
    digest = hashlib.blake2b(digest_size=20)
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest
