"""Find objects in the images of a list, and keep the result in memory."""

from typing import List, Sequence, Tuple

import numpy as np

from ..data.images.sources import Video, find_images
from ..errors import UserError
from ..predictions.reading import ImagePredictions
from ..utils.progress import progress
from .detector import Detector
from .pipeline import DetectionPipeline


def predictions_in_images(
    detector: Detector, inputs: Sequence[str]
) -> Tuple[List[ImagePredictions], List[Tuple[str, str]]]:
    """
    Run a detector on images.

    Args:
        detector: see :func:`open_detector`.
        inputs: paths, folders or patterns, see :func:`find_images`.

    Returns:
        What was found in each image that can be read; and the names of the others, with reasons.

    Raises:
        UserError: an input does not exist, or is a video.
    """
    items = []
    for source in find_images(inputs):
        if isinstance(source, Video):
            raise UserError(f"{source.path} is a video. Save its frames as images first")
        items.append(source)
    pipeline = DetectionPipeline(detector, fuse=True)
    windows = [items[i : i + pipeline.window] for i in range(0, len(items), pipeline.window)]
    found, skipped = [], []
    with progress(total=len(items), desc="Detecting") as bar:
        for result in (r for of_window in pipeline(windows) for r in of_window):
            bar.update()
            if result.detections is None:
                skipped.append((result.item.key, result.error))
                continue
            d = result.detections
            found.append(
                ImagePredictions(
                    file_name=result.item.key,
                    height=d.height,
                    width=d.width,
                    boxes=np.array(d.boxes, dtype=np.float64).reshape(-1, 4),
                    scores=np.array(d.scores, dtype=np.float64),
                    category_ids=[detector.category_ids[label] for label in d.labels],
                    class_names=[detector.class_names[label] for label in d.labels],
                )
            )
    return found, skipped
