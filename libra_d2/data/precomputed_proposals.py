"""
Read precomputed proposals, in the `.pkl` files of Detectron2's Fast R-CNN.

Detectron2's own reader is not used, because it unpickles the files, which may run code in them.
"""

import os
from typing import Any, Dict, List, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts
from detectron2.structures import BoxMode

from ..checkpoint.safe_pickle import load_pkl
from ..errors import UserError
from ..utils.local_paths import local_path


def check_proposals(cfg: CfgNode, train: bool = True) -> None:
    """
    Check `DATASETS.PROPOSAL_FILES_{TRAIN,TEST}` before anything is built, if the model uses them.

    There must be a file for each data set. It must contain no code, and have proposals for all
    images.

    Raises:
        UserError: One of these conditions is not met.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        return
    for split in ("TRAIN", "TEST") if train else ("TEST",):
        names, files = cfg.DATASETS[split], cfg.DATASETS[f"PROPOSAL_FILES_{split}"]
        key = f"DATASETS.PROPOSAL_FILES_{split}"
        if len(names) != len(files):
            raise UserError(
                f"MODEL.LOAD_PROPOSALS is True, but {key} names {len(files)} files for "
                f"{len(names)} data sets. Create them with `libra-d2 proposals`"
            )
        for name, file in zip(names, files):
            _with_proposals(DatasetCatalog.get(name), file, key, name)


def dataset_dicts(
    cfg: CfgNode, split: str, names: Sequence[str] = (), **options: Any
) -> List[Dict[str, Any]]:
    """
    Like Detectron2's `get_detection_dataset_dicts`, load the records of data sets; in addition, add
    the precomputed proposals that the config names.

    Args:
        split: "TRAIN" or "TEST".
        names: data sets of that split; by default all.
        options: for `get_detection_dataset_dicts`.

    Raises:
        UserError: A file of proposals cannot be used.
    """
    names = list(names or cfg.DATASETS[split])
    if not cfg.MODEL.LOAD_PROPOSALS:
        return get_detection_dataset_dicts(names, **options)
    key = f"DATASETS.PROPOSAL_FILES_{split}"
    files = dict(zip(cfg.DATASETS[split], cfg.DATASETS[f"PROPOSAL_FILES_{split}"]))
    dicts: List[Dict[str, Any]] = []
    for name in names:
        records = get_detection_dataset_dicts([name], **options)
        dicts += _with_proposals(records, files[name], key, name)
    return dicts


def _with_proposals(
    dicts: List[Dict[str, Any]], file: str, key: str, name: str
) -> List[Dict[str, Any]]:
    if not os.path.isfile(local_path(file, key)):
        raise UserError(f"{key}: {file} does not exist. Create it with `libra-d2 proposals`")
    content = load_pkl(file)
    ids = {"ids", "indexes"} & set(content) if isinstance(content, dict) else ()
    if not ids or not {"objectness_logits", "scores"} & set(content) or "boxes" not in content:
        raise UserError(
            f"{key}: {file} must have the keys ids, boxes and objectness_logits of proposals"
        )
    scores = content.get("objectness_logits", content.get("scores"))
    known = {str(image_id): i for i, image_id in enumerate(content[ids.pop()])}
    missing = [d["file_name"] for d in dicts if str(d["image_id"]) not in known]
    if missing:
        raise UserError(
            f"{key}: {file} has no proposals for {len(missing)} of {len(dicts)} images of {name}. "
            f"The first is {missing[0]}. Run `libra-d2 proposals` again for this data set"
        )
    mode = BoxMode(content.get("bbox_mode", BoxMode.XYXY_ABS))
    ret = []
    for record in dicts:
        boxes, logits = (
            np.asarray(v[known[str(record["image_id"])]]) for v in (content["boxes"], scores)
        )
        if boxes.shape != (len(logits), 4) or logits.ndim != 1:
            raise UserError(
                f"{key}: {file} must have boxes of shape (N, 4) and scores of shape (N,), got "
                f"{boxes.shape} and {logits.shape} for {record['file_name']}"
            )
        best_first = logits.argsort()[::-1]
        ret.append(
            {
                **record,
                "proposal_boxes": boxes[best_first],
                "proposal_objectness_logits": logits[best_first],
                "proposal_bbox_mode": mode,
            }
        )
    return ret
