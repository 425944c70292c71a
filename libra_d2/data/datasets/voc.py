"""
Read data sets in PASCAL VOC format.

The layout is `Annotations/*.xml`, `JPEGImages` and `ImageSets/Main/<split>.txt`.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import math
import os
import xml.etree.ElementTree as ElementTree
from bisect import bisect_left
from typing import Any, Dict, List, Sequence, Tuple

from ...errors import UserError
from ...utils.progress import progress
from ..images.reader import IMAGE_SUFFIXES, read_header
from .converted import CocoBuilder, numbered_lines


def voc_files(root: str, split: str) -> List[str]:
    """
    Return the annotation files of a split, or all of them if `split` is empty.

    Raises:
        UserError: A folder, the list of the split, or a file in the list is missing.
    """
    folder = os.path.join(root, "Annotations")
    for path in (folder, os.path.join(root, "JPEGImages")):
        if not os.path.isdir(path):
            raise UserError(f"{root} does not have VOC's layout: folder {path} does not exist")
    if not split:
        names = sorted(f for f in os.listdir(folder) if f.lower().endswith(".xml"))
        if not names:
            raise UserError(f"{folder} has no .xml files")
        return [os.path.join(folder, name) for name in names]
    listing = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
    if not os.path.isfile(listing):
        raise UserError(f"{listing} does not exist. Leave out the split to use all of {folder}")
    files = []
    for number, name in numbered_lines(listing):
        stem, suffix = os.path.splitext(name)
        stems = [name, stem] if suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else [name]
        paths = [os.path.join(folder, f"{s}{end}") for s in stems for end in (".xml", ".XML")]
        file = next(filter(os.path.isfile, paths), None)
        if file is None:
            raise UserError(f"{listing}, line {number}: {paths[0]} does not exist")
        files.append(file)
    if not files:
        raise UserError(f"{listing} is empty. It must have the name of an image on each line")
    return list(dict.fromkeys(files))


def voc_labels(root: str) -> List[str]:
    """Return the class names in the optional file `labels.txt` in `root`, one per line."""
    path = os.path.join(root, "labels.txt")
    return [name for _, name in numbered_lines(path)] if os.path.isfile(path) else []


def voc_classes(files: Sequence[str]) -> List[str]:
    """Return the sorted names of all objects in the files."""
    names = set()
    for file in progress(files, "Reading class names", unit="file"):
        names |= {_text(o, "name", file) for o in _parse(file).iter("object")}
    return sorted(names)


def voc_to_coco(
    root: str, files: Sequence[str], class_names: Sequence[str], first_pixel: int = 1
) -> Dict[str, Any]:
    """
    Convert a VOC data set to COCO format.

    Like in Detectron2's VOC loader, both ends belong to a box. Objects marked `difficult` become
    crowd regions.

    Args:
        root: folder of the data set. The image names in the result are relative to its
            `JPEGImages`.
        files: annotation files.
        class_names: names of the classes in their order.
        first_pixel: number of the first pixel of a row or column, 1 in VOC.

    Returns:
        The content of a COCO annotation file.

    Raises:
        UserError: A file is not valid XML, a value is missing or wrong, or a class is not in
            `class_names`. The message names the file.
    """
    index = {name: i for i, name in enumerate(class_names)}
    coco = CocoBuilder(class_names)
    images = sorted(os.listdir(os.path.join(root, "JPEGImages")))
    for file in progress(files, f"Reading {root}", unit="file"):
        tree = _parse(file)
        image = _image_name(root, file, tree, coco, images)
        width, height = _size(tree, file)
        if width <= 0 or height <= 0:
            path = os.path.join(root, "JPEGImages", image)
            header = read_header(path)
            if header.error:
                coco.add_unreadable(path, header.error)
                continue
            width, height = header.width, header.height
        coco.add_image(image, width, height)
        for o in tree.iter("object"):
            name = _text(o, "name", file)
            if name not in index:
                raise UserError(
                    f"{file}: the class must be one of {list(class_names)}, got {name!r}. "
                    "Set DATASETS.CLASS_NAMES to select classes"
                )
            box = o.find("bndbox")
            if box is None:
                raise UserError(f"{file}: an object {name!r} has no <bndbox>")
            x0, y0, x1, y1 = (_number(box, key, file) for key in ("xmin", "ymin", "xmax", "ymax"))
            if first_pixel == 1 and min(x0, y0) < 1:
                coco.note(
                    "pixel_0",
                    "boxes begin at pixel 0, but VOC counts from 1, so they may be off by a pixel. "
                    'If the tool counts from 0, append ",zero-based" to the description',
                    os.path.basename(file),
                )
            x, y = max(x0 - first_pixel, 0), max(y0 - first_pixel, 0)
            x1, y1 = x1 - first_pixel + 1, y1 - first_pixel + 1
            difficult = (o.findtext("difficult") or "0").strip() == "1"
            coco.add_object(index[name], [x, y, x1 - x, y1 - y], crowd=difficult)
    return coco.build()


def _parse(file: str) -> ElementTree.Element:
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as e:
        raise UserError(f"{file}, line {e.position[0]}: malformed XML: {e}") from None
    except (OSError, ValueError, LookupError) as e:  # LookupError: unknown encoding
        raise UserError(f"{file} cannot be read: {e}") from None
    for node in root.iter():  # namespaces: {http://...}object
        if isinstance(node.tag, str):
            node.tag = node.tag.rpartition("}")[2]
    return root


def _text(node: ElementTree.Element, key: str, file: str) -> str:
    text = (node.findtext(key) or "").strip()
    if not text:
        raise UserError(f"{file}: <{node.tag}> has no <{key}>")
    return text


def _number(node: ElementTree.Element, key: str, file: str) -> float:
    text = _text(node, key, file)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{file}: <{key}> must be a number, got {text!r}")
    return number


def _size(tree: ElementTree.Element, file: str) -> Tuple[int, int]:
    """Return (width, height), or (0, 0) if the file has no size, which is common."""
    node = tree.find("size")
    if node is None or not node.findtext("width") or not node.findtext("height"):
        return 0, 0
    return int(_number(node, "width", file)), int(_number(node, "height", file))


def _image_name(
    root: str, file: str, tree: ElementTree.Element, coco: CocoBuilder, images: Sequence[str]
) -> str:
    """
    Return the name of the image of an annotation file.

    This is the image that has the same name as the file, or else that of `<filename>`. The name of
    the file is preferred because tools that rename files often do not change their content. If
    the two differ, a note is added.
    """
    stem = os.path.splitext(os.path.basename(file))[0]
    named = (tree.findtext("filename") or "").strip()
    own = [i for i in images[bisect_left(images, stem) :][:64] if os.path.splitext(i)[0] == stem]
    own = [i for i in own if i.lower().endswith(IMAGE_SUFFIXES)]
    if named in own or not own:
        image = named or f"{stem}.jpg"
    else:
        image = own[0]
        if len(own) > 1:
            raise UserError(
                f"{file} fits two images in {root}/JPEGImages: {own[0]} and {own[1]}. Remove one"
            )
    if named and named.lower() != image.lower():
        coco.note(
            "other_filename",
            "XML files have another name than the image in <filename>, and their own name is used",
            f"{os.path.basename(file)}: {named}, not {image}",
        )
    return image
