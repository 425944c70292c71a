"""Predictions of the images that an annotation file lists."""

from typing import Any, Dict, List, Tuple

import numpy as np

from ..checks import read_fitting_predictions
from ..reading import ImagePredictions


def predictions_of_images(
    path: str, truth: Dict[str, Any], annotations: str
) -> Tuple[List[ImagePredictions], List[str]]:
    """
    Read predictions, and return those of each image of an annotation file in its order. Images
    without predictions have no detections.

    Args:
        path: file of predictions.
        truth: content of the annotation file.
        annotations: path of the annotation file, for messages.

    Returns:
        Predictions of the images, and names of images that the file does not list.

    Raises:
        UserError: the file does not contain predictions, or they do not fit the annotations.
    """
    results, unknown = read_fitting_predictions(path, truth, annotations)
    names = {c["id"]: c["name"] for c in truth["categories"]}
    of_image: Dict[Any, List[Dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for result in results:
        of_image[result["image_id"]].append(result)
    ret = []
    for image in truth["images"]:
        found = sorted(of_image[image["id"]], key=lambda r: -r["score"])
        boxes = np.array([r["bbox"] for r in found], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        ret.append(
            ImagePredictions(
                file_name=image["file_name"],
                image_id=image["id"],
                height=int(image["height"]),
                width=int(image["width"]),
                boxes=boxes,
                scores=np.array([r["score"] for r in found], dtype=np.float64),
                category_ids=[r["category_id"] for r in found],
                class_names=[names[r["category_id"]] for r in found],
            )
        )
    return ret, list(dict.fromkeys(unknown))
