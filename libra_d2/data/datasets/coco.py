"""Register and load data sets in COCO format."""

import json
import logging
import os
import zlib
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ...errors import UserError
from ...utils.json_files import read_json
from ...utils.messages import shown
from ...utils.progress import progress
from ..images.names import locate_images, moved_images, say_moved
from .class_selection import dummy_category, save_annotations, select_classes
from .coco_format import read_coco
from .coco_masks import is_number, usable_mask

logger = logging.getLogger(__name__)

# Name of a data set registered here -> annotation file, image folder and loader.
_registered: Dict[str, Tuple[str, str, Callable[..., List[Dict[str, Any]]]]] = {}

# Reasons for leaving out annotations.
UNKNOWN_IMAGE = "annotations of images that the file does not list"
NO_POLYGON = "annotations without a valid mask or a polygon of three points"
NOT_FINITE = "boxes with NaN or infinity"
NO_AREA = "boxes without area"
OUTSIDE = "boxes outside of their image"
OTHER_CLASS = "objects of classes that are not in DATASETS.CLASS_NAMES"


def register_coco(json_file: str, image_root: str) -> str:
    """
    Register a data set in COCO format with Detectron2. Calling this again is allowed.

    Args:
        json_file: annotations in COCO's detection format.
        image_root: folder that the file names of the annotations are relative to.

    Returns:
        The name to put into `DATASETS.TRAIN` or `DATASETS.TEST`.

    Raises:
        UserError: A path does not exist.
    """
    json_file, image_root = os.path.abspath(json_file), os.path.abspath(image_root)
    if not os.path.isfile(json_file):
        raise UserError(f"annotation file {json_file} does not exist")
    if not os.path.isdir(image_root):
        raise UserError(f"image folder {image_root} does not exist")
    stem = os.path.splitext(os.path.basename(json_file))[0]
    name = f"{stem}_{zlib.crc32(f'{json_file}:{image_root}'.encode()):08x}"
    register_annotations(name, json_file, image_root)
    return name


def register_annotations(
    name: str,
    json_file: str,
    image_root: str,
    load: Optional[Callable[..., List[Dict[str, Any]]]] = None,
    class_names: Sequence[str] = (),
) -> None:
    """Register a COCO file. A data set of the same name is replaced: its file may have changed."""
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
    read, classes = load or load_coco, tuple(class_names)
    DatasetCatalog.register(name, lambda: read(json_file, image_root, name, classes))
    MetadataCatalog.get(name).set(
        json_file=_plain_file(json_file), image_root=image_root, evaluator_type="coco"
    )
    _registered[name] = (json_file, image_root, read)


def _plain_file(json_file: str) -> str:
    """
    Return a file that pycocotools can read for the evaluation, which must be plain UTF-8.

    If the file begins with a byte order mark, this is a copy in `$LIBRA_D2_CACHE`.
    """
    with open(json_file, "rb") as f:
        start = f.read(4)
    if json.detect_encoding(start) == "utf-8":
        return json_file
    return save_annotations(read_json(json_file), json_file)


def read_again(name: str, class_names: Sequence[str] = ()) -> None:
    """
    Make Detectron2 read a data set of this package from its file again on the next access.

    Args:
        class_names: the classes to use, see :func:`load_coco`.
    """
    if name in _registered:
        register_annotations(name, *_registered[name], class_names)


def annotation_file_of(name: str) -> str:
    """
    Return the annotation file that a data set was registered with, or "" if there is none.

    In contrast, `json_file` in the metadata may be a copy.
    """
    if name in _registered:
        return _registered[name][0]
    return MetadataCatalog.get(name).get("json_file", "")


def load_coco(
    json_file: str, image_root: str, name: str, class_names: Sequence[str] = ()
) -> List[Dict[str, Any]]:
    """
    Check and load the annotations of a data set. See also Detectron2's `load_coco_json`.

    Annotations that cannot be used are left out, with one warning for each reason. The metadata of
    the data set then has, among others,
    - `left_out`: reason -> annotation ids,
    - `invalid_annotation_ids`: ids of annotations that are not ground truth in the evaluation,
    - `unreadable_images`: (path, reason) of images that could not be read when the annotations
      were converted from another format, and
    - `json_file`: if classes are left out or reordered, a copy with only the selected classes.

    Args:
        json_file: annotations in COCO's detection format.
        image_root: folder that the file names of the annotations are relative to.
        name: name of the data set in `MetadataCatalog`.
        class_names: names of the classes to use, in this order. By default, these are all classes
            in the order of their ids, without Roboflow's dummy category.

    Returns:
        Dicts in Detectron2's standard format.

    Raises:
        UserError: The file is not in COCO's format, has no images or no usable annotations, or
            lacks one of the classes.
    """
    whole = read_coco(json_file)
    data, of_other_classes = select_classes(whole, json_file, class_names)
    if data is not whole:
        MetadataCatalog.get(name).__dict__["json_file"] = save_annotations(data, json_file)
    num_annotations, dummy = len(whole["annotations"]), dummy_category(whole)
    del whole
    left_out = {OTHER_CLASS: of_other_classes, UNKNOWN_IMAGE: _of_unknown_images(data)}
    unreadable = _unreadable_images(data)
    dicts, bad_masks, other_areas, moved = _dataset_dicts(data, image_root)
    categories = sorted(data["categories"], key=lambda c: c["id"])
    invalid = _pop_invalid_boxes(dicts)
    left_out.update(invalid)
    if num_annotations and not any(d["annotations"] for d in dicts):
        reasons = "; ".join(
            count_and_name(len(ids), ids, reason) for reason, ids in left_out.items() if ids
        )
        raise UserError(
            f"{json_file} has no usable annotations: {reasons}{_hint_on_ids(data, left_out)}"
        )
    data_info = data.get("info")
    del data
    say_moved(logger, json_file, moved, len(dicts))
    for reason, ids in left_out.items():
        if not ids or reason == OTHER_CLASS:  # `select_classes` has logged these by class
            continue
        logger.warning(f"{json_file}: left out {count_and_name(len(ids), ids, reason)}")
    if unreadable:
        logger.warning(
            f"{json_file}: left out {len(unreadable)} images that cannot be read. The first is "
            f"{unreadable[0][0]}: {unreadable[0][1]}"
        )
    MetadataCatalog.get(name).set(
        invalid_annotation_ids=tuple(i for ids in invalid.values() for i in ids),
        left_out={reason: tuple(ids) for reason, ids in left_out.items() if ids},
        unreadable_images=unreadable,
        dummy_categories=(dummy["name"],) if dummy and not class_names else (),
        bad_masks=tuple(bad_masks),
        other_areas=tuple(other_areas),
        notes=_notes(data_info),
        found_elsewhere=tuple(moved),
        thing_classes=[c["name"] for c in categories],
        thing_dataset_id_to_contiguous_id={c["id"]: i for i, c in enumerate(categories)},
    )
    return dicts


def _dataset_dicts(data: Dict[str, Any], image_root: str) -> tuple:
    """
    Like Detectron2's `load_coco_json`, convert annotations to dataset dicts. In contrast to it,
    annotations with an invalid mask are kept without the mask.

    Returns:
        The dicts in the order of their image ids; the ids of annotations with an invalid mask; the
        ids of annotations whose area is not that of the box; and (name, path) of images that were
        found by the end of their name.
    """
    indices = {c: i for i, c in enumerate(sorted(c["id"] for c in data["categories"]))}
    of_image: Dict[Any, List[Dict[str, Any]]] = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        if annotation["image_id"] in of_image:
            of_image[annotation["image_id"]].append(annotation)
    found = locate_images([image["file_name"] for image in data["images"]], image_root)
    dicts, bad_masks, other_areas = [], [], []
    images = sorted(data["images"], key=lambda i: i["id"])
    for image in progress(images, "Reading annotations"):
        size = (image["height"], image["width"])
        objects = []
        for a in of_image[image["id"]]:
            obj = {
                "iscrowd": a["iscrowd"],
                "bbox": a["bbox"],
                "category_id": indices[a["category_id"]],
                "id": a["id"],
                "bbox_mode": BoxMode.XYWH_ABS,
            }
            mask = usable_mask(a.get("segmentation"), *size)
            if mask is not None:
                obj["segmentation"] = mask
            elif a.get("segmentation"):
                bad_masks.append(a["id"])
            if mask is None and is_number(a.get("area")):
                area = a["bbox"][2] * a["bbox"][3]
                if abs(a["area"] - area) > 0.05 * abs(area) + 1:
                    other_areas.append(a["id"])
            points = a.get("keypoints")
            if isinstance(points, list) and points and all(is_number(v) for v in points):
                obj["keypoints"] = [v + 0.5 * (i % 3 != 2) for i, v in enumerate(points)]
            objects.append(obj)
        path = found[image["file_name"]]
        dicts.append(
            {
                "file_name": path,
                "height": image["height"],
                "width": image["width"],
                "image_id": image["id"],
                "annotations": objects,
            }
        )
    moved = moved_images(found, image_root)
    return dicts, bad_masks, other_areas, moved


def _hint_on_ids(data: Dict[str, Any], left_out: Dict[str, Any]) -> str:
    if not left_out[UNKNOWN_IMAGE] or not data["annotations"]:
        return ""
    a, image = data["annotations"][0]["image_id"], data["images"][0]["id"]
    return f". The first has the image_id {shown(a)}, and the first image has the id {shown(image)}"


def count_and_name(count: int, ids: Sequence[Any], what: str) -> str:
    """Return e.g. "3 boxes without area (annotation ids 5, 8, 9)", with at most five ids."""
    shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
    return f"{count} {what} (annotation ids {shown})"


def _of_unknown_images(data: Dict[str, Any]) -> List[Any]:
    known = {i["id"] for i in data["images"]}
    return [a["id"] for a in data["annotations"] if a["image_id"] not in known]


def _notes(info: Any) -> Tuple[Tuple[str, str, Tuple[str, ...]], ...]:
    """Return (check, text, examples) of the notes that :class:`CocoBuilder` wrote."""
    notes = info.get("notes") if isinstance(info, dict) else None
    return tuple(
        (str(n["check"]), str(n["text"]), tuple(map(str, n["found"])))
        for n in (notes if isinstance(notes, list) else ())
        if isinstance(n, dict) and {"check", "text", "found"} <= set(n)
    )


def _unreadable_images(data: Dict[str, Any]) -> Tuple[Tuple[str, str], ...]:
    """Return (path, reason) of the unreadable images that :class:`CocoBuilder` wrote."""
    info = data.get("info")
    noted = info.get("unreadable_images") if isinstance(info, dict) else None
    if not isinstance(noted, list):
        return ()
    return tuple((str(e[0]), str(e[1])) for e in noted if isinstance(e, list) and len(e) == 2)


def box_faults(boxes: np.ndarray, sizes: np.ndarray) -> List[str]:
    """
    Find boxes that cover no pixel of their image.

    Args:
        boxes: (N, 4), XYWH in absolute pixels.
        sizes: (N, 2), width and height of each box's image.

    Returns:
        The fault of each box: `NOT_FINITE`, `NO_AREA`, `OUTSIDE`, or "" if it has none.
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
    Return the annotations of a COCO file that count as ground truth.

    These belong to an image of the file and have a box that covers a part of it. Training,
    evaluation, analysis and drawing all use the same annotations.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    annotations = [a for a in content["annotations"] if a["image_id"] in sizes]
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    of_image = np.array([sizes[a["image_id"]] for a in annotations]).reshape(-1, 2)
    return [a for a, fault in zip(annotations, box_faults(boxes, of_image)) if not fault]


def _pop_invalid_boxes(dicts: List[Dict[str, Any]]) -> Dict[str, List[Any]]:
    """Remove boxes that cover no pixel of their image. Return their ids by reason."""
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


def complete_annotations(
    annotations: Iterable[Dict[str, Any]], *, box_areas: bool = True
) -> List[Dict[str, Any]]:
    """
    Return copies of annotations with the keys that COCO's metrics need and that files often lack.

    These are ids that count from 1 (the metrics take an object with id 0 as missed), `iscrowd`, and
    `area`, which is that of the box if it is missing or if `box_areas` is True.
    """
    ret = []
    for i, annotation in enumerate(annotations, start=1):
        annotation = {"iscrowd": 0, **annotation, "id": i}
        if box_areas or not is_number(annotation.get("area")):
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        ret.append(annotation)
    return ret
