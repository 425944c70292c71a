"""Convert detections to those of supervision (https://supervision.roboflow.com)."""

from typing import Any, Sequence

import numpy as np

from ..utils.extras import import_extra


def to_supervision(found: Any) -> Any:
    """
    Convert the result of a predictor for one image.

    Args:
        found: what :class:`~libra_d2.Predictor` returns for an image, with N detections.

    Returns:
        `supervision.Detections` with `xyxy` (N, 4) in absolute pixels, `confidence` (N,),
        `class_id` (N,), the index of the class in `Predictor.class_names`, `mask` (N, H, W) if the
        detector predicts masks, and the class names in `data["class_name"]`.

    Raises:
        UserError: supervision is not installed.

    Example::

        detections = to_supervision(predictor("photo.jpg"))
        cats = detections[detections.data["class_name"] == "cat"]
    """
    masks = found.pred_masks.cpu().numpy().astype(bool) if found.has("pred_masks") else None
    return supervision_detections(
        found.pred_boxes.tensor.detach().cpu().numpy(),
        found.scores.detach().cpu().numpy(),
        found.pred_classes.cpu().numpy(),
        found.class_names,
        masks,
    )


def supervision_detections(
    boxes: Any, scores: Any, labels: Any, class_names: Sequence[str], masks: Any = None
) -> Any:
    """
    Create `supervision.Detections`.

    Args:
        boxes: N boxes, XYXY in absolute pixels.
        scores, labels, class_names: N scores, class indices, and names.
        masks: (N, H, W) bool, or None.
    """
    supervision = import_extra("supervision", "supervision", "Detections of supervision")
    return supervision.Detections(
        xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.array(scores, dtype=np.float32),
        class_id=np.array(labels, dtype=int),
        data={"class_name": np.array(list(class_names), dtype=str)},
    )
