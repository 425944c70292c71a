"""
Folds of a training set for cross-validation. Each is the test set of the runs that are trained on
the others.
"""

import json
import os
import tempfile
from typing import Any, Dict, List, Tuple

from ..data.splitting.coco_split import split_dataset
from ..errors import UserError
from ..utils.files import make_folder_of, replacing
from ..utils.json_files import read_json
from ..utils.messages import shown

RECORD = "folds.json"
_SEED = 0  # of the division, which is the same for all seeds of the experiment


def make_folds(data: str, folds: int, group: str, folder: str) -> None:
    """
    Divide a data set into folds with the same share of each class, and write for each of them
    `fold<K>/train.json` with the images of the other folds, and `fold<K>/test.json`. The record
    `folds.json` is written last. If it is there already, nothing is done.

    Args:
        data: name or description of one data set, as in `DATASETS.TRAIN`.
        folds: number of folds, at least 2.
        group: see :class:`~.design.Design`.

    Raises:
        UserError: the data set cannot be read, or has too few images or groups.
    """
    if os.path.isfile(os.path.join(folder, RECORD)):
        return
    if data[:1] in ("(", "["):
        raise UserError(f"--folds divides one data set, got --train {shown(data)}. Name one")
    names = [f"fold{k}" for k in range(1, folds + 1)]
    with tempfile.TemporaryDirectory(prefix="libra_d2-folds-") as scratch:
        split = split_dataset(
            data,
            scratch,
            dict.fromkeys(names, 1 / folds),
            seed=_SEED,
            group_by=group,
            near_duplicates=False,
        )
        parts = {name: read_json(path) for name, path in split.files.items()}
    for name in names:
        others = [part for other, part in parts.items() if other != name]
        _write(os.path.join(folder, name, "train.json"), _joined(others))
        _write(os.path.join(folder, name, "test.json"), parts[name])
    kept = ("num_images", "num_groups", "largest_group", "parts", "classes", "notes")
    record = {key: split.record[key] for key in kept}
    images = os.path.abspath(split.images)
    _write(os.path.join(folder, RECORD), {"data": data, "images": images, **record})


def fold_data(folder: str, fold: int) -> Tuple[str, str]:
    """
    Return the values of `DATASETS.TRAIN` and `DATASETS.TEST` for a fold.

    Args:
        folder: as for :func:`make_folds`, which has been called.
        fold: counted from 1.
    """
    images = read_json(os.path.join(folder, RECORD))["images"]
    train, test = (
        f"coco:{os.path.join(folder, f'fold{fold}', part)}.json,{images}"
        for part in ("train", "test")
    )
    return train, test


def _joined(parts: List[Dict[str, Any]]) -> Dict[str, Any]:
    """One data set with the images and annotations of all parts."""
    both = ("images", "annotations")
    return {**parts[0], **{key: [item for part in parts for item in part[key]] for key in both}}


def _write(path: str, content: Dict[str, Any]) -> None:
    make_folder_of(path)
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file)
