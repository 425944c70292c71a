"""Map predictions on slices of `libra-d2 slice` back to the images, and merge them."""

import json
import logging
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence

import numpy as np

from ..data.datasets.coco_masks import is_number
from ..data.datasets.located import read_located
from ..data.slicing.geometry import slice_grid
from ..errors import UserError
from ..utils.files import check_outputs, make_folder_of, replacing
from ..utils.messages import shown
from ..utils.progress import progress
from .merging import merge_slices
from .reading import read_predictions, to_coco_results

logger = logging.getLogger(__name__)


@dataclass
class MergedFile:
    """What was merged. `incomplete` has the names of images of which slices are missing."""

    num_images: int = 0
    num_slices: int = 0
    num_before: int = 0
    num_detections: int = 0
    notes: List[str] = field(default_factory=list)
    unknown: List[str] = field(default_factory=list)  # images that the data set does not have
    incomplete: List[str] = field(default_factory=list)


def merge_file(description: str, predictions: str, output: str) -> MergedFile:
    """
    Map predictions on slices to the images that the slices were cut out of, and merge those of the
    same object. Writes COCO results with the image ids of the original data set.

    Args:
        description: the data set of slices, as in `DATASETS.TEST`.
        predictions: predictions on its images, in a format of `libra-d2 infer`.
        output: file to write.

    Raises:
        UserError: a file is wrong, or the data set was not written by `libra-d2 slice`.
    """
    check_outputs({"--output": output}, {"--merge": predictions})
    content = read_located(logger, description, [output]).content
    images, info = content["images"], content.get("info")
    _check_slices(images, description)
    read, summary = read_predictions(predictions), MergedFile(num_slices=len(images))
    found, summary.unknown = to_coco_results(read, images, content["categories"], summary.notes)
    summary.num_before = len(found)
    by_slice: Dict[Any, List[Dict[str, Any]]] = {image["id"]: [] for image in images}
    for result in found:
        by_slice[result["image_id"]].append(result)
    by_source: Dict[Any, List[Dict[str, Any]]] = {}
    for image in images:
        by_source.setdefault(image["source_id"], []).append(image)
    summary.num_images = len(by_source)
    results: List[Dict[str, Any]] = []
    for source_id, slices in progress(by_source.items(), "Merging"):
        results += _merge_image(source_id, slices, by_slice, content["categories"])
        if len(slices) < _expected(slices[0], info):
            summary.incomplete.append(slices[0]["source_file_name"])
    summary.num_detections = len(results)
    make_folder_of(output)
    with replacing(output) as partial, open(partial, "w", encoding="utf-8") as f:
        json.dump(results, f)
    return summary


def _check_slices(images: Sequence[Dict[str, Any]], description: str) -> None:
    for i, image in enumerate(images):
        why = _why_not_slice(image)
        if why:
            raise UserError(
                f"{description} must be a data set that `libra-d2 slice` wrote, but images[{i}] "
                f"{why}"
            )


def _why_not_slice(image: Dict[str, Any]) -> str:
    keys = ("offset", "source_id", "source_file_name", "source_width", "source_height")
    missing = [key for key in keys if key not in image]
    if missing:
        return f"lacks {missing}"
    offset = image["offset"]
    if not (isinstance(offset, list) and len(offset) == 2 and all(map(is_number, offset))):
        return f"has the offset {shown(offset)} instead of two numbers"
    if not isinstance(image["source_id"], (int, float, str)):
        return f"has the source_id {shown(image['source_id'])} instead of a number or text"
    for key in ("source_width", "source_height"):
        if type(image[key]) is not int or image[key] < 1:
            return f"has the {key} {shown(image[key])} instead of a number of pixels"
    return ""


def _expected(image: Dict[str, Any], info: Any) -> int:
    """Number of slices of an image, or 0 if it is not known how they were cut."""
    options = info.get("slices") if isinstance(info, dict) else None
    options = options if isinstance(options, dict) else {}
    size, overlap = options.get("size", 0), options.get("overlap", 0)
    if not (is_number(size) and size >= 1 and is_number(overlap) and 0 <= overlap < 1):
        return 0
    return len(slice_grid(image["source_width"], image["source_height"], size, overlap))


def _merge_image(
    source_id: Any,
    slices: Sequence[Dict[str, Any]],
    by_slice: Dict[Any, List[Dict[str, Any]]],
    categories: Sequence[Dict[str, Any]],
) -> List[Dict[str, Any]]:
    index = {category["id"]: k for k, category in enumerate(categories)}
    found = [(s, result) for s, image in enumerate(slices) for result in by_slice[image["id"]]]
    slice_of = np.array([s for s, _ in found], dtype=np.int64)
    xywh = np.array([result["bbox"] for _, result in found], dtype=np.float64).reshape(-1, 4)
    corners = np.array([image["offset"] for image in slices], dtype=np.float64)
    sides = np.array([(image["width"], image["height"]) for image in slices])
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    merged = merge_slices(
        boxes + np.tile(corners[slice_of], 2),
        np.array([result["score"] for _, result in found]),
        np.array([index[result["category_id"]] for _, result in found], dtype=np.int64),
        slice_of,
        np.concatenate([corners, corners + sides], axis=1),
    )
    return [
        {
            "image_id": source_id,
            "category_id": categories[label]["id"],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for (x0, y0, x1, y1), score, label in zip(
            merged.boxes.tolist(), merged.scores.tolist(), merged.labels.tolist()
        )
    ]
