"""Turn detections into the answer to a request."""

from typing import Any, Dict, List, Sequence

import numpy as np

from ..data.images.encoding import encode_image
from ..data.images.reader import read_image
from ..predictions.detections import Detections
from .uploads import Upload


def by_image(
    uploads: Sequence[Upload],
    found: Sequence[Detections],
    class_names: Sequence[str],
    category_ids: Sequence[int],
) -> Dict[str, Any]:
    """Return the JSON that `libra-d2 infer` writes: detections by the name of their image."""
    return {
        upload.name: detections.entry(class_names, category_ids)
        for upload, detections in zip(uploads, found)
    }


def coco_results(found: Sequence[Detections], category_ids: Sequence[int]) -> List[Dict[str, Any]]:
    """
    Return COCO results. As in `libra-d2 infer`, an image's id is its position, counted from 1.

    >>> coco_results([Detections(9, 9, [[1.0, 2.0, 4.0, 8.0]], [0.5], [0])], [7])
    [{'image_id': 1, 'category_id': 7, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]
    """
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for image_id, detections in enumerate(found, 1)
        for (x0, y0, x1, y1), score, label in zip(
            detections.boxes, detections.scores, detections.labels
        )
    ]


def picture(
    upload: Upload,
    detections: Detections,
    class_names: Sequence[str],
    category_ids: Sequence[int],
) -> bytes:
    """
    Return a JPEG of the image with its detections.

    Raises:
        ValueError: the image cannot be read.
    """
    from ..visualization.detection_pictures import draw_detections  # loads fonts

    drawn = draw_detections(
        read_image(upload.content, "RGB"), detections, class_names, category_ids
    )
    return encode_image(np.asarray(drawn), lossless=False)
