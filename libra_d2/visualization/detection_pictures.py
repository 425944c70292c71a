"""Draw boxes with labels on images."""

import io
import json
from collections import defaultdict
from typing import Any, Dict, List, Sequence

import numpy as np
from PIL import Image

from ..data.images.reader import read_image
from ..predictions.detections import Detections
from ..utils.files import replacing
from .colours import class_colour, to_bytes
from .marks import Mark, draw_marks


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    class_ids: Sequence[int],
    labels: Sequence[str],
) -> np.ndarray:
    """
    Draw boxes with labels on a copy of an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: (N, 4), XYXY, absolute pixels. Labels are placed in this order, so the best boxes
            should come first.
        class_ids: N indices, which determine the colors.
        labels: N texts, in any script.

    Returns:
        (H', W', 3) uint8, RGB. The picture is enlarged if its longer side has less than 480 pixels.
        Labels for which there is no room are left out.
    """
    colours = [to_bytes(class_colour(int(c))) for c in class_ids]
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.array(draw_marks(image, [Mark(*m) for m in zip(boxes.tolist(), colours, labels)]))


def save_picture(picture: Image.Image, path: str, **options: Any) -> None:
    """
    Write a picture, either completely or not at all.

    Args:
        options: options of `Image.save`, which must include the format.

    Raises:
        WriteError: the file cannot be written.
    """
    content = io.BytesIO()  # writing to a file, Pillow misses that the disk is full
    picture.save(content, **options)
    with replacing(path) as partial, open(partial, "wb") as f:
        f.write(content.getbuffer())


def save_prediction_grid(
    dataset_name: str,
    predictions_file: str,
    picture: str,
    num_images: int = 8,
    score_thresh: float = 0.5,
) -> None:
    """
    Draw ground truth and predictions side by side, for images evenly spread over a data set.

    Args:
        dataset_name: name of a registered data set.
        predictions_file: COCO results, as COCOEvaluator writes them.
        picture: PNG file to write.
        score_thresh: predictions with lower scores are not drawn.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from matplotlib.figure import Figure

    records = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    names = metadata.thing_classes
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id", {})
    with open(predictions_file, encoding="utf-8") as f:
        predictions = _by_image(json.load(f), score_thresh)

    chosen = [records[i] for i in np.linspace(0, len(records) - 1, num_images).astype(int)]
    rows = (len(chosen) + 1) // 2
    figure = Figure(figsize=(16, 4 * rows), dpi=80, layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, record in enumerate(chosen):
        try:
            image = read_image(record["file_name"], format="RGB")
        except ValueError:
            axes[i // 2, (i % 2) * 2].set_title(f"cannot read {record['file_name']}", fontsize=10)
            continue
        truth = record.get("annotations", [])
        found = predictions[record["image_id"]]
        found_ids = [contiguous.get(p["category_id"], p["category_id"]) for p in found]
        pair = axes[i // 2, (i % 2) * 2 : (i % 2) * 2 + 2]
        _show(
            pair[0],
            f"ground truth ({len(truth)})",
            image,
            truth,
            [a["category_id"] for a in truth],
            names,
        )
        title = f"predictions with score >= {score_thresh} ({len(found)})"
        _show(pair[1], title, image, found, found_ids, names)
    with replacing(picture) as partial:
        figure.savefig(partial, format="png")


def _by_image(predictions: List[Dict[str, Any]], score_thresh: float) -> Dict[Any, List[Dict]]:
    by_image = defaultdict(list)
    for p in predictions:
        if p["score"] >= score_thresh:
            by_image[p["image_id"]].append(p)
    return by_image


def _show(axis, title, image, annotations, class_ids, names) -> None:
    from detectron2.structures import BoxMode

    boxes = np.array(
        [
            BoxMode.convert(a["bbox"], a.get("bbox_mode", BoxMode.XYWH_ABS), BoxMode.XYXY_ABS)
            for a in annotations
        ]
    )
    labels = [
        names[c] + (f" {a['score']:.0%}" if "score" in a else "")
        for a, c in zip(annotations, class_ids)
    ]
    axis.imshow(draw_boxes(image, boxes, class_ids, labels))
    axis.set_title(title, fontsize=10)


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    class_names: Sequence[str],
    category_ids: Sequence[int],
) -> np.ndarray:
    """
    Draw detections with their classes and scores on a copy of an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        category_ids: category id of each class. It determines the color, as in `libra-d2 draw`.

    Returns:
        The picture, as returned by :func:`draw_boxes`.
    """
    labels = [
        f"{class_names[label]} {score:.0%}"
        for label, score in zip(detections.labels, detections.scores)
    ]
    boxes = np.array(detections.boxes, dtype=np.float64).reshape(-1, 4)
    ids = [category_ids[label] for label in detections.labels]
    colours = [i if isinstance(i, int) else label for i, label in zip(ids, detections.labels)]
    return draw_boxes(image, boxes, colours, labels)
