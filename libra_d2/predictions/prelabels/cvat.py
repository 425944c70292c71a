"""
Annotations in CVAT's own format, "CVAT for images 1.1".

https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

import xml.etree.ElementTree as ElementTree

from ...utils.files import write_text
from .selection import Prelabels


def write_cvat(prelabels: Prelabels, path: str) -> None:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(root, "meta")
    labels = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
    for name in prelabels.class_names:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
    for number, image in enumerate(prelabels.images):
        of_image = ElementTree.SubElement(
            root,
            "image",
            id=str(number),
            name=image.name,
            width=str(image.width),
            height=str(image.height),
        )
        for box, k in zip(image.boxes.tolist(), image.labels):
            of_box = {"label": prelabels.class_names[k], "source": "auto", "occluded": "0"}
            of_box.update(zip(("xtl", "ytl", "xbr", "ybr"), (f"{v:.2f}" for v in box)))
            ElementTree.SubElement(of_image, "box", {**of_box, "z_order": "0"})
    write_text(path, xml_text(root))


def xml_text(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"
