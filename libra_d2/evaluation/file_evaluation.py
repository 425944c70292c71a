"""Compute the COCO metrics of a file of predictions that any tool may have written."""

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
    Compute the metrics over all images of the annotations.

    Images without predictions have no detections. Predictions for images that are not in the
    annotations are left out, with a warning that names the images.

    Args:
        predictions: path of a file in one of the formats of :func:`read_predictions`. Masks are
            read from COCO results only, as RLE.
        annotations: path of a COCO annotation file.
        Others: see :func:`coco_metrics`.

    Raises:
        UserError: a file or setting is wrong, or all predictions are for other images.
    """
    truth, results = read_evaluated(predictions, annotations, max_detections, iou_type)
    return coco_metrics(
        truth, results, max_detections=max_detections, backend=backend, iou_type=iou_type
    )


def read_evaluated(
    predictions: str, annotations: str, max_detections: int = 100, iou_type: str = "bbox"
) -> Tuple[Dict[str, Any], List[Dict[str, Any]]]:
    """
    Read annotations, and predictions as COCO results. See :func:`evaluate_file`, also for errors.
    """
    if iou_type not in IOU_TYPES:
        raise UserError(f"iou_type must be one of {IOU_TYPES}, got {iou_type!r}")
    truth = read_coco(annotations)
    results = read_results(predictions, annotations, truth, iou_type)
    beyond = uncounted(results, max_detections)
    if beyond:
        logger.warning(f"{predictions}: {beyond}")
    return truth, results


def read_results(
    predictions: str, annotations: str, truth: Dict[str, Any], iou_type: str = "bbox"
) -> List[Dict[str, Any]]:
    """
    Read predictions as COCO results, for the images of the annotations only. A warning names
    other images.

    Args:
        predictions, annotations: paths.
        truth: content of `annotations`.
        iou_type: "bbox", or "segm" for masks.

    Raises:
        UserError: the file does not contain predictions, or all of them are for other images, or
            some are for other classes.
    """
    read = _boxes if iou_type == "bbox" else _masks
    results, unknown = read(predictions, truth, annotations)
    unknown = list(dict.fromkeys(unknown))
    if unknown and not results:
        raise UserError(
            f"{predictions} has no prediction for an image of {annotations}; the first prediction "
            f"is for {unknown[0]!r}"
        )
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        logger.warning(
            f"The predictions for {len(unknown)} images that are not in {annotations} are left "
            f"out: {shown}"
        )
    with_objects = {a["image_id"] for a in truth["annotations"]}
    found = with_objects.intersection(r["image_id"] for r in results)
    if 2 * len(found) < len(with_objects):
        logger.warning(
            f"{predictions} has detections in {len(found)} of the {len(with_objects)} images of "
            f"{annotations} with objects; all objects of the others count as missed"
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
        raise UserError(
            f"predictions {path} must be a list of COCO results, got {type(content).__name__}. "
            "Masks are read from no other format"
        )
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    results, unknown = [], []
    for i, result in enumerate(content):
        image_id = result.get("image_id") if isinstance(result, dict) else None
        if not isinstance(image_id, (int, str)) or image_id not in sizes:
            unknown.append(str(image_id))
            continue
        mask = result.get("segmentation")
        if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
            raise UserError(f"predictions {path}: [{i}] must have a segmentation as compressed RLE")
        if mask.get("size") != sizes[image_id]:
            raise UserError(
                f"predictions {path}: the mask of [{i}] must have the size of its image, "
                f"{sizes[image_id]}, got {mask.get('size')}"
            )
        check_scores(path, [([_score(path, i, result)], image_id)])
        results.append(result)
    return results, list(dict.fromkeys(unknown))


def _score(path: str, i: int, result: Dict[str, Any]) -> float:
    score = result.get("score")
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise UserError(f"predictions {path}: the score of [{i}] must be a number, got {score!r}")
    return score
