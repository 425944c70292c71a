"""Annotations in COCO's format, which CVAT and most other tools import."""

import json
from typing import Any, Dict, List

from ...utils.files import write_text
from .selection import Prelabels


def write_coco(prelabels: Prelabels, path: str) -> None:
    write_text(path, json.dumps(to_coco(prelabels), indent=1))


def to_coco(prelabels: Prelabels) -> Dict[str, Any]:
    """Return the content of a COCO annotation file. Each annotation has its `score` in addition."""
    annotations: List[Dict[str, Any]] = []
    for number, image in enumerate(prelabels.images, start=1):
        for box, label, score in zip(image.boxes.tolist(), image.labels, image.scores):
            x0, y0, x1, y1 = box
            bbox = [x0, y0, x1 - x0, y1 - y0]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": prelabels.category_ids[label],
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "segmentation": [],
                    "iscrowd": 0,
                    "score": score,
                }
            )
    return {
        "info": {"description": "predictions of libra_d2, to be checked"},
        "licenses": [],
        "images": [
            {"id": number, "file_name": i.name, "width": i.width, "height": i.height}
            for number, i in enumerate(prelabels.images, start=1)
        ],
        "annotations": annotations,
        "categories": [
            {"id": i, "name": name, "supercategory": ""}
            for i, name in zip(prelabels.category_ids, prelabels.class_names)
        ],
    }
