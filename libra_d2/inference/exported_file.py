"""
What an exported file says about its detector, and the work around its network.

Images are resized before the network, and boxes are scaled back after it. Everything here works on
arrays and needs neither torch nor Detectron2.

Shapes:
    H, W: sides of an image; H', W': of the resized image.
    N: number of detections.
"""

import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

from ..config.choices import IMAGE_FORMATS
from ..errors import UserError
from ..utils.dataclass_json import WrongValueError, from_json
from ..utils.messages import shown

METADATA_KEY = "libra_d2.json"
METADATA_VERSION = 1
OUTPUTS = ("boxes", "scores", "classes", "masks")  # the last only of detectors with masks
INPUT = "image"


def is_exported(model: str) -> bool:
    """Whether a model is an ONNX file, by its suffix, rather than a run or a checkpoint."""
    return os.fspath(model).lower().endswith(".onnx") and not os.path.isdir(model)


@dataclass(frozen=True)
class Resize:
    """
    How images are resized, in one of two forms.

    The shorter side becomes `min_size` pixels long, or less if the longer side would exceed
    `max_size`; with `min_size` 0, images keep their size. Or images are resized to `size`, (height,
    width), or with `keep_ratio` to fit within it.
    """

    min_size: Optional[int] = None
    max_size: Optional[int] = None
    size: Optional[List[int]] = None
    keep_ratio: Optional[bool] = None

    def shape(self, height: int, width: int) -> Tuple[int, int]:
        """
        Return (H', W') of an image.

        The steps are those of Detectron2's `ResizeShortestEdge` and this package's `FixedSize`, so
        that rounding is the same.

        Raises:
            ValueError: a side of the image would have no pixels.

        >>> Resize(min_size=320, max_size=400).shape(480, 640)
        (300, 400)
        """
        if self.size is not None:
            new_height, new_width = self.size
            if not self.keep_ratio:
                return new_height, new_width
            ratio = min(new_height / height, new_width / width)
            return max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))
        assert self.min_size is not None and self.max_size is not None  # see read_metadata
        if self.min_size == 0:
            return height, width
        scale = self.min_size * 1.0 / min(height, width)
        sides = [scale * height, scale * width]
        sides[0 if height < width else 1] = float(self.min_size)
        if max(sides) > self.max_size:
            scale = self.max_size * 1.0 / max(sides)
            sides = [side * scale for side in sides]
        shape = int(sides[0] + 0.5), int(sides[1] + 0.5)
        if min(shape) == 0:
            raise ValueError(f"{width}x{height} is too elongated to be resized")
        return shape

    def is_valid(self) -> bool:
        """Whether this is one of the two forms, with possible sizes."""
        if self.size is None:
            if self.min_size is None or self.max_size is None or self.keep_ratio is not None:
                return False
            return self.min_size == 0 or min(self.min_size, self.max_size) >= 1
        of_sides = (self.min_size, self.max_size)
        return of_sides == (None, None) and len(self.size) == 2 and min(self.size) >= 1


@dataclass(frozen=True)
class FileMetadata:
    """
    The metadata of an exported file.

    Normalization and padding are part of the network. `category_ids` are in the order of
    `class_names`. `max_detections` is the number of detections per image, -1 for all. `libra_d2` is
    the version of the package that wrote the file. `best_thresholds` are the score thresholds of
    the classes with the best F1 in the analysis of the run, if there was one.
    """

    libra_d2: str
    metadata_version: int
    class_names: List[str]
    category_ids: List[int]
    input_format: str
    resize: Resize
    outputs: List[str]
    score_threshold: float
    nms_threshold: float
    max_detections: int
    best_thresholds: Optional[List[float]] = None


def read_metadata(text: Optional[str], path: str) -> FileMetadata:
    """
    Read the metadata of an exported file.

    Args:
        text: the JSON; None if the file has none.
        path: of the file, for messages.

    Raises:
        UserError: there are no metadata, they have another version, or a value is wrong.
    """
    again = "Export the detector again with libra-d2 export"
    if text is None:
        raise UserError(
            f"{path} lacks the metadata {METADATA_KEY!r}, which name its classes and describe its "
            "input. Give a file that libra-d2 export has written"
        )
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path}: the metadata {METADATA_KEY!r} must be a JSON object. {again}")
    version = content.get("metadata_version")
    if version != METADATA_VERSION:
        raise UserError(
            f"{path}: metadata_version must be {METADATA_VERSION}, got {shown(version)}: the file "
            f"was written by libra_d2 {shown(content.get('libra_d2'))}. {again} of this version"
        )
    try:
        metadata = from_json(FileMetadata, content)
    except WrongValueError as e:
        raise UserError(f"{path}: metadata {e}. {again}") from None
    wrong = _wrong_value(metadata)
    if wrong:
        raise UserError(f"{path}: metadata {wrong}. {again}")
    return metadata


def _wrong_value(metadata: FileMetadata) -> str:
    names, ids, outputs = metadata.class_names, metadata.category_ids, metadata.outputs
    best = metadata.best_thresholds
    checks = {
        f"class_names must have at least one name, got {names}": bool(names),
        f"category_ids must have {len(names)} ids, one of each class, got {shown(ids)}": (
            len(ids) == len(names)
        ),
        f"input_format must be one of {IMAGE_FORMATS}, got {shown(metadata.input_format)}": (
            metadata.input_format in IMAGE_FORMATS
        ),
        "resize must have min_size and max_size, or size and keep_ratio": (
            metadata.resize.is_valid()
        ),
        f"outputs must be {list(OUTPUTS[:3])} or {list(OUTPUTS)}, got {shown(outputs)}": (
            outputs in (list(OUTPUTS[:3]), list(OUTPUTS))
        ),
        f"score_threshold must be in [0, 1], got {metadata.score_threshold}": (
            0 <= metadata.score_threshold <= 1
        ),
        f"best_thresholds must be {len(names)} numbers in [0, 1], got {shown(best)}": (
            best is None or (len(best) == len(names) and all(0 <= t <= 1 for t in best))
        ),
    }
    return next((text for text, is_right in checks.items() if not is_right), "")


def preprocess(image: np.ndarray, resize: Resize) -> Dict[str, Any]:
    """
    Turn an image into the input of the network.

    Args:
        image: (H, W, 3) uint8, in the channel order of the file.

    Returns:
        `image`, (3, H', W') uint8, resized as Detectron2 resizes it; `height` H and `width` W.

    Raises:
        ValueError: the image is too elongated to be resized.
    """
    height, width = image.shape[:2]
    new_height, new_width = resize.shape(height, width)
    if resize.min_size != 0:
        pil = Image.fromarray(image)
        image = np.asarray(pil.resize((new_width, new_height), Image.Resampling.BILINEAR))
    chw = np.ascontiguousarray(image.transpose(2, 0, 1))
    return {"image": chw, "height": height, "width": width}


class Found(NamedTuple):
    """
    The detections of an image, best first.

    `boxes` (N, 4) float32, XYXY in absolute pixels; `scores` (N,) float32 in [0, 1]; `classes` (N,)
    int64; and `masks` (N, 28, 28) float32, probabilities within the boxes, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: Optional[np.ndarray] = None


def postprocess(
    outputs: Mapping[str, np.ndarray],
    resized: Tuple[int, int],
    original: Tuple[int, int],
    *,
    score_threshold: float = 0.0,
    top_k: int = -1,
) -> Found:
    """
    Convert the outputs of the network to detections in the original image.

    As in Detectron2, boxes are cut off at the border of the image, and those without an area are
    left out.

    Args:
        outputs: arrays by their names in `OUTPUTS`, with boxes in pixels of the resized image.
        resized, original: (H', W') and (H, W).
        score_threshold: keep detections with higher scores.
        top_k: keep this number of detections; -1 for all.

    >>> outputs = {"boxes": np.float32([[0, 0, 4, 8], [2, 2, 40, 4]]), "classes": np.array([1, 0])}
    >>> found = postprocess({**outputs, "scores": np.float32([0.25, 0.5])}, (10, 20), (20, 40))
    >>> found.boxes.tolist(), found.classes.tolist()
    ([[4.0, 4.0, 40.0, 8.0], [0.0, 0.0, 8.0, 16.0]], [0, 1])
    """
    scores = outputs["scores"]
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > score_threshold]
    order = order[:top_k] if top_k >= 0 else order
    (height, width), (new_height, new_width) = original, resized
    boxes = outputs["boxes"][order].reshape(-1, 4)
    boxes[:, 0::2] = (boxes[:, 0::2] * (width / new_width)).clip(0, width)
    boxes[:, 1::2] = (boxes[:, 1::2] * (height / new_height)).clip(0, height)
    has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = order[has_area]
    masks = outputs.get("masks")
    return Found(
        boxes[has_area],
        scores[order],
        outputs["classes"][order],
        None if masks is None else masks[order],
    )
