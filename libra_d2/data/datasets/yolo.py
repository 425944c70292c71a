"""
Read data sets in Ultralytics' YOLO format: `labels/*.txt` next to `images/*`, and a `data.yaml`.

https://docs.ultralytics.com/datasets/detect/
"""

import logging
import math
import os
from typing import Any, Dict, List, Sequence, Tuple

from ...errors import UserError
from ...utils.messages import shown
from ...utils.progress import progress
from ...utils.yaml_files import read_yaml
from ..images.folders import images_of_folder
from ..images.names import locate_images, moved_images, say_moved
from ..images.reader import IMAGE_SUFFIXES, read_headers
from .converted import CocoBuilder, numbered_lines

logger = logging.getLogger(__name__)

# Because of rounding, boxes may extend beyond the image by this share of its side.
_TOLERANCE = 0.01


def read_yolo(path: str, split: str) -> Tuple[List[str], List[str], int]:
    """
    Find the classes and images of a YOLO data set.

    Args:
        path: `data.yaml`, or a folder with `images`, `labels` and `classes.txt`.
        split: "train", "val" or "test" for a `data.yaml`; for a folder, a subfolder of `images` or
            an empty string.

    Returns:
        The class names, the paths of the images, and how many numbers of keypoints follow each box.

    Raises:
        UserError: A file, folder or key is missing or wrong. The message names it.
    """
    if os.path.isdir(path):
        classes = os.path.join(path, "classes.txt")
        if not os.path.isfile(classes):
            raise UserError(f"{path} must be a data.yaml or a folder with a file classes.txt")
        names = [name for _, name in numbered_lines(classes)]
        if not names:
            raise UserError(f"{classes} is empty. It must have the name of a class on each line")
        _check_names(names, classes)
        return names, _images(os.path.join(path, "images", split).rstrip(os.sep), path), 0
    data = read_yaml(path, as_text=True)
    if not isinstance(data, dict):
        raise UserError(f"{path} must be a data.yaml with keys such as names and train")
    names = _class_names(data, path)
    if not split:
        raise UserError(f"{path} needs the name of a split, as in yolo:{path},train")
    entries = data.get(split) or (data.get("validation") if split == "val" else None)
    if not entries:
        there = [k for k in ("train", "val", "validation", "test") if data.get(k)]
        raise UserError(f"{path} has no key {split!r}. It has {there}")
    root = _root(data, path)
    images = []
    for entry in [entries] if isinstance(entries, str) else entries:
        images += _images(_resolve(root, str(entry)), root)
    return names, list(dict.fromkeys(images)), _keypoints(data, path)


def label_file(image: str) -> str:
    """Return the label file of an image: the last folder `images` in the path becomes `labels`."""
    images, labels = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    return os.path.splitext(labels.join(image.rsplit(images, 1)))[0] + ".txt"


def yolo_to_coco(
    images: Sequence[str], root: str, class_names: Sequence[str], keypoints: int = 0
) -> Dict[str, Any]:
    """
    Convert a YOLO data set to COCO format.

    An image without a label file has no objects. For polygons, the bounding box is added. Keypoints
    are left out.

    Args:
        images: paths of the images.
        root: folder that the image names in the result are relative to.
        class_names: names of the classes in their order.
        keypoints: how many numbers of keypoints follow each box.

    Returns:
        The content of a COCO annotation file.

    Raises:
        UserError: No image has a label file, or a line is invalid. The message names the file and
            the line.
    """
    if not any(os.path.isfile(label_file(image)) for image in images):
        raise UserError(
            f"no image has a label file. The first was looked for at {label_file(images[0])}. "
            "For a set of background images, create an empty file there"
        )
    coco = CocoBuilder(class_names)
    headers = read_headers(images, decode=False, desc="Reading sizes of images")
    for image, header in zip(progress(images, "Reading labels"), headers):
        if header.error:
            coco.add_unreadable(image, header.error)
            continue
        coco.add_image(os.path.relpath(image, root), header.width, header.height)
        labels = label_file(image)
        for number, line in numbered_lines(labels) if os.path.isfile(labels) else ():
            where = f"{labels}, line {number}"
            index, values = _parse(line, where, class_names, keypoints)
            if keypoints and len(values) == 4 + keypoints:
                coco.note("keypoints", "objects have keypoints, which are left out", f"{where}")
                values = values[:4]
            polygon: Dict[str, Any] = {}
            if len(values) == 4:
                cx, cy, w, h = values
                left, top = cx - w / 2, cy - h / 2
            else:
                left, top = min(values[0::2]), min(values[1::2])
                w, h = max(values[0::2]) - left, max(values[1::2]) - top
                sides = (header.width, header.height)
                polygon = {"segmentation": [[v * sides[i % 2] for i, v in enumerate(values)]]}
            box = (left * header.width, top * header.height, w * header.width, h * header.height)
            coco.add_object(index, list(box), **polygon)
    return coco.build()


def _parse(
    line: str, where: str, class_names: Sequence[str], keypoints: int
) -> Tuple[int, List[float]]:
    try:
        numbers = [float(v) for v in line.split()]
    except ValueError:
        raise UserError(f"{where}: the line must be a list of numbers, got {line!r}") from None
    if keypoints and len(numbers) not in (5, 5 + keypoints):
        raise UserError(
            f"{where}: with kpt_shape in data.yaml, the line must have 5 or {5 + keypoints} "
            f"numbers, got {len(numbers)}"
        )
    if not keypoints and len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0):
        raise UserError(
            f"{where}: the line must have 5 numbers for a box (class cx cy w h) or 7, 9, ... for "
            f"a polygon (class x y x y x y ...), got {len(numbers)}"
        )
    index, *values = numbers
    box = values[:4] if keypoints else values
    if index not in range(len(class_names)):
        raise UserError(
            f"{where}: class must be from 0 to {len(class_names) - 1}, got {line.split()[0]}"
        )
    if not all(math.isfinite(v) and -_TOLERANCE <= v <= 1 + _TOLERANCE for v in box):
        raise UserError(f"{where}: coordinates must be in [0, 1], got {line!r}")
    return int(index), values


def _class_names(data: Dict[str, Any], path: str) -> List[str]:
    names = data.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(map(str, range(len(names)))):
            raise UserError(
                f"{path}: names must have the keys 0 to {len(names) - 1}, got {list(names)}"
            )
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has no list of class names under the key 'names'")
    if "nc" in data and data["nc"] != str(len(names)):
        raise UserError(f"{path}: nc must be the number of names, {len(names)}, got {data['nc']}")
    _check_names(names, path)
    return names


def _check_names(names: Sequence[Any], path: str) -> None:
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise UserError(f"{path}: the name of class {i} must be a string, got {shown(name)}")
        if name in names[:i]:
            raise UserError(
                f"{path}: classes {names.index(name)} and {i} have the same name {name!r}"
            )


def _keypoints(data: Dict[str, Any], path: str) -> int:
    shape = data.get("kpt_shape")
    if shape in (None, ""):
        return 0
    if not isinstance(shape, list) or not all(isinstance(v, str) and v.isdecimal() for v in shape):
        raise UserError(f"{path}: kpt_shape must be a list of two numbers, got {shown(shape)}")
    return math.prod(int(v) for v in shape)


def _root(data: Dict[str, Any], path: str) -> str:
    """Return the folder `path` of a data.yaml, relative to the file or to the working folder."""
    folder = os.path.dirname(os.path.abspath(path))
    root = os.path.expanduser(str(data.get("path") or ""))
    beside = os.path.normpath(os.path.join(folder, root))
    return beside if os.path.isdir(beside) else os.path.abspath(root)


def _resolve(root: str, entry: str) -> str:
    path = os.path.normpath(os.path.join(root, os.path.expanduser(entry)))
    if not os.path.exists(path) and entry.startswith("../"):  # common in exported data sets
        inside = os.path.normpath(os.path.join(root, entry[3:]))
        return inside if os.path.exists(inside) else path
    return path


def _images(path: str, root: str) -> List[str]:
    """Return the images of a folder and its subfolders, or those listed in a text file."""
    if os.path.isdir(path):
        # Files in formats that are not supported are kept, and reported as unreadable images.
        images = [i.path for i in images_of_folder(path, recursive=True, follow_links=True)]
    elif os.path.isfile(path):
        images = _listed(path, root)
    else:
        raise UserError(f"{path} does not exist")
    if not images:
        raise UserError(f"{path} has no images ({' '.join(IMAGE_SUFFIXES)})")
    return sorted(images)


def _listed(path: str, root: str) -> List[str]:
    """Return the images of a text file. Names with `./` are relative to it, others to `root`."""
    names: Dict[str, List[str]] = {root: [], os.path.dirname(path): []}
    for _, line in numbered_lines(path):
        names[os.path.dirname(path) if line.startswith("./") else root].append(line)
    images: List[str] = []
    moved: List[Tuple[str, str]] = []
    for base, of_base in names.items():
        found = locate_images(of_base, base)
        images += map(os.path.normpath, found.values())
        moved += moved_images(found, base)
    say_moved(logger, path, moved, len(images))
    return images
