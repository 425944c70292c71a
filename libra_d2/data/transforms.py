"""Augmentations that Detectron2 does not have."""

from typing import List, Tuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from PIL import Image

from ..errors import UserError


class FixedSize(T.Augmentation):
    """Resize the image to a given size, or to fit within it."""

    def __init__(self, size: Tuple[int, int], keep_ratio: bool = False):
        """
        Args:
            size: (height, width) in pixels.
            keep_ratio: whether to keep the aspect ratio. One side may then be shorter than given.
        """
        super().__init__()
        if len(size) != 2 or min(size) < 1:
            raise UserError(
                "INPUT.FIXED_SIZE must be (height, width) in pixels, both at least 1, or (0, 0) to "
                f"disable it, got {tuple(size)}"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        new_height, new_width = self.size
        if self.keep_ratio:
            ratio = min(new_height / height, new_width / width)
            new_height = max(1, int(height * ratio + 0.5))
            new_width = max(1, int(width * ratio + 0.5))
        return T.ResizeTransform(height, width, new_height, new_width, Image.Resampling.BILINEAR)


class RandomExpand(T.Augmentation):
    """
    Put the image at a random position on a larger canvas, so that its objects become smaller.

    This is the "expand" augmentation of SSD (https://arxiv.org/abs/1512.02325, section 2.2).
    """

    def __init__(self, prob: float, max_ratio: float = 4.0, pad_value: float = 114.0):
        """
        Args:
            prob: probability, in [0, 1].
            max_ratio: the sides of the canvas are 1 to `max_ratio` times those of the image.
            pad_value: value of the pixels of the canvas, in [0, 255].
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        ratio = self._rand_range(1.0, self.max_ratio)
        extra_height, extra_width = int(height * (ratio - 1)), int(width * (ratio - 1))
        top = int(self._rand_range(0, extra_height + 1))
        left = int(self._rand_range(0, extra_width + 1))
        return T.PadTransform(
            left, top, extra_width - left, extra_height - top, width, height, self.pad_value
        )


def with_fixed_size(cfg: CfgNode, augmentations: List[T.Augmentation]) -> List[T.Augmentation]:
    """Return augmentations in which `INPUT.FIXED_SIZE`, if set, replaces Detectron2's resizing."""
    if not any(cfg.INPUT.FIXED_SIZE):
        return augmentations
    fixed = FixedSize(cfg.INPUT.FIXED_SIZE, cfg.INPUT.KEEP_RATIO)
    return [fixed if isinstance(a, T.ResizeShortestEdge) else a for a in augmentations]


def check_proportions(augmentation: T.Augmentation, height: int, width: int) -> None:
    """
    Check that an image can be resized.

    Raises:
        ValueError: Resizing the image to fit `INPUT.MAX_SIZE_*` would leave a side without pixels.
    """
    if isinstance(augmentation, T.ResizeShortestEdge) and min(augmentation.short_edge_length):
        shape = augmentation.get_output_shape(
            height, width, min(augmentation.short_edge_length), augmentation.max_size
        )
        if min(shape) == 0:
            raise ValueError(f"{width}x{height} is too elongated to be resized")
