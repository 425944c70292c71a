"""
Tasks with predictions for Label Studio.

https://labelstud.io/guide/predictions
"""

import json
import os
import xml.etree.ElementTree as ElementTree
from typing import Any, Dict, List
from urllib.parse import quote

from ...utils.files import write_text
from .selection import LabeledImage, Prelabels

LOCAL_FILES = "/data/local-files/?d="
MODEL_VERSION = "libra_d2"


def config_file(path: str) -> str:
    """Return the path of the labeling configuration that belongs to a file of tasks."""
    return f"{os.path.splitext(path)[0]}.config.xml"


def write_label_studio(prelabels: Prelabels, path: str, image_prefix: str = LOCAL_FILES) -> None:
    """
    Write a task for each image, and the labeling configuration that they need, see
    :func:`config_file`.

    Args:
        image_prefix: text before the name of an image, which gives its URL.
    """
    tasks = [_task(prelabels, image, image_prefix) for image in prelabels.images]
    write_text(config_file(path), _config(prelabels))
    write_text(path, json.dumps(tasks, indent=1))


def _task(prelabels: Prelabels, image: LabeledImage, prefix: str) -> Dict[str, Any]:
    result: List[Dict[str, Any]] = []
    sides = [image.width, image.height]
    for number, (box, k, score) in enumerate(zip(image.boxes, image.labels, image.scores), start=1):
        x, y = (100 * box[:2] / sides).tolist()
        width, height = (100 * (box[2:] - box[:2]) / sides).tolist()
        names = [prelabels.class_names[k]]
        result.append(
            {
                "id": str(number),
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": image.width,
                "original_height": image.height,
                "image_rotation": 0,
                "score": score,
                "value": {
                    **{"x": x, "y": y, "width": width, "height": height},
                    "rotation": 0,
                    "rectanglelabels": names,
                },
            }
        )
    prediction: Dict[str, Any] = {"model_version": MODEL_VERSION, "result": result}
    if image.scores:
        prediction["score"] = sum(image.scores) / len(image.scores)
    return {"data": {"image": prefix + quote(image.name)}, "predictions": [prediction]}


def _config(prelabels: Prelabels) -> str:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    labels = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in prelabels.class_names:
        ElementTree.SubElement(labels, "Label", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, "unicode") + "\n"
