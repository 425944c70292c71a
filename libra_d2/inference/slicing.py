"""Show large images to a detector in slices, and merge what it finds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

import numpy as np

from ..data.slicing.geometry import check_slicing, slice_grid
from ..errors import UserError
from ..predictions.detections import Detections
from ..predictions.merging import Merged, merge_slices

if TYPE_CHECKING:
    from detectron2.structures import Instances

OVERLAP = 0.2


@dataclass(frozen=True)
class Slicing:
    """How images are cut: see :func:`~libra_d2.data.slicing.geometry.slice_grid`."""

    size: int
    overlap: float = OVERLAP

    @classmethod
    def of(
        cls,
        size: Optional[int],
        overlap: Optional[float] = None,
        names: Tuple[str, str] = ("--slice", "--overlap"),
    ) -> Optional["Slicing"]:
        """
        Check options.

        Args:
            size: sides of a slice, in pixels. None: images are not cut.
            overlap: None: 0.2.
            names: the options, for messages.

        Raises:
            UserError: a value is out of range, or an overlap is given without a size.
        """
        if size is None:
            if overlap is not None:
                raise UserError(f"{names[1]} can only be used with {names[0]}")
            return None
        slicing = cls(size, OVERLAP if overlap is None else overlap)
        check_slicing(slicing.size, slicing.overlap, names)
        return slicing

    def cut(self, image: np.ndarray) -> Tuple[np.ndarray, List[np.ndarray]]:
        """Return the slices of an image, (S, 4) XYXY, and their pixels, which are not copied."""
        height, width = image.shape[:2]
        slices = slice_grid(width, height, self.size, self.overlap)
        return slices, [image[y0:y1, x0:x1] for x0, y0, x1, y1 in slices.tolist()]


def merge_detections(
    parts: Sequence[Detections], slices: np.ndarray, height: int, width: int
) -> Detections:
    """
    Merge the detections of the slices (S, 4) of an image of `height` x `width` pixels. See
    :func:`merge_slices`.
    """
    merged = merge_arrays(
        [np.array(part.boxes, np.float64).reshape(-1, 4) for part in parts],
        [np.array(part.scores, np.float64) for part in parts],
        [np.array(part.labels, np.int64) for part in parts],
        slices,
    )
    boxes, scores, labels = merged.boxes, merged.scores, merged.labels
    return Detections(height, width, boxes.tolist(), scores.tolist(), labels.tolist())


def merge_instances(
    parts: Sequence["Instances"], slices: np.ndarray, height: int, width: int
) -> "Instances":
    """
    Merge a model's outputs for the slices (S, 4) of an image. Only boxes, scores and classes are
    merged; other fields, such as masks, are left out.
    """
    import torch
    from detectron2.structures import Boxes, Instances

    merged = merge_arrays(
        [part.pred_boxes.tensor.cpu().double().numpy() for part in parts],
        [part.scores.cpu().double().numpy() for part in parts],
        [part.pred_classes.cpu().numpy() for part in parts],
        slices,
    )
    like = parts[0]
    return Instances(
        (height, width),
        pred_boxes=Boxes(torch.as_tensor(merged.boxes).to(like.pred_boxes.tensor)),
        scores=torch.as_tensor(merged.scores).to(like.scores),
        pred_classes=torch.as_tensor(merged.labels).to(like.pred_classes),
    )


def merge_arrays(
    boxes: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    slices: np.ndarray,
) -> Merged:
    """
    Merge detections as arrays for each slice: `boxes` (n, 4) XYXY in pixels of the slice, `scores`
    and `labels` (n,). `slices` are (S, 4). See :func:`merge_slices`.
    """
    slice_of = np.repeat(np.arange(len(slices)), list(map(len, scores)))
    placed = np.concatenate(boxes) + np.tile(slices[slice_of, :2], 2)
    return merge_slices(placed, np.concatenate(scores), np.concatenate(labels), slice_of, slices)
