"""A data set in Ultralytics' YOLO layout, which CVAT imports as well."""

import os
from typing import Dict, List

import yaml

from ...errors import UserError
from ...utils.files import write_text
from .selection import LabeledImage, Prelabels

SPLIT = "train"


def yolo_files(prelabels: Prelabels, folder: str) -> Dict[str, str]:
    """
    Return the file of each image in the data set by its `name`.

    Raises:
        UserError: two images would have the same file of labels.
    """
    labels: Dict[str, str] = {}
    for image in prelabels.images:
        other = labels.setdefault(os.path.splitext(image.name)[0].lower(), image.name)
        if other != image.name:
            raise UserError(
                f"{other} and {image.name} would have the same file of labels in YOLO's format. "
                "Rename one of them, or choose another format"
            )
    root = os.path.join(folder, "images", SPLIT)
    return {i.name: os.path.join(root, *i.name.split("/")) for i in prelabels.images}


def write_yolo(prelabels: Prelabels, folder: str) -> None:
    """Write `labels/train/*.txt` and `data.yaml`. Coordinates have six digits after the point."""
    yolo_files(prelabels, folder)
    for image in prelabels.images:
        name = f"{os.path.splitext(image.name)[0]}.txt"
        path = os.path.join(folder, "labels", SPLIT, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_text(path, "".join(f"{line}\n" for line in _lines(image)))
    images = f"images/{SPLIT}"
    # Without the key "path", folders are relative to the file, wherever it is read from.
    content = {
        "train": images,
        "val": images,
        "names": dict(enumerate(prelabels.class_names)),
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(os.path.join(folder, "data.yaml"), text)


def _lines(image: LabeledImage) -> List[str]:
    sides = [image.width, image.height]
    lines = []
    for box, label in zip(image.boxes, image.labels):
        center, size = (box[:2] + box[2:]) / 2 / sides, (box[2:] - box[:2]) / sides
        numbers = " ".join(f"{v:.6f}" for v in (*center, *size))
        lines.append(f"{label} {numbers}")
    return lines
