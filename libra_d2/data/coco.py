"""COCO-format data sets by the paths of an annotation file and an image folder."""

import contextlib
import io
import json
import logging
import os
import zlib
from typing import Any, Dict, List

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ..errors import UserError

logger = logging.getLogger(__name__)


def register_coco(json_file: str, image_root: str) -> str:
    """
    Register a COCO-format data set with Detectron2, once, and check its paths.

    Args:
        json_file: annotations in COCO's detection format.
        image_root: folder that the file names of the annotations are relative to.

    Returns:
        The name to put into `DATASETS.TRAIN` or `DATASETS.TEST`.

    Raises:
        UserError: a path does not exist.
    """
    json_file, image_root = os.path.abspath(json_file), os.path.abspath(image_root)
    if not os.path.isfile(json_file):
        raise UserError(f"annotation file {json_file} does not exist")
    if not os.path.isdir(image_root):
        raise UserError(f"image folder {image_root} does not exist")
    stem = os.path.splitext(os.path.basename(json_file))[0]
    name = f"{stem}_{zlib.crc32(f'{json_file}:{image_root}'.encode()):08x}"
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, lambda: load_coco(json_file, image_root, name))
        MetadataCatalog.get(name).set(
            json_file=json_file, image_root=image_root, evaluator_type="coco"
        )
    return name


def load_coco(json_file: str, image_root: str, name: str) -> List[Dict[str, Any]]:
    """
    Read annotations by Detectron2's loader, and check them.

    Boxes without area or wholly outside of their image are left out, with one warning that names
    them; their ids are kept in the metadata (`invalid_annotation_ids`) for the evaluation.

    Returns:
        Detectron2's dataset dicts.

    Raises:
        UserError: the file is not in COCO's format, or holds no image.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            dicts = load_coco_json(json_file, image_root, name, extra_annotation_keys=["id"])
        invalid = _pop_invalid_boxes(dicts)
    except Exception as e:
        raise UserError(_why_not_coco(json_file) or f"{json_file}: {e!r}") from e
    if not any(d["annotations"] for d in dicts):
        reason = "holds no images" if not dicts else "holds no usable annotations"
        raise UserError(_why_not_coco(json_file) or f"{json_file} {reason}")
    if invalid:
        shown = ", ".join(map(str, invalid[:5])) + (", ..." if len(invalid) > 5 else "")
        logger.warning(
            f"{json_file}: left out {len(invalid)} boxes without area or outside of their image "
            f"(annotation ids {shown})"
        )
    MetadataCatalog.get(name).set(invalid_annotation_ids=tuple(invalid))
    return dicts


def _pop_invalid_boxes(dicts: List[Dict[str, Any]]) -> List[int]:
    """Remove boxes that cover no pixel of their image, and return their annotation ids."""
    invalid = []
    for record in dicts:
        boxes = np.array([a["bbox"] for a in record["annotations"]], dtype=np.float64)
        boxes = boxes.reshape(-1, 4)
        start = np.clip(boxes[:, :2], 0, (record["width"], record["height"]))
        end = np.clip(boxes[:, :2] + boxes[:, 2:], 0, (record["width"], record["height"]))
        valid = (end - start > 0).all(1)  # False for NaN, too
        if not valid.all():
            invalid += [a["id"] for a, v in zip(record["annotations"], valid) if not v]
            record["annotations"] = [a for a, v in zip(record["annotations"], valid) if v]
    return invalid


def _why_not_coco(json_file: str) -> str:
    """What is wrong with the file, or an empty string if that is not clear."""
    try:
        with open(json_file, encoding="utf-8") as f:
            data = json.load(f)
    except (OSError, ValueError) as e:
        return f"{json_file} is not a JSON file: {e}"
    wanted = {
        "images": ("id", "file_name", "width", "height"),
        "categories": ("id", "name"),
        "annotations": ("id", "image_id", "category_id", "bbox"),
    }
    for section, keys in wanted.items():
        if not isinstance(data, dict) or not isinstance(data.get(section), list):
            return f"{json_file} is not a COCO annotation file: it has no list {section!r}"
        for i, entry in enumerate(data[section]):
            missing = [k for k in keys if not isinstance(entry, dict) or k not in entry]
            if missing:
                return f"{json_file} is not a COCO annotation file: {section}[{i}] lacks {missing}"
    known = {
        "image_id": {i["id"] for i in data["images"]},
        "category_id": {c["id"] for c in data["categories"]},
    }
    for i, annotation in enumerate(data["annotations"]):
        for key, ids in known.items():
            if annotation[key] not in ids:
                return f"{json_file}: annotations[{i}] has the unknown {key} {annotation[key]!r}"
        try:
            is_box = np.array(annotation["bbox"], dtype=np.float64).shape == (4,)
        except (TypeError, ValueError):
            is_box = False
        if not is_box:
            return (
                f"{json_file}: annotations[{i}] has the bbox {annotation['bbox']!r}, not 4 numbers"
            )
    return ""
