"""COCO-format data sets by the paths of an annotation file and an image folder."""

import contextlib
import io
import logging
import os
import zlib
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ..errors import UserError
from .coco_format import read_coco

logger = logging.getLogger(__name__)

# Why annotations are left out.
UNKNOWN_IMAGE = "annotations of images that the file does not list"
NO_POLYGON = "annotations without a polygon of three points"
NOT_FINITE = "boxes with NaN or infinity"
NO_AREA = "boxes without area"
OUTSIDE = "boxes outside of their image"


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
    Check annotations, and read them by Detectron2's loader.

    What cannot be used is left out, with one warning a reason. Ids go into the metadata:
    `left_out`, reason -> ids of annotations; `invalid_annotation_ids`, those that are no ground
    truth in the evaluation either; `unreadable_images`, (path, reason) of images that a reader of
    another format could not open.

    Returns:
        Detectron2's dataset dicts.

    Raises:
        UserError: the file is not in COCO's format, or holds no image.
    """
    data = read_coco(json_file)
    annotation_ids = [a["id"] for a in data["annotations"]]
    left_out = {UNKNOWN_IMAGE: _of_unknown_images(data)}
    unreadable = _unreadable_images(data)
    del data  # before the loader reads the file once more
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            dicts = load_coco_json(json_file, image_root, name, extra_annotation_keys=["id"])
    except Exception as e:  # masks and keypoints may be wrong, too
        raise UserError(f"{json_file}: {' '.join(str(e).split()) or repr(e)}") from e
    loaded = {a["id"] for d in dicts for a in d["annotations"]}
    skipped = loaded.union(left_out[UNKNOWN_IMAGE])
    left_out[NO_POLYGON] = [i for i in annotation_ids if i not in skipped]
    invalid = _pop_invalid_boxes(dicts)
    left_out.update(invalid)
    if not any(d["annotations"] for d in dicts):
        raise UserError(f"{json_file} holds no usable annotations")
    left_out = {reason: tuple(ids) for reason, ids in left_out.items() if ids}
    for reason, ids in left_out.items():
        logger.warning(f"{json_file}: left out {count_and_name(len(ids), ids, reason)}")
    if unreadable:
        logger.warning(
            f"{json_file}: left out {len(unreadable)} images that cannot be read, the first is "
            f"{unreadable[0][0]}: {unreadable[0][1]}"
        )
    MetadataCatalog.get(name).set(
        invalid_annotation_ids=tuple(i for ids in invalid.values() for i in ids),
        left_out=left_out,
        unreadable_images=unreadable,
    )
    return dicts


def count_and_name(count: int, ids: Sequence[Any], what: str) -> str:
    """Such as "3 boxes without area (annotation ids 5, 8, 9)"; at most five ids."""
    shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
    return f"{count} {what} (annotation ids {shown})"


def _of_unknown_images(data: Dict[str, Any]) -> List[Any]:
    known = {i["id"] for i in data["images"]}
    return [a["id"] for a in data["annotations"] if a["image_id"] not in known]


def _unreadable_images(data: Dict[str, Any]) -> Tuple[Tuple[str, str], ...]:
    """As :class:`CocoBuilder` notes them."""
    info = data.get("info")
    return tuple(map(tuple, info.get("unreadable_images", ()))) if isinstance(info, dict) else ()


def box_faults(boxes: np.ndarray, sizes: np.ndarray) -> List[str]:
    """
    Why boxes cover no pixel of their image.

    Args:
        boxes: (N, 4), XYWH in absolute pixels.
        sizes: (N, 2), width and height of the image of each.

    Returns:
        For each box `NOT_FINITE`, `NO_AREA`, `OUTSIDE`, or "".
    """
    finite = np.isfinite(boxes).all(1)
    has_area = (boxes[:, 2:] > 0).all(1)
    start = np.clip(boxes[:, :2], 0, sizes)
    end = np.clip(boxes[:, :2] + boxes[:, 2:], 0, sizes)
    inside = (end - start > 0).all(1)
    faults = ((~finite, NOT_FINITE), (~has_area, NO_AREA), (~inside, OUTSIDE))
    return np.select([f for f, _ in faults], [reason for _, reason in faults], "").tolist()


def usable_annotations(content: Dict[str, Any]) -> List[Dict[str, Any]]:
    """
    The ground truth of a COCO annotation file: what is of its images, with a box that covers a part
    of its image. Training, evaluation, analysis and drawing leave out the same.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    annotations = [a for a in content["annotations"] if a["image_id"] in sizes]
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    of_image = np.array([sizes[a["image_id"]] for a in annotations]).reshape(-1, 2)
    return [a for a, fault in zip(annotations, box_faults(boxes, of_image)) if not fault]


def _pop_invalid_boxes(dicts: List[Dict[str, Any]]) -> Dict[str, List[Any]]:
    """Remove boxes that cover no pixel of their image, and return their ids by reason."""
    reasons: Dict[str, List[Any]] = {NOT_FINITE: [], NO_AREA: [], OUTSIDE: []}
    for record in dicts:
        boxes = np.array([a["bbox"] for a in record["annotations"]], dtype=np.float64)
        boxes = boxes.reshape(-1, 4)
        sizes = np.full((len(boxes), 2), (record["width"], record["height"]))
        faults = box_faults(boxes, sizes)
        for annotation, fault in zip(record["annotations"], faults):
            if fault:
                reasons[fault].append(annotation["id"])
        record["annotations"] = [a for a, f in zip(record["annotations"], faults) if not f]
    return reasons
