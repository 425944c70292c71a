"""COCO metrics of a file of predictions, whatever tool wrote it."""

import logging
from typing import Any, Dict, List, Tuple

from ..config.choices import IOU_TYPES
from ..data.datasets.coco_format import read_coco
from ..errors import UserError
from ..predictions.checks import check_scores, read_fitting_predictions
from ..utils.json_files import read_json
from .coco_metrics import AUTO, CocoMetrics, coco_metrics, uncounted

logger = logging.getLogger(__name__)


def evaluate_file(
    predictions: str,
    annotations: str,
    *,
    max_detections: int = 100,
    backend: str = AUTO,
    iou_type: str = "bbox",
) -> CocoMetrics:
    """
    Metrics of all images of the annotations. Images that the predictions do not have are without
    detections; predictions of images that the annotations do not have are left out, with a
    warning that names them.

    Args:
        predictions: path, see :func:`read_predictions`. Masks are in COCO results only, as RLE.
        annotations: path of a COCO annotation file.
        Others: see :func:`coco_metrics`.

    Raises:
        UserError: a file or setting is wrong, or all predictions are of other images.
    """
    if iou_type not in IOU_TYPES:
        raise UserError(f"iou_type {iou_type!r} is not one of {IOU_TYPES}")
    truth = read_coco(annotations)
    results = read_results(predictions, annotations, truth, iou_type)
    beyond = uncounted(results, max_detections)
    if beyond:
        logger.warning(f"{predictions}: {beyond}")
    return coco_metrics(
        truth, results, max_detections=max_detections, backend=backend, iou_type=iou_type
    )


def read_results(
    predictions: str, annotations: str, truth: Dict[str, Any], iou_type: str = "bbox"
) -> List[Dict[str, Any]]:
    """
    COCO results of the images of the annotations; a warning names other images.

    Args:
        predictions, annotations: paths.
        truth: content of `annotations`.
        iou_type: "bbox" or "segm", for results with masks.

    Raises:
        UserError: the file is no predictions, or all of other images, or of other classes.
    """
    read = _boxes if iou_type == "bbox" else _masks
    results, unknown = read(predictions, truth, annotations)
    unknown = list(dict.fromkeys(unknown))
    if unknown and not results:
        raise UserError(
            f"no prediction of {predictions} is of an image of {annotations}; the first is of "
            f"{unknown[0]!r}"
        )
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        logger.warning(
            f"left out the predictions of {len(unknown)} images that {annotations} does not have: "
            f"{shown}"
        )
    with_objects = {a["image_id"] for a in truth["annotations"]}
    found = with_objects.intersection(r["image_id"] for r in results)
    if 2 * len(found) < len(with_objects):
        logger.warning(
            f"{predictions} has detections in {len(found)} of the {len(with_objects)} images with "
            f"objects of {annotations}; all objects of the others count as missed"
        )
    return results


def _boxes(
    path: str, truth: Dict[str, Any], annotations: str
) -> Tuple[List[Dict[str, Any]], List[str]]:
    return read_fitting_predictions(path, truth, annotations)


def _masks(
    path: str, truth: Dict[str, Any], annotations: str
) -> Tuple[List[Dict[str, Any]], List[str]]:
    content = read_json(path, what="predictions")
    if not isinstance(content, list):
        raise UserError(f"predictions {path}: masks are read from a list of COCO results only")
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    results, unknown = [], []
    for i, result in enumerate(content):
        image_id = result.get("image_id") if isinstance(result, dict) else None
        if not isinstance(image_id, (int, str)) or image_id not in sizes:
            unknown.append(str(image_id))
            continue
        mask = result.get("segmentation")
        if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
            raise UserError(f"predictions {path}: [{i}] lacks a segmentation as compressed RLE")
        if mask.get("size") != sizes[image_id]:
            raise UserError(
                f"predictions {path}: [{i}] has a mask of the size {mask.get('size')}, its image "
                f"is {sizes[image_id]}"
            )
        check_scores(path, [([_score(path, i, result)], image_id)])
        results.append(result)
    return results, list(dict.fromkeys(unknown))


def _score(path: str, i: int, result: Dict[str, Any]) -> float:
    score = result.get("score")
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise UserError(f"predictions {path}: [{i}]: score {score!r} is not a number")
    return score
