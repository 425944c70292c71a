"""From the `DATASETS` keys of a config to registered data sets and a list of classes."""

import logging
from typing import List, Optional

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..errors import UserError
from .coco import register_coco
from .packed import register_packed
from .proposals import check_proposals
from .shapes import BUILT_IN
from .subset import draw_subset, whole_name

logger = logging.getLogger(__name__)


def setup_datasets(cfg: CfgNode, *, num_classes_given: bool, train: bool = True) -> None:
    """
    Register the data sets that the config names by path, load them once, and settle the classes.

    `DATASETS.{TRAIN,TEST}_{JSON,PACKED}` replace `DATASETS.{TRAIN,TEST}`, and
    `DATASETS.TRAIN_{NUM,DIVIDER}` draw a part of the training data. The class names of the data go
    to `DATASETS.CLASS_NAMES`, their number to `MODEL.ROI_HEADS.NUM_CLASSES` and
    `MODEL.RETINANET.NUM_CLASSES`.

    Args:
        cfg: modified in place.
        num_classes_given: the user's config names the number of classes, which must then fit.
        train: False leaves the training set alone, which need not exist to evaluate.

    Raises:
        UserError: a path is wrong, a file is not COCO, or class names or numbers do not fit.
    """
    data = cfg.DATASETS
    data.TRAIN = tuple(whole_name(name) for name in data.TRAIN)
    if (data.TRAIN_JSON or data.TRAIN_PACKED) and train:
        data.TRAIN = (_register(cfg, "TRAIN"),)
        if not (data.TEST_JSON or data.TEST_PACKED) and data.TEST:
            logger.warning("DATASETS.TEST_JSON is not set: training without evaluation")
            data.TEST = ()
    if data.TEST_JSON or data.TEST_PACKED:
        data.TEST = (_register(cfg, "TEST"),)

    known = {"DATASETS.CLASS_NAMES": list(data.CLASS_NAMES)} if data.CLASS_NAMES else {}
    for name in (*(data.TRAIN if train else ()), *data.TEST):
        classes = _class_names(cfg, name)
        if classes:
            known[_describe(name)] = classes
    if train:
        draw_subset(cfg)
    check_proposals(cfg, train)
    if not known:
        return
    (first, classes), *others = known.items()
    for source, names in others:
        if names != classes:
            raise UserError(f"different classes: {first} has {classes}, {source} has {names}")
    for key in ("ROI_HEADS", "RETINANET"):
        node = cfg.MODEL[key]
        if num_classes_given and key == _head(cfg) and len(classes) != node.NUM_CLASSES:
            raise UserError(
                f"MODEL.{key}.NUM_CLASSES is {node.NUM_CLASSES}, but {first} has {len(classes)} "
                f"classes: {classes}. Leave the key out to take the number from the data"
            )
        node.NUM_CLASSES = len(classes)
    data.CLASS_NAMES = tuple(classes)


def _head(cfg: CfgNode) -> str:
    return "RETINANET" if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE else "ROI_HEADS"


def _register(cfg: CfgNode, split: str) -> str:
    json_file, images = cfg.DATASETS[f"{split}_JSON"], cfg.DATASETS[f"{split}_IMAGES"]
    packed = cfg.DATASETS[f"{split}_PACKED"]
    if packed and json_file:
        raise UserError(
            f"DATASETS.{split}_PACKED {packed} and DATASETS.{split}_JSON {json_file} are both set: "
            "name one of them"
        )
    if packed:
        try:
            return register_packed(packed)
        except UserError as e:
            raise UserError(f"DATASETS.{split}_PACKED: {e}") from None
    if not images:
        raise UserError(f"DATASETS.{split}_IMAGES is not set: name the image folder of {json_file}")
    try:
        return register_coco(json_file, images)
    except UserError as e:
        raise UserError(f"DATASETS.{split}_JSON/_IMAGES: {e}") from None


def _describe(name: str) -> str:
    return MetadataCatalog.get(name).get("json_file", name)


def _class_names(cfg: CfgNode, name: str) -> Optional[List[str]]:
    """Class names of a registered data set, which is loaded for it unless it is built in."""
    if name not in DatasetCatalog.list():
        raise UserError(f"data set {name!r} is not registered with Detectron2")
    metadata = MetadataCatalog.get(name)
    if name in BUILT_IN:
        return metadata.thing_classes
    json_file = metadata.get("json_file")
    if json_file and not PathManager.isfile(json_file):
        raise UserError(f"data set {name}: annotation file {json_file} does not exist")
    _drop_missing_images(cfg, name, DatasetCatalog.get(name))
    return metadata.get("thing_classes")


def _drop_missing_images(cfg: CfgNode, name: str, dicts: List[dict]) -> None:
    """Find missing files before the run, and register the data set without them."""
    missing = [d["file_name"] for d in dicts if not PathManager.isfile(d["file_name"])]
    if missing:
        text = f"{_describe(name)}: {len(missing)} of {len(dicts)} images are missing"
        text += f", the first is {missing[0]}"
        if cfg.DATALOADER.ON_BAD_IMAGE == "stop" or len(missing) == len(dicts):
            raise UserError(text)
        logger.warning(
            f"{text}; they are left out (DATALOADER.ON_BAD_IMAGE is 'skip'), and in an evaluation "
            "their objects count as missed"
        )
        gone = set(missing)
        dicts = [d for d in dicts if d["file_name"] not in gone]
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: dicts)
