"""
A data set on disk for FiftyOne, which imports it as `fiftyone.types.FiftyOneDataset`.

Files are written in the form of the format that has no version, so that every version of FiftyOne
reads them. https://docs.voxel51.com/user_guide/import_datasets.html#fiftyonedataset
"""

import json
import os
from typing import Any, Dict, List, Optional, Sequence

from ...data.datasets.coco import usable_annotations
from ...utils.files import write_text
from .selection import Prelabels


def write_fiftyone(
    prelabels: Prelabels, folder: str, truth: Optional[Dict[str, Any]] = None
) -> None:
    """
    Write `metadata.json` and `samples.json`. Samples refer to the images where they are.

    Args:
        truth: content of a COCO annotation file of the same images, in the order of `prelabels`.
            Its objects become the field `ground_truth`.
    """
    objects = _objects(truth) if truth else None
    samples = []
    for number, image in enumerate(prelabels.images):
        sides = (image.width, image.height)
        fields = {
            "predictions": _detections(
                [
                    _detection(prelabels.class_names[k], box, sides, confidence=score)
                    for box, k, score in zip(_xywh(image.boxes), image.labels, image.scores)
                ]
            )
        }
        if objects is not None:
            fields["ground_truth"] = _detections(
                [
                    _detection(o["name"], o["bbox"], sides, iscrowd=o["crowd"])
                    for o in objects[number]
                ]
            )
        samples.append(
            {
                "filepath": os.path.abspath(image.path),
                "tags": [],
                "metadata": {"_cls": "ImageMetadata", "width": sides[0], "height": sides[1]},
                **fields,
            }
        )
    info = {"classes": prelabels.class_names}
    metadata = {"media_type": "image", "info": info}
    write_text(os.path.join(folder, "metadata.json"), json.dumps(metadata, indent=1))
    write_text(os.path.join(folder, "samples.json"), json.dumps({"samples": samples}, indent=1))


def _objects(truth: Dict[str, Any]) -> List[List[Dict[str, Any]]]:
    names = {c["id"]: c["name"] for c in truth["categories"]}
    of_image: Dict[Any, List[Dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for a in usable_annotations(truth):
        crowd = bool(a.get("iscrowd", 0))
        name = names[a["category_id"]]
        of_image[a["image_id"]].append({"name": name, "bbox": a["bbox"], "crowd": crowd})
    return list(of_image.values())


def _xywh(boxes: Any) -> List[List[float]]:
    return [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes.tolist()]


def _detections(detections: List[Dict[str, Any]]) -> Dict[str, Any]:
    return {"_cls": "Detections", "detections": detections}


def _detection(
    name: str, xywh: Sequence[float], sides: Sequence[int], **more: Any
) -> Dict[str, Any]:
    width, height = sides
    x, y, w, h = xywh
    relative = [x / width, y / height, w / width, h / height]
    return {"_cls": "Detection", "label": name, "bounding_box": relative, "tags": [], **more}
