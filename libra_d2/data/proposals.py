"""Precomputed proposals, in the `.pkl` files that Detectron2 reads for Fast R-CNN."""

import os
from typing import Any, Dict, List

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ..checkpoint.safe_pickle import load_pkl
from ..errors import UserError
from ..local_paths import local_path


def check_proposals(cfg: CfgNode, train: bool = True) -> None:
    """
    Check `DATASETS.PROPOSAL_FILES_{TRAIN,TEST}` before Detectron2 reads them, if the model wants
    them: there is one for each data set, no code is in it, and it covers all images.

    Raises:
        UserError: one of these does not hold.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        return
    for split in ("TRAIN", "TEST") if train else ("TEST",):
        names, files = cfg.DATASETS[split], cfg.DATASETS[f"PROPOSAL_FILES_{split}"]
        key = f"DATASETS.PROPOSAL_FILES_{split}"
        if len(names) != len(files):
            raise UserError(
                f"MODEL.LOAD_PROPOSALS is True, but {key} names {len(files)} files for "
                f"{len(names)} data sets. `libra-d2 proposals` makes them"
            )
        for name, file in zip(names, files):
            _check_file(key, file, name, DatasetCatalog.get(name))


def _check_file(key: str, file: str, name: str, dicts: List[Dict[str, Any]]) -> None:
    if not os.path.isfile(local_path(file, key)):
        raise UserError(f"{key}: {file} does not exist. `libra-d2 proposals` makes it")
    content = load_pkl(file)
    ids = {"ids", "indexes"} & set(content) if isinstance(content, dict) else ()
    if not ids or not {"objectness_logits", "scores"} & set(content) or "boxes" not in content:
        raise UserError(
            f"{key}: {file} holds no proposals: it needs the keys ids, boxes and objectness_logits"
        )
    known = {str(i) for i in content[ids.pop()]}
    missing = [d["file_name"] for d in dicts if str(d["image_id"]) not in known]
    if missing:
        raise UserError(
            f"{key}: {file} has no proposals for {len(missing)} of {len(dicts)} images of {name}, "
            f"the first is {missing[0]}. Make the file anew for these images"
        )
