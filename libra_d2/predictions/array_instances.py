"""
Detections of one image as arrays, with the fields of Detectron2's `Instances`.

They are what a detector returns where neither torch nor Detectron2 is installed.

Shapes:
    H, W: sides of the image; N: number of detections; M: side of a predicted mask.
"""

from typing import Any, Dict, Iterator, List, Tuple

import numpy as np


class ArrayBoxes:
    """Boxes as in Detectron2's `Boxes`: `tensor` is an array, (N, 4) XYXY in absolute pixels."""

    def __init__(self, tensor: np.ndarray):
        self.tensor = np.asarray(tensor, np.float32).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, item: Any) -> "ArrayBoxes":
        return ArrayBoxes(self.tensor[item])

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"ArrayBoxes({self.tensor})"

    def area(self) -> np.ndarray:
        """Return the areas of the boxes, (N,)."""
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return sides[:, 0] * sides[:, 1]


class ArrayInstances:
    """
    Instances of an image. Fields have the names of Detectron2's and are read as attributes, but
    they are arrays of NumPy.

    >>> found = ArrayInstances((60, 80), pred_boxes=ArrayBoxes([[0, 0, 8, 4], [2, 2, 6, 6]]),
    ...                        scores=np.float32([0.75, 0.5]), pred_classes=np.array([1, 0]))
    >>> len(found), found[found.scores > 0.6].pred_boxes.tensor.tolist()
    (2, [[0.0, 0.0, 8.0, 4.0]])

    Attributes:
        image_size: (H, W).
    """

    def __init__(self, image_size: Tuple[int, int], **fields: Any):
        """
        Args:
            image_size: (H, W).
            fields: values of the same length N.
        """
        self.image_size = image_size
        self._fields: Dict[str, Any] = {}
        for name, value in fields.items():
            self.set(name, value)

    def set(self, name: str, value: Any) -> None:
        """
        Set a field.

        Raises:
            ValueError: its length differs from that of the other fields.
        """
        if self._fields and len(value) != len(self):
            raise ValueError(f"{name} must have the length {len(self)}, got {len(value)}")
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str) -> Any:
        return self._fields[name]

    def get_fields(self) -> Dict[str, Any]:
        return dict(self._fields)

    def to(self, *args: Any, **kwargs: Any) -> "ArrayInstances":
        """Return the instances themselves, whose arrays are on the CPU."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"there is no field {name!r}")
        return self._fields[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name == "image_size":
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __len__(self) -> int:
        return next((len(value) for value in self._fields.values()), 0)

    def __getitem__(self, item: Any) -> "ArrayInstances":
        """Select instances by a slice, a mask, or indices. An integer selects a single one."""
        if isinstance(item, (int, np.integer)):
            if not -len(self) <= item < len(self):
                raise IndexError(f"there are {len(self)} instances, got the index {item}")
            item = slice(item, item + 1 or None)
        chosen = {name: value[item] for name, value in self._fields.items()}
        return ArrayInstances(self.image_size, **chosen)

    def __iter__(self) -> Iterator["ArrayInstances"]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        fields: List[str] = [f"{name}: {value}" for name, value in self._fields.items()]
        return f"ArrayInstances({len(self)} of an image {self.image_size}: {', '.join(fields)})"


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, image_size: Tuple[int, int], threshold: float = 0.5
) -> np.ndarray:
    """
    Place predicted masks in the image. This computes what Detectron2's `paste_masks_in_image` does,
    up to rounding: bilinear interpolation, in which everything outside of a mask is 0.

    Args:
        masks: (N, M, M), probabilities within the boxes.
        boxes: (N, 4), XYXY in absolute pixels, with areas above 0.
        image_size: (H, W).
        threshold: pixels with at least this probability belong to the object.

    Returns:
        (N, H, W) bool.

    >>> paste_masks(np.ones((1, 2, 2)), np.array([[1, 0, 3, 1]]), (1, 4)).tolist()
    [[[False, True, True, False]]]
    """
    height, width = image_size
    pasted = np.zeros((len(masks), height, width), dtype=bool)
    for i, (mask, (x0, y0, x1, y1)) in enumerate(zip(masks, np.asarray(boxes).tolist())):
        rows = _weights(y0, y1, height, len(mask))
        columns = _weights(x0, x1, width, len(mask))
        pasted[i] = rows @ mask @ columns.T >= threshold
    return pasted


def _weights(start: float, end: float, length: int, side: int) -> np.ndarray:
    """Return the shares (length, side) of a mask's pixels in the pixels of a side of the image."""
    centres = (np.arange(length) + 0.5 - start) * (side / (end - start)) - 0.5
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(side))).astype(np.float32)
