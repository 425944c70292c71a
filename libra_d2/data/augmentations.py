"""
The transforms of `INPUT.AUGMENTATIONS`: Detectron2's own, and those that it does not have.

:mod:`libra_d2.config.augmentations` has their names, arguments and ranges.
"""

from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

from ..config.augmentations import RESIZING, parse_augmentations
from .annotated_input import AnnotatedInput, clipping
from .copy_paste import CopyPaste
from .transforms import FixedSize, RandomExpand, with_fixed_size

_CROP_TRIES = 10
# The resize by the shorter side comes after these, as it does after INPUT.CROP.
_BEFORE_RESIZE = ("RandomCrop", "Expand", "CopyPaste")


class ResizeScale(T.ResizeScale):
    """Detectron2's `ResizeScale`, which leaves at least one pixel of each side."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        tfm = super().get_transform(image)
        return T.ResizeTransform(tfm.h, tfm.w, max(tfm.new_h, 1), max(tfm.new_w, 1), tfm.interp)


class KeepingCrop(T.Augmentation):
    """
    Crop by an augmentation of Detectron2, and drop the objects of which too little is left.

    If a crop would drop all objects of an image, another one is drawn, up to ten times.
    """

    def __init__(
        self,
        crop: Union[T.RandomCrop, T.FixedSizeCrop],
        min_area: float = 0.3,
        otherwise: Optional[T.Augmentation] = None,
    ):
        """
        Args:
            crop: draws the crop.
            min_area: share of the area of its box that must be left of an object.
            otherwise: applied if all of these crops would drop all objects; None: the image is
                left as it is.
        """
        super().__init__()
        self._init(locals())

    def __call__(self, inputs: AnnotatedInput) -> T.Transform:
        boxes = inputs.boxes
        for _ in range(_CROP_TRIES):
            tfm = clipping(self.crop.get_transform(inputs.image))
            window = tfm.transforms[0] if isinstance(tfm, T.TransformList) else tfm
            if window.w < 1 or window.h < 1:
                continue
            shares = _shares_within(boxes, window)
            if not len(boxes) or (shares >= self.min_area).any():
                inputs.crop(tfm, shares, self.min_area)
                return tfm
        return T.NoOpTransform() if self.otherwise is None else self.otherwise(inputs)

    def __repr__(self) -> str:
        return f"{self.crop} with min_area={self.min_area}"

    __str__ = __repr__


class Saturation(T.RandomSaturation):
    """Detectron2's `RandomSaturation`, whose grey is that of an RGB image, for either order."""

    def __init__(self, min: float, max: float, bgr: bool):
        super().__init__(min, max)
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return super().get_transform(image[:, :, ::-1] if self.bgr else image)


class Hue(T.Augmentation):
    """Turn the hue of an image by an angle drawn from a range."""

    def __init__(self, min: float, max: float, bgr: bool):
        """
        Args:
            min, max: in degrees. 120 turns red into green.
            bgr: the order of the channels is BGR, not RGB.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        angle = self._rand_range(self.min, self.max)
        to_hsv = cv2.COLOR_BGR2HSV if self.bgr else cv2.COLOR_RGB2HSV
        from_hsv = cv2.COLOR_HSV2BGR if self.bgr else cv2.COLOR_HSV2RGB

        def turned(pixels: np.ndarray) -> np.ndarray:
            hsv = cv2.cvtColor(pixels.astype(np.float32) / 255, to_hsv)
            hsv[..., 0] = (hsv[..., 0] + angle) % 360
            rgb = cv2.cvtColor(hsv, from_hsv)
            return np.rint(rgb * 255).clip(0, 255).astype(np.uint8)

        return T.ColorTransform(turned)


class Rotate90Transform(T.Transform):
    """Rotate by right angles, counter-clockwise. Pixels are moved and never interpolated."""

    def __init__(self, height: int, width: int, turns: int):
        """
        Args:
            height, width: of the image before the rotation.
            turns: number of right angles.
        """
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(img, self.turns))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        x, y = coords[:, 0], coords[:, 1]
        rotated = (
            (x, y),
            (y, self.width - x),
            (self.width - x, self.height - y),
            (self.height - y, x),
        )[self.turns % 4]
        return np.stack(rotated, axis=1)

    def inverse(self) -> T.Transform:
        height, width = self.height, self.width
        if self.turns % 2:
            height, width = width, height
        return Rotate90Transform(height, width, -self.turns % 4)


class Rotate90(T.Augmentation):
    """Rotate by 90, 180 or 270 degrees, which are equally likely."""

    def __init__(self, prob: float = 0.75):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        return Rotate90Transform(height, width, np.random.randint(1, 4))


class Sometimes(T.RandomApply):
    """Detectron2's `RandomApply`, which shows in a log what it applies."""

    def __repr__(self) -> str:
        return f"{self.aug} with prob={self.prob}"

    __str__ = __repr__


def build_augmentations(cfg: CfgNode) -> List[T.Augmentation]:
    """
    Build the augmentations that `INPUT.AUGMENTATIONS` lists.

    If none of them sets the size (ResizeScale, FixedSizeCrop), Detectron2's resize by the shorter
    side, or `INPUT.FIXED_SIZE`, is inserted: after the last RandomCrop, Expand or CopyPaste, and
    first if there is none of them.
    """
    entries = parse_augmentations(cfg.INPUT.AUGMENTATIONS)
    bgr = cfg.INPUT.FORMAT == "BGR"
    ret = [_build(entry.name, dict(entry.arguments), bgr) for entry in entries]
    names = [entry.name for entry in entries]
    if not set(names) & set(RESIZING):
        position = max([i + 1 for i, name in enumerate(names) if name in _BEFORE_RESIZE], default=0)
        upstream = with_fixed_size(cfg, utils.build_augmentation(cfg, is_train=True))
        ret.insert(position, upstream[0])
    return ret


def _build(name: str, arguments: Dict[str, Any], bgr: bool) -> T.Augmentation:
    builder = _BUILDERS.get(name)
    if builder is not None:
        return builder(**arguments)
    prob = arguments.pop("prob", 1.0)
    augmentation = (
        _OF_COLOURS[name](arguments, bgr) if name in _OF_COLOURS else _random_crop(**arguments)
    )
    return augmentation if prob == 1 else Sometimes(augmentation, prob)


def _resize_scale(min_scale: float, max_scale: float, size: Any) -> T.Augmentation:
    return ResizeScale(min_scale, max_scale, *_pair(size))


def _fixed_size_crop(size: Any, min_area: float) -> T.Augmentation:
    crop = T.FixedSizeCrop(_pair(size))
    shrunk = T.AugmentationList([FixedSize(_pair(size), keep_ratio=True), KeepingCrop(crop, 0.0)])
    return KeepingCrop(crop, min_area, otherwise=shrunk)


def _random_crop(min: float, min_area: float) -> T.Augmentation:
    return KeepingCrop(T.RandomCrop("relative_range", (min, min)), min_area)


def _pair(size: Any) -> Tuple[int, int]:
    """(height, width)"""
    return (size, size) if isinstance(size, int) else tuple(size)


_BUILDERS: Dict[str, Callable[..., T.Augmentation]] = {
    "ResizeScale": _resize_scale,
    "FixedSizeCrop": _fixed_size_crop,
    "Expand": lambda max_ratio, prob: RandomExpand(prob, max_ratio),
    "CopyPaste": CopyPaste,
    "HorizontalFlip": lambda prob: T.RandomFlip(prob),
    "VerticalFlip": lambda prob: T.RandomFlip(prob, horizontal=False, vertical=True),
    "Rotate90": Rotate90,
}
_OF_COLOURS: Dict[str, Callable[[Dict[str, float], bool], T.Augmentation]] = {
    "Brightness": lambda a, _: T.RandomBrightness(a["min"], a["max"]),
    "Contrast": lambda a, _: T.RandomContrast(a["min"], a["max"]),
    "Saturation": lambda a, bgr: Saturation(a["min"], a["max"], bgr),
    "Hue": lambda a, bgr: Hue(a["min"], a["max"], bgr),
    "Gray": lambda _, bgr: Saturation(0.0, 0.0, bgr),
}


def _shares_within(boxes: np.ndarray, window: T.CropTransform) -> np.ndarray:
    """(N,): the share of the area of each box that lies within a window."""
    start = np.array([window.x0, window.y0])
    low = np.maximum(boxes[:, :2], start)
    high = np.minimum(boxes[:, 2:], start + [window.w, window.h])
    left = (high - low).clip(0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return np.divide(left, area, out=np.zeros_like(area), where=area > 0)
