"""Register the data sets of a config, and determine the classes."""

import logging
import os
import textwrap
from typing import List, Optional, Sequence, Tuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from ...config.detectors import head_name, uses_federated_loss
from ...errors import UserError
from ...utils.local_paths import local_path
from ...utils.messages import printable
from ..images.names import places_looked_at
from ..images.packed_store import PREFIX as PACKED
from ..images.reader import is_image_file
from ..precomputed_proposals import check_proposals
from .coco import NO_POLYGON, count_and_name, read_again
from .descriptions import description_of, kind_of, register_descriptions
from .shapes import BUILT_IN
from .subset import draw_subset, whole_name

logger = logging.getLogger(__name__)

_DEFAULT_TEST = ("coco_2017_val",)  # of configs/Base-Libra-RCNN-FPN.yaml


def setup_datasets(cfg: CfgNode, *, num_classes_given: bool, train: bool = True) -> None:
    """
    Register the data sets of a config, load them, and determine the classes.

    Descriptions in `DATASETS.TRAIN` and `DATASETS.TEST` are replaced by the registered names
    (:func:`with_descriptions` undoes this). A `DATASETS.TEST` that the base config has set becomes
    empty if the training data is the user's own. If `DATASETS.TRAIN_{NUM,DIVIDER}` are set, a part
    of the training data is drawn. `DATASETS.CLASS_NAMES` selects and orders the classes by name;
    without it, all data sets must have the same classes. :func:`class_names` returns them, and
    their number is set as `MODEL.ROI_HEADS.NUM_CLASSES` and `MODEL.RETINANET.NUM_CLASSES`.

    Args:
        cfg: modified in place.
        num_classes_given: whether the user's config sets the number of classes, which must then be
            that of the data.
        train: whether to set up the training sets as well. For evaluation, they need not exist.

    Raises:
        UserError: A path is wrong, a file is not in COCO's format, or the names or the number of
            the classes do not match.
    """
    data = cfg.DATASETS
    data.TRAIN = tuple(whole_name(name) for name in data.TRAIN)
    trains_on_own_data = train and any(map(kind_of, data.TRAIN))
    splits = ("TRAIN", "TEST") if train else ("TEST",)
    folder = os.path.join(cfg.OUTPUT_DIR, "datasets")
    names = register_descriptions(
        {f"DATASETS.{split}": data[split] for split in splits}, folder, data.CLASS_NAMES
    )
    for split in splits:
        data[split] = names[f"DATASETS.{split}"]
    if trains_on_own_data and tuple(data.TEST) == _DEFAULT_TEST:
        data.TEST = ()  # training says so: see libra_d2.engine.run_summary

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
    for source, theirs in others:
        if theirs != classes:
            raise UserError(
                f"different classes: {first} has {classes}, {source} has {theirs}. "
                "Set DATASETS.CLASS_NAMES to select and order them by name"
            )
    for key in ("ROI_HEADS", "RETINANET"):
        node = cfg.MODEL[key]
        if num_classes_given and key == head_name(cfg) and len(classes) != node.NUM_CLASSES:
            raise UserError(
                f"MODEL.{key}.NUM_CLASSES must be {len(classes)}, got {node.NUM_CLASSES}: {first} "
                f"has the classes {classes}. Leave the key out to take the number from the data"
            )
        node.NUM_CLASSES = len(classes)
    ids = _category_ids(classes, [*(data.TRAIN if train else ()), *data.TEST])
    logger.info(textwrap.shorten(f"Classes ({len(classes)}): {', '.join(classes)}", 103))
    logger.debug(f"Classes:\n{_class_table(classes, ids)}")
    if train:
        _require_objects(data.TRAIN)
        if uses_federated_loss(cfg):
            _count_images_of_classes(data.TRAIN, len(classes), cfg)


def _count_images_of_classes(names: Sequence[str], num_classes: int, cfg: CfgNode) -> None:
    """
    Set the metadata `class_image_count` of the training sets, from which Detectron2's federated
    loss weights the classes: the number of images with an object of the class, in all of the sets.
    """
    counts = [0] * num_classes
    for name in names:
        for d in DatasetCatalog.get(name):
            for k in {a["category_id"] for a in d.get("annotations", ())}:
                counts[k] += 1
    wanted = cfg.MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES
    present = sum(count > 0 for count in counts)
    if wanted > present:
        raise UserError(
            f"MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES must be at most {present}, the number of "
            f"classes with objects in the training set, got {wanted}"
        )
    of_classes = [{"id": k, "image_count": count} for k, count in enumerate(counts)]
    for name in names:
        # Not `set`, which refuses another value in a later set-up of the same process.
        MetadataCatalog.get(name).__dict__["class_image_count"] = of_classes


def with_descriptions(cfg: CfgNode) -> CfgNode:
    """
    Return a copy of a config to save: with the descriptions of data sets instead of their
    registered names, and with the names of the classes, so that it can be used without the data.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.CLASS_NAMES = class_names(cfg)
    for split in ("TRAIN", "TEST"):
        cfg.DATASETS[split] = tuple(map(description_of, cfg.DATASETS[split]))
    return cfg


def class_names(cfg: CfgNode) -> Tuple[str, ...]:
    """
    Return the names of the classes in the order of the model's outputs.

    These are `DATASETS.CLASS_NAMES`, or by default those of the config's registered data sets.
    """
    if not cfg.DATASETS.CLASS_NAMES:
        for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
            if name in DatasetCatalog.list():
                classes = MetadataCatalog.get(name).get("thing_classes")
                if classes:
                    return tuple(classes)
    return tuple(cfg.DATASETS.CLASS_NAMES)


def category_ids(cfg: CfgNode) -> Tuple[int, ...]:
    """
    Return the category id of each class in the registered data sets of the config, or () if they
    do not have one for each class.
    """
    ids = _category_ids(class_names(cfg), [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    return tuple(ids_of_class[0] for ids_of_class in ids) if all(ids) else ()


def _category_ids(classes: Sequence[str], names: Sequence[str]) -> List[List[int]]:
    """Return the category ids of each class in the data sets, in the order of the data sets."""
    ids: List[List[int]] = [[] for _ in classes]
    for name in dict.fromkeys(names):
        metadata = MetadataCatalog.get(name)
        if list(metadata.get("thing_classes") or ()) != list(classes):
            continue  # of a split that was not set up
        mapping = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        for category_id, index in mapping.items():
            if category_id not in ids[index]:
                ids[index].append(category_id)
    return ids


def _class_table(classes: Sequence[str], ids: Sequence[Sequence[int]]) -> str:
    rows = [(i, c, ", ".join(map(str, ids[i])) or "-") for i, c in enumerate(classes)]
    return tabulate(rows, headers=("index", "class", "category id"), disable_numparse=True)


def _require_objects(names: Sequence[str]) -> None:
    """Check that there is an object to train on. Crowd regions are not used for training."""
    for name in names:
        if name in BUILT_IN:
            return
        dicts = DatasetCatalog.get(name)
        if not all(isinstance(d, dict) and "annotations" in d for d in dicts):
            return
        if any(a.get("iscrowd", 0) == 0 for d in dicts for a in d["annotations"]):
            return
    if names:
        raise UserError(
            f"nothing to train on: {', '.join(map(_describe, names))} has no objects other than "
            "crowd regions"
        )


def _describe(name: str) -> str:
    return MetadataCatalog.get(name).get("json_file", name)


def _class_names(cfg: CfgNode, name: str) -> Optional[List[str]]:
    """Load a registered data set, unless it is built in, and return its class names."""
    if name not in DatasetCatalog.list():
        raise UserError(f"data set {name!r} is not registered with Detectron2")
    metadata = MetadataCatalog.get(name)
    if name in BUILT_IN:
        return metadata.thing_classes
    json_file = metadata.get("json_file")
    if json_file and not os.path.isfile(local_path(json_file, f"data set {name}: json_file")):
        raise UserError(f"data set {name}: annotation file {json_file} does not exist")
    read_again(name, cfg.DATASETS.CLASS_NAMES)
    metadata = MetadataCatalog.get(name)
    dicts = DatasetCatalog.get(name)
    if cfg.MODEL.MASK_ON:
        _drop_bad_masks(name, dicts)
    _drop_missing_images(cfg, name, dicts)
    return metadata.get("thing_classes")


def _drop_bad_masks(name: str, dicts: List[dict]) -> None:
    """Leave out objects with an invalid mask, which a mask model cannot use."""
    metadata = MetadataCatalog.get(name)
    left_out, bad = metadata.get("left_out"), metadata.get("bad_masks", ())
    if left_out is None or not bad:
        return
    gone = set(bad)
    for d in dicts:
        d["annotations"] = [a for a in d["annotations"] if a["id"] not in gone]
    left_out[NO_POLYGON] = bad
    invalid = (*metadata.invalid_annotation_ids, *bad)
    metadata.__dict__["invalid_annotation_ids"] = tuple(dict.fromkeys(invalid))
    logger.warning(f"{_describe(name)}: left out {count_and_name(len(bad), bad, NO_POLYGON)}")
    if not any(d["annotations"] for d in dicts):
        raise UserError(
            f"{_describe(name)} has no usable annotations: MODEL.MASK_ON is True, and there are "
            f"{count_and_name(len(bad), bad, NO_POLYGON)}"
        )


def _drop_missing_images(cfg: CfgNode, name: str, dicts: List[dict]) -> None:
    """Find missing files before the run, and register the data set without them."""
    missing = [d["file_name"] for d in dicts if not is_image_file(d["file_name"])]
    if missing:
        text = f"{_describe(name)}: {len(missing)} of {len(dicts)} images are missing"
        text += f". The first is {printable(missing[0])}"
        root = MetadataCatalog.get(name).get("image_root")
        if root and not root.startswith(PACKED):
            text += f", which was looked for at {places_looked_at(missing[0], root)}"
        if cfg.DATALOADER.ON_BAD_IMAGE == "stop" or len(missing) == len(dicts):
            raise UserError(text)
        MetadataCatalog.get(name).set(missing_images=tuple(missing))
        logger.warning(
            f"{text}. Missing images are left out (DATALOADER.ON_BAD_IMAGE is 'skip'), and in an "
            "evaluation their objects count as missed"
        )
        gone = set(missing)
        dicts = [d for d in dicts if d["file_name"] not in gone]
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: dicts)
