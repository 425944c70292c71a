"""Checks that a file is a COCO annotation file, and says what to fix if it is not."""

from collections import Counter
from numbers import Real
from typing import Any, Dict, List

from ...errors import UserError
from ...utils.json_files import read_json
from ...utils.messages import shown
from ...utils.progress import announced

_SECTIONS = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}


def read_coco(json_file: str) -> Dict[str, Any]:
    """
    Returns:
        The content of the file, in which all that Detectron2 and COCO's metrics need is there, of
        the right type, and named once. Boxes may still be NaN, or cover nothing, and annotations
        may be of images that are not listed.

    Raises:
        UserError: it is not so. The message names the file and the first place.
    """
    data = read_json(json_file)
    with announced(f"Checking {json_file}"):
        why = _why_not_coco(data)
    if why:
        raise UserError(f"{json_file} {why}")
    return data


def _why_not_coco(data: Any) -> str:
    for section, keys in _SECTIONS.items():
        if not isinstance(data, dict) or not isinstance(data.get(section), list):
            return f"is not a COCO annotation file: it has no list {section!r}"
        for i, entry in enumerate(data[section]):
            missing = [k for k in keys if not isinstance(entry, dict) or k not in entry]
            if missing:
                return f"is not a COCO annotation file: {section}[{i}] lacks {missing}"
        why = _why_not_ids(section, [entry["id"] for entry in data[section]])
        if why:
            return why
    if not data["categories"]:
        return "holds no categories"
    if not data["images"]:
        return "holds no images"
    return (
        _why_not_images(data["images"])
        or _why_not_categories(data["categories"])
        or _why_not_annotations(data["annotations"], {c["id"] for c in data["categories"]})
    )


def _why_not_ids(section: str, ids: List[Any]) -> str:
    texts = 0
    for i, value in enumerate(ids):
        if not isinstance(value, (int, float, str)) or value != value:
            return f"is wrong: {section}[{i}] has the id {shown(value)}, not a number or a text"
        texts += isinstance(value, str)
    if texts not in (0, len(ids)):
        return f"is wrong: {texts} of {len(ids)} ids of its {section} are texts, others numbers"
    if len(set(ids)) < len(ids):
        repeated = [value for value, count in Counter(ids).items() if count > 1]
        first = [i for i, value in enumerate(ids) if value == repeated[0]]
        return (
            f"has {len(repeated)} ids that several of its {section} share: "
            f"{section}[{first[0]}] and {section}[{first[1]}] both have the id {shown(repeated[0])}"
        )
    return ""


def _why_not_images(images: List[Dict[str, Any]]) -> str:
    for i, image in enumerate(images):
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            return (
                f"is wrong: images[{i}] has the file_name {shown(image['file_name'])}, not a text"
            )
        for side in ("width", "height"):
            if not isinstance(image[side], Real) or not image[side] > 0:
                value = shown(image[side])
                return f"is wrong: images[{i}] has the {side} {value}, not a positive number"
    return ""


def _why_not_categories(categories: List[Dict[str, Any]]) -> str:
    names = [category["name"] for category in categories]
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            return (
                f"is wrong: categories[{i}] has the name {shown(name)}, not a text of some letters"
            )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return f"has several categories of the name {shown(repeated[0])}" if repeated else ""


def _why_not_annotations(annotations: List[Dict[str, Any]], category_ids: set) -> str:
    for i, annotation in enumerate(annotations):
        category, bbox = annotation["category_id"], annotation["bbox"]
        if isinstance(category, (list, dict)) or category not in category_ids:
            return f"is wrong: annotations[{i}] has the unknown category_id {shown(category)}"
        if isinstance(annotation["image_id"], (list, dict)):
            return f"is wrong: annotations[{i}] has the image_id {shown(annotation['image_id'])}"
        if (
            not isinstance(bbox, list)
            or len(bbox) != 4
            or not all(isinstance(v, (int, float)) for v in bbox)
        ):
            return f"is wrong: annotations[{i}] has the bbox {shown(bbox)}, not 4 numbers"
        if annotation.get("iscrowd") is None:
            annotation["iscrowd"] = 0
        if annotation["iscrowd"] not in (0, 1):
            value = shown(annotation["iscrowd"])
            return f"is wrong: annotations[{i}] has the iscrowd {value}, not 0 or 1"
        if annotation.get("ignore"):
            return f"has the key 'ignore' in annotations[{i}]: use iscrowd for such regions"
    return ""
