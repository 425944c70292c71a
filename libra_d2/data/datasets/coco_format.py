"""Check that a file is a valid COCO annotation file."""

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
    Read a COCO annotation file and check it.

    Returns:
        The content of the file. All keys that Detectron2 and COCO's metrics need are there and have
        the right types, and ids are unique. Boxes may still be NaN or empty, and annotations may
        belong to images that are not listed.

    Raises:
        UserError: The file is not valid. The message names the file and the first mistake.
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
        return "has no categories"
    if not data["images"]:
        return "has no images"
    return (
        _why_not_images(data["images"])
        or _why_not_categories(data["categories"])
        or _why_not_annotations(data["annotations"], {c["id"] for c in data["categories"]})
    )


def _invalid(place: str, expected: str, value: Any) -> str:
    return f"is invalid: {place} must be {expected}, got {shown(value)}"


def _why_not_ids(section: str, ids: List[Any]) -> str:
    texts = 0
    for i, value in enumerate(ids):
        if not isinstance(value, (int, float, str)) or value != value:
            return _invalid(f"{section}[{i}].id", "a number or a string", value)
        texts += isinstance(value, str)
    if texts not in (0, len(ids)):
        return f"is invalid: {texts} of {len(ids)} ids in {section} are strings, the others numbers"
    if len(set(ids)) < len(ids):
        repeated = [value for value, count in Counter(ids).items() if count > 1]
        first = [i for i, value in enumerate(ids) if value == repeated[0]]
        return (
            f"is invalid: ids in {section} must be unique, but {len(repeated)} are repeated: "
            f"{section}[{first[0]}] and {section}[{first[1]}] both have the id {shown(repeated[0])}"
        )
    return ""


def _why_not_images(images: List[Dict[str, Any]]) -> str:
    for i, image in enumerate(images):
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            return _invalid(f"images[{i}].file_name", "a string", image["file_name"])
        for side in ("width", "height"):
            if not isinstance(image[side], Real) or not image[side] > 0:
                return _invalid(f"images[{i}].{side}", "a positive number", image[side])
    return ""


def _why_not_categories(categories: List[Dict[str, Any]]) -> str:
    names = [category["name"] for category in categories]
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            return _invalid(f"categories[{i}].name", "a string", name)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return f"is invalid: several categories have the name {shown(repeated[0])}" if repeated else ""


def _why_not_annotations(annotations: List[Dict[str, Any]], category_ids: set) -> str:
    for i, annotation in enumerate(annotations):
        category, bbox = annotation["category_id"], annotation["bbox"]
        if isinstance(category, (list, dict)) or category not in category_ids:
            return _invalid(f"annotations[{i}].category_id", "the id of a category", category)
        if isinstance(annotation["image_id"], (list, dict)):
            image_id = annotation["image_id"]
            return _invalid(f"annotations[{i}].image_id", "a number or a string", image_id)
        if (
            not isinstance(bbox, list)
            or len(bbox) != 4
            or not all(isinstance(v, (int, float)) for v in bbox)
        ):
            return _invalid(f"annotations[{i}].bbox", "4 numbers", bbox)
        if annotation.get("iscrowd") is None:
            annotation["iscrowd"] = 0
        if annotation["iscrowd"] not in (0, 1):
            return _invalid(f"annotations[{i}].iscrowd", "0 or 1", annotation["iscrowd"])
        if annotation.get("ignore"):
            return f"is invalid: annotations[{i}] has the key 'ignore'. Use 'iscrowd' instead"
    return ""
