"""List the images of a data set with their objects and detections, worst first."""

import logging
import os
from typing import List

import numpy as np

from ...data.images.names import locate_images, moved_images, say_moved
from .matched_detections import MatchedDetections
from .results import ImageResult, ListedDetection, ListedObject
from .score_curves import floor6
from .tide import ErrorTypes

logger = logging.getLogger(__name__)

LOWEST_LISTED_SCORE = 0.05
VERDICTS = ("right", "noisy", "missing", "noisy and missing")


def image_results(
    matched: MatchedDetections, errors: ErrorTypes, threshold: float, folder: str
) -> List[ImageResult]:
    """
    List the images, worst first. How bad an image is, is the sum of the scores of its false
    detections, plus 1 for every missed object.

    Args:
        threshold: detections with a lower score do not count.
        folder: of the images, or "" if they are not available.
    """
    data = matched.data
    counts = matched.counts_by_image(threshold)
    false = ~matched.hits & matched.counted & (data.det_scores >= threshold)
    noise = np.bincount(data.det_image[false], data.det_scores[false], minlength=len(data.images))
    badness = np.round(noise + counts[:, 2], 6).tolist()
    objects, detections = _listed_objects(matched), _listed_detections(matched, errors)
    found = locate_images([i["file_name"] for i in data.images], folder) if folder else {}
    say_moved(logger, folder, moved_images(found, folder), len(found))
    ret = []
    for i, image in enumerate(data.images):
        tp, fp, fn = counts[i].tolist()
        path = found.get(image["file_name"], "")
        ret.append(
            ImageResult(
                image_id=image["id"],
                file_name=image["file_name"],
                path=path if os.path.isfile(path) else "",
                width=image["width"],
                height=image["height"],
                tp=tp,
                fp=fp,
                fn=fn,
                verdict=VERDICTS[(fp > 0) + 2 * (fn > 0)],
                badness=badness[i],
                objects=objects[i],
                detections=detections[i],
            )
        )
    return sorted(ret, key=lambda image: (-image.badness, image.file_name))


def _listed_objects(matched: MatchedDetections) -> List[List[ListedObject]]:
    data = matched.data
    names = [c["name"] for c in data.categories]
    ret: List[List[ListedObject]] = [[] for _ in data.images]
    found = [None if s != s else s for s in floor6(matched.found_scores()).tolist()]
    rows = zip(data.obj_image.tolist(), data.obj_class.tolist(), data.obj_crowd.tolist(), found)
    for (image, k, crowd, score), box in zip(rows, np.round(data.obj_boxes, 6).tolist()):
        ret[image].append(ListedObject(box, names[k], score, crowd))
    return ret


def _listed_detections(
    matched: MatchedDetections, errors: ErrorTypes
) -> List[List[ListedDetection]]:
    data = matched.data
    names = [c["name"] for c in data.categories]
    ret: List[List[ListedDetection]] = [[] for _ in data.images]
    stop = int((data.det_scores >= LOWEST_LISTED_SCORE).sum())
    columns = (
        data.det_image,
        data.det_class,
        np.round(data.det_boxes[:stop], 6),
        floor6(data.det_scores),
        errors.kind,
        np.round(errors.best_iou, 6),
    )
    for image, k, box, score, kind, iou in zip(*(c[:stop].tolist() for c in columns)):
        ret[image].append(ListedDetection(box, names[k], score, kind, iou))
    return ret
