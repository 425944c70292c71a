"""Train on a part of the data, for quick trials: `DATASETS.TRAIN_NUM` and `TRAIN_DIVIDER`."""

import logging
import re
from typing import List

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations

from ...errors import UserError

logger = logging.getLogger(__name__)


def draw_subset(cfg: CfgNode) -> None:
    """
    Draw a part of the training images, and register it in place of `DATASETS.TRAIN`.

    The number of images is `TRAIN_NUM`, or that of all images if it is 0, divided by
    `TRAIN_DIVIDER`. They are drawn from all training sets together. With
    `DATALOADER.FILTER_EMPTY_ANNOTATIONS`, only images with objects are drawn. The draw depends only
    on `SEED` (0 if it is negative), so that all processes and a resumed run use the same images.
    Their order is that of the data.

    Raises:
        UserError: A key is out of range, or no image is left.
    """
    data = cfg.DATASETS
    if data.TRAIN_NUM < 0:
        raise UserError(
            f"DATASETS.TRAIN_NUM must be at least 0, got {data.TRAIN_NUM}. 0 uses all images"
        )
    if data.TRAIN_DIVIDER < 1:
        raise UserError(
            f"DATASETS.TRAIN_DIVIDER must be at least 1, got {data.TRAIN_DIVIDER}. "
            "1 uses all images"
        )
    if not data.TRAIN_NUM and data.TRAIN_DIVIDER == 1:
        return
    parts = [DatasetCatalog.get(name) for name in data.TRAIN]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        parts = [filter_images_with_only_crowd_annotations(dicts) for dicts in parts]
    total = sum(len(dicts) for dicts in parts)
    number = min(data.TRAIN_NUM or total, total) // data.TRAIN_DIVIDER
    if not number:
        raise UserError(
            f"DATASETS.TRAIN_NUM {data.TRAIN_NUM} and DATASETS.TRAIN_DIVIDER {data.TRAIN_DIVIDER} "
            f"leave none of the {total} training images"
        )
    drawn = np.zeros(total, dtype=bool)
    rng = np.random.default_rng(max(cfg.SEED, 0))
    drawn[rng.permutation(total)[:number]] = True
    keeps_of_parts = np.split(drawn, np.cumsum([len(dicts) for dicts in parts])[:-1])
    for keeps in keeps_of_parts:
        if keeps.size and not keeps.any():  # Detectron2 does not accept an empty data set
            keeps[rng.integers(keeps.size)] = True
    data.TRAIN = tuple(
        _register(name, [d for d, keep in zip(dicts, keeps) if keep], len(dicts))
        for name, dicts, keeps in zip(data.TRAIN, parts, keeps_of_parts)
    )
    logger.info(
        f"Training on {drawn.sum()} of {total} images, drawn at random: {', '.join(data.TRAIN)}"
    )


def whole_name(name: str) -> str:
    """Return the name of the data set from which a part was drawn, given the name of the part."""
    return re.sub(r"@\d+of\d+$", "", name)


def _register(name: str, dicts: List[dict], total: int) -> str:
    part = f"{name}@{len(dicts)}of{total}"
    if part in DatasetCatalog.list():
        DatasetCatalog.remove(part)
        MetadataCatalog.remove(part)
    DatasetCatalog.register(part, lambda: dicts)
    metadata = MetadataCatalog.get(name).as_dict()
    MetadataCatalog.get(part).set(**{k: v for k, v in metadata.items() if k != "name"})
    return part
