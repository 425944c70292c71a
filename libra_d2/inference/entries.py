"""Detections as plain numbers and names, in the form of the predictions' JSON."""

from typing import Any, Dict, Sequence

from detectron2.structures import Instances


def predictions_entry(
    instances: Instances, class_names: Sequence[str], category_ids: Sequence[Any]
) -> Dict[str, Any]:
    """
    Args:
        instances: with `pred_boxes` (XYXY, absolute pixels), `pred_classes` and `scores`; their
            `image_size` is that of the image.
        class_names, category_ids: in the order of the model's outputs.

    Returns:
        An image's entry of the JSON, best detection first, by a stable sort:
        `{"height", "width", "predictions": [{"bbox": {"x_min", "y_min", "width", "height"},
        "class": {"label", "category_id", "name"}, "score"}]}`. Numbers are the model's, not
        rounded; width and height of a box are differences in float64.
    """
    height, width = (int(side) for side in instances.image_size)
    boxes = instances.pred_boxes.tensor.detach().cpu().double().tolist()
    labels = instances.pred_classes.detach().cpu().tolist()
    scores = instances.scores.detach().cpu().double().tolist()
    predictions = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        x0, y0, x1, y1 = boxes[i]
        label = labels[i]
        predictions.append(
            {
                "bbox": {"x_min": x0, "y_min": y0, "width": x1 - x0, "height": y1 - y0},
                "class": {
                    "label": label,
                    "category_id": category_ids[label],
                    "name": class_names[label],
                },
                "score": scores[i],
            }
        )
    return {"height": height, "width": width, "predictions": predictions}
