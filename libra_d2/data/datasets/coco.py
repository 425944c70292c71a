"""COCO-format data sets by the paths of an annotation file and an image folder."""

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

# Name -> annotation file, image folder and loader, of the data sets that are registered here.
_registered: Dict[str, Tuple[str, str, Callable[..., List[Dict[str, Any]]]]] = {}

# Why annotations are left out.
UNKNOWN_IMAGE = "annotations of images that the file does not list"
NO_POLYGON = "annotations without a polygon of three points or a mask that can be used"
NOT_FINITE = "boxes with NaN or infinity"
NO_AREA = "boxes without area"
OUTSIDE = "boxes outside of their image"
OTHER_CLASS = "objects of classes that DATASETS.CLASS_NAMES does not name"


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
    register_annotations(name, json_file, image_root)
    return name


def register_annotations(
    name: str,
    json_file: str,
    image_root: str,
    load: Optional[Callable[..., List[Dict[str, Any]]]] = None,
    class_names: Sequence[str] = (),
) -> None:
    """Register a COCO file under a name that may be taken already: the file may have changed."""
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
    The file, or a copy of it in `$LIBRA_D2_CACHE` if it begins with a byte order mark: pycocotools
    reads the file once more for the evaluation, and takes plain UTF-8 only.
    """
    with open(json_file, "rb") as f:
        start = f.read(4)
    if json.detect_encoding(start) == "utf-8":
        return json_file
    return save_annotations(read_json(json_file), json_file)


def read_again(name: str, class_names: Sequence[str] = ()) -> None:
    """
    Let a data set of this package be read from its file when it is next asked for.

    Args:
        class_names: the classes to take, as in :func:`load_coco`.
    """
    if name in _registered:
        register_annotations(name, *_registered[name], class_names)


def annotation_file_of(name: str) -> str:
    """
    The annotation file that a data set was registered with, which is not a copy as `json_file` of
    its metadata may be; "" if it has none.
    """
    if name in _registered:
        return _registered[name][0]
    return MetadataCatalog.get(name).get("json_file", "")


def load_coco(
    json_file: str, image_root: str, name: str, class_names: Sequence[str] = ()
) -> List[Dict[str, Any]]:
    """
    Check annotations, and read them by Detectron2's loader.

    What cannot be used is left out, with one warning a reason. Ids go into the metadata:
    `left_out`, reason -> ids of annotations; `invalid_annotation_ids`, those that are no ground
    truth in the evaluation either; `unreadable_images`, (path, reason) of images that a reader of
    another format could not open. Where classes are left out or reordered, `json_file` becomes a
    copy of the file with these alone.

    Args:
        class_names: the classes in their order, selected by name; if empty, all of the file in the
            order of their ids, without Roboflow's dummy category.

    Returns:
        Detectron2's dataset dicts.

    Raises:
        UserError: the file is not in COCO's format, holds no image, or lacks one of the classes.
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
            f"{json_file} holds no usable annotations: {reasons}{_hint_on_ids(data, left_out)}"
        )
    data_info = data.get("info")
    del data
    say_moved(logger, json_file, moved, len(dicts))
    for reason, ids in left_out.items():
        if not ids or reason == OTHER_CLASS:  # `select_classes` has logged those, by class
            continue
        logger.warning(f"{json_file}: left out {count_and_name(len(ids), ids, reason)}")
    if unreadable:
        logger.warning(
            f"{json_file}: left out {len(unreadable)} images that cannot be read, the first is "
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
    As Detectron2's `load_coco_json`, but annotations keep their box whatever their mask is.

    Returns:
        The dicts in the order of the ids of their images, the ids of annotations with a mask that
        cannot be used and of those whose area is not that of the box, and (name, path)
        of images that are found by the end of their name.
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
    return f". The first has the image_id {shown(a)}, the first image has the id {shown(image)}"


def count_and_name(count: int, ids: Sequence[Any], what: str) -> str:
    """Such as "3 boxes without area (annotation ids 5, 8, 9)"; at most five ids."""
    shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
    return f"{count} {what} (annotation ids {shown})"


def _of_unknown_images(data: Dict[str, Any]) -> List[Any]:
    known = {i["id"] for i in data["images"]}
    return [a["id"] for a in data["annotations"] if a["image_id"] not in known]


def _notes(info: Any) -> Tuple[Tuple[str, str, Tuple[str, ...]], ...]:
    """Check, text and examples, as :class:`CocoBuilder` notes what a reader had to decide."""
    notes = info.get("notes") if isinstance(info, dict) else None
    return tuple(
        (str(n["check"]), str(n["text"]), tuple(map(str, n["found"])))
        for n in (notes if isinstance(notes, list) else ())
        if isinstance(n, dict) and {"check", "text", "found"} <= set(n)
    )


def _unreadable_images(data: Dict[str, Any]) -> Tuple[Tuple[str, str], ...]:
    """As :class:`CocoBuilder` notes them."""
    info = data.get("info")
    noted = info.get("unreadable_images") if isinstance(info, dict) else None
    if not isinstance(noted, list):
        return ()
    return tuple((str(e[0]), str(e[1])) for e in noted if isinstance(e, list) and len(e) == 2)


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


def complete_annotations(
    annotations: Iterable[Dict[str, Any]], *, box_areas: bool = True
) -> List[Dict[str, Any]]:
    """
    Copies with what COCO's metrics need, and files made by hand often lack: ids that are numbers
    from 1 on (an object of the id 0 would be taken for missed), `iscrowd` and `area`, which is that
    of the box if there is none, or if `box_areas`.
    """
    ret = []
    for i, annotation in enumerate(annotations, start=1):
        annotation = {"iscrowd": 0, **annotation, "id": i}
        if box_areas or not is_number(annotation.get("area")):
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        ret.append(annotation)
    return ret
