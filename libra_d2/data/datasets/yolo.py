"""
Data sets in the layout of Ultralytics' YOLO: `labels/*.txt` beside `images/*`, and a `data.yaml`.

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

# Rounding may put an edge this far outside of the image, as a share of its side.
_TOLERANCE = 0.01


def read_yolo(path: str, split: str) -> Tuple[List[str], List[str], int]:
    """
    Args:
        path: `data.yaml`, or a folder with `images`, `labels` and `classes.txt`.
        split: "train", "val" or "test" in a `data.yaml`; for a folder, a subfolder of `images`
            or an empty string.

    Returns:
        class names, the paths of the images, and the numbers of keypoints behind each box.

    Raises:
        UserError: something is missing; the message names it.
    """
    if os.path.isdir(path):
        classes = os.path.join(path, "classes.txt")
        if not os.path.isfile(classes):
            raise UserError(f"{path}: neither a data.yaml nor a folder with classes.txt")
        names = [name for _, name in numbered_lines(classes)]
        if not names:
            raise UserError(f"{classes} names no classes")
        _check_names(names, classes)
        return names, _images(os.path.join(path, "images", split).rstrip(os.sep), path), 0
    data = read_yaml(path, as_text=True)
    if not isinstance(data, dict):
        raise UserError(f"{path} is no data.yaml: it has no keys")
    names = _class_names(data, path)
    if not split:
        raise UserError(f"{path}: name a split as in yolo:{path},train")
    entries = data.get(split) or (data.get("validation") if split == "val" else None)
    if not entries:
        there = [k for k in ("train", "val", "validation", "test") if data.get(k)]
        raise UserError(f"{path} has no key {split!r}; it has {there}")
    root = _root(data, path)
    images = []
    for entry in [entries] if isinstance(entries, str) else entries:
        images += _images(_resolve(root, str(entry)), root)
    return names, list(dict.fromkeys(images)), _keypoints(data, path)


def label_file(image: str) -> str:
    """The last folder `images` in the path becomes `labels`; without one, the same folder."""
    images, labels = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    return os.path.splitext(labels.join(image.rsplit(images, 1)))[0] + ".txt"


def yolo_to_coco(
    images: Sequence[str], root: str, class_names: Sequence[str], keypoints: int = 0
) -> Dict[str, Any]:
    """
    Content of a COCO file whose image names are relative to `root`.

    An image without a label file has no objects. A polygon counts as its box, and is kept. With
    `keypoints`, so many numbers of keypoints follow each box, and are left out.

    Raises:
        UserError: no image has a label file, or a line of one is malformed; the message names the
            file and the line.
    """
    if not any(os.path.isfile(label_file(image)) for image in images):
        raise UserError(
            f"no image has a label file, the first was looked for at {label_file(images[0])}. "
            "A set of background images needs an empty file there"
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
        raise UserError(f"{where}: {line!r} is not a list of numbers") from None
    if keypoints and len(numbers) not in (5, 5 + keypoints):
        raise UserError(
            f"{where}: {len(numbers)} numbers, where kpt_shape in the data.yaml asks for 5 and "
            f"{keypoints} more of keypoints"
        )
    if not keypoints and len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0):
        raise UserError(
            f"{where}: {len(numbers)} numbers, where a box has 5 (class cx cy w h) and a polygon "
            "7 or more (class x y x y x y ...)"
        )
    index, *values = numbers
    box = values[:4] if keypoints else values
    if index not in range(len(class_names)):
        raise UserError(
            f"{where}: class {line.split()[0]} is not one of 0 to {len(class_names) - 1}"
        )
    if not all(math.isfinite(v) and -_TOLERANCE <= v <= 1 + _TOLERANCE for v in box):
        raise UserError(f"{where}: {line!r} has values outside of [0, 1], the shares of the sides")
    return int(index), values


def _class_names(data: Dict[str, Any], path: str) -> List[str]:
    names = data.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(map(str, range(len(names)))):
            raise UserError(f"{path}: names has the keys {list(names)}, not 0 to {len(names) - 1}")
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has no list of class names under the key 'names'")
    if "nc" in data and data["nc"] != str(len(names)):
        raise UserError(f"{path}: nc is {data['nc']}, but there are {len(names)} names")
    _check_names(names, path)
    return names


def _check_names(names: Sequence[Any], path: str) -> None:
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise UserError(f"{path}: class {i} has the name {shown(name)}, not a text")
        if name in names[:i]:
            raise UserError(
                f"{path}: classes {names.index(name)} and {i} have the same name {name!r}"
            )


def _keypoints(data: Dict[str, Any], path: str) -> int:
    shape = data.get("kpt_shape")
    if shape in (None, ""):
        return 0
    if not isinstance(shape, list) or not all(isinstance(v, str) and v.isdecimal() for v in shape):
        raise UserError(f"{path}: kpt_shape is {shown(shape)}, not a list of two numbers")
    return math.prod(int(v) for v in shape)


def _root(data: Dict[str, Any], path: str) -> str:
    """`path` of the data.yaml is relative to the file, or to the working folder."""
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
    """Images of a folder and its subfolders, or those that a text file lists."""
    if os.path.isdir(path):
        # Those that look like images but are not read are named by the checks, as unreadable.
        images = [i.path for i in images_of_folder(path, recursive=True, follow_links=True)]
    elif os.path.isfile(path):
        images = _listed(path, root)
    else:
        raise UserError(f"{path} does not exist")
    if not images:
        raise UserError(f"{path} holds no images ({' '.join(IMAGE_SUFFIXES)})")
    return sorted(images)


def _listed(path: str, root: str) -> List[str]:
    """Images of a text file. Its names are relative to `root`, or with `./` to its own folder."""
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
