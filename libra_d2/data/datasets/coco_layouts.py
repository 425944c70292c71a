"""Find the annotations and images of exported data sets, for `coco:folder,split`."""

import os
from typing import Dict, Tuple

from ...errors import UserError

_ROBOFLOW = "_annotations.coco.json"
_LAYOUTS = (
    "Roboflow's (SPLIT/_annotations.coco.json), CVAT's (annotations/instances_SPLIT.json and "
    "images) or FiftyOne's (labels.json and data)"
)
_SPELLINGS = {"validation": "val", "valid": "val"}


def coco_folder(folder: str, split: str = "") -> Tuple[str, str]:
    """
    Find annotations and images in a folder with the layout of Roboflow, CVAT or FiftyOne.

    Args:
        folder: folder of the data set.
        split: name of a split, such as "train". "val", "valid" and "validation" mean the same. It
            may be left out if there is only one.

    Returns:
        The paths of the annotation file and of the image folder.

    Raises:
        UserError: The layout is not known, the split does not exist, or `split` is missing.
    """
    found = _splits(folder)
    if not found:
        raise UserError(
            f"folder {folder} must have one of these layouts: {_LAYOUTS}. Otherwise, name the "
            "annotation file and the folder of its images"
        )
    there = ", ".join(name or "(without a name)" for name in found)
    if not split:
        if len(found) > 1:
            raise UserError(
                f"folder {folder} has several splits: {there}. Name one, as in "
                f"coco:{folder},{next(filter(None, found))}"
            )
        return next(iter(found.values()))
    same = [name for name in found if _SPELLINGS.get(name, name) == _SPELLINGS.get(split, split)]
    if split not in found and len(same) != 1:
        raise UserError(f"folder {folder} has no split {split!r}. It has {there}")
    return found[split if split in found else same[0]]


def _splits(folder: str) -> Dict[str, Tuple[str, str]]:
    """Return name of a split -> (annotation file, image folder); "" for the folder itself."""
    found: Dict[str, Tuple[str, str]] = {}
    for name in ("", *_folders(folder)):
        part = os.path.join(folder, name) if name else folder
        for annotations, images in ((_ROBOFLOW, ""), ("labels.json", "data")):
            file, root = os.path.join(part, annotations), os.path.join(part, images)
            if os.path.isfile(file) and os.path.isdir(root):
                found.setdefault(name, (file, os.path.normpath(root)))
    annotations, images = os.path.join(folder, "annotations"), os.path.join(folder, "images")
    if os.path.isdir(annotations) and os.path.isdir(images):
        for file in sorted(os.listdir(annotations)):
            if file.startswith("instances_") and file.lower().endswith(".json"):
                name = file[len("instances_") : -len(".json")]
                own = os.path.join(images, name)
                root = own if os.path.isdir(own) else images
                found.setdefault(name, (os.path.join(annotations, file), root))
    return found


def _folders(folder: str) -> Tuple[str, ...]:
    return tuple(sorted(e.name for e in os.scandir(folder) if e.is_dir()))
