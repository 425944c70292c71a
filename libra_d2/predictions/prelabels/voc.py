"""A data set in PASCAL VOC's layout."""

import os
import xml.etree.ElementTree as ElementTree
from typing import Dict

from ...utils.files import write_text
from .cvat import xml_text
from .selection import LabeledImage, Prelabels, flat_names

SPLIT = "train"


def voc_files(prelabels: Prelabels, folder: str) -> Dict[str, str]:
    """Return the file of each image in the data set by its `name`."""
    names = flat_names([image.name for image in prelabels.images])
    return {
        image.name: os.path.join(folder, "JPEGImages", name)
        for image, name in zip(prelabels.images, names)
    }


def write_voc(prelabels: Prelabels, folder: str) -> None:
    """
    Write `Annotations/*.xml`, `ImageSets/Main/train.txt`, `labels.txt`, and `labelmap.txt` with the
    same classes for CVAT.

    The first pixel is 1, and both ends belong to a box, as in VOC. Coordinates have two digits
    after the point.
    """
    files = voc_files(prelabels, folder)
    stems = []
    for image in prelabels.images:
        name = os.path.basename(files[image.name])
        stems.append(os.path.splitext(name)[0])
        path = os.path.join(folder, "Annotations", f"{stems[-1]}.xml")
        write_text(path, _annotation(image, name, prelabels))
    listing = os.path.join(folder, "ImageSets", "Main", f"{SPLIT}.txt")
    write_text(listing, "".join(f"{stem}\n" for stem in stems))
    names = prelabels.class_names
    write_text(os.path.join(folder, "labels.txt"), "".join(f"{n}\n" for n in names))
    label_map = ["# label:color_rgb:parts:actions", *(f"{name}:::" for name in names)]
    write_text(os.path.join(folder, "labelmap.txt"), "".join(f"{line}\n" for line in label_map))


def _annotation(image: LabeledImage, name: str, prelabels: Prelabels) -> str:
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, text: str) -> None:
        ElementTree.SubElement(parent, tag).text = text

    add(root, "filename", name)
    size = ElementTree.SubElement(root, "size")
    for tag, value in {"width": image.width, "height": image.height, "depth": 3}.items():
        add(size, tag, str(value))
    for (x0, y0, x1, y1), label in zip(image.boxes.tolist(), image.labels):
        of_object = ElementTree.SubElement(root, "object")
        add(of_object, "name", prelabels.class_names[label])
        add(of_object, "difficult", "0")
        box = ElementTree.SubElement(of_object, "bndbox")
        for tag, value in {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}.items():
            add(box, tag, f"{value:.2f}")
    return xml_text(root)
