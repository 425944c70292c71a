"""Plan the size to which images are resized, or crops if the images are too large."""

from typing import Dict, Tuple

import numpy as np
from detectron2.config import CfgNode

from ..config.augmentations import RESIZING, parse_augmentations
from .settings import Advice, Note, Setting
from .training_set import TrainingSet

# Side in pixels that nine out of ten objects should have in the network's input. It is three cells
# of the finest level (stride 4). Below about that size, objects of the built-in data set are found
# much less often.
MIN_SIDE = 12
_SMALL = 0.1  # this quantile of the sides has to reach MIN_SIDE
_MAX_ENLARGEMENT = 2.0  # of the original image: more would show no more detail
_MAX_GROWTH = 2.0  # of the sides of the base config's input: four times the pixels and the time
_CROP = 1.25  # side of a crop, as a multiple of the shorter side of the base config's input
# INPUT.RANDOM_FLIP as entries of INPUT.AUGMENTATIONS.
_FLIPS: Dict[str, Tuple[str, ...]] = {
    "horizontal": ("HorizontalFlip(prob=0.5)",),
    "vertical": ("VerticalFlip(prob=0.5)",),
    "none": (),
}
_MULTIPLE = 32  # sizes are multiples of the coarsest stride of the pyramid, in pixels


def plan_input_size(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Enlarge the input until nine out of ten objects are at least 12 pixels large.

    The input is enlarged up to twice the sides of the base config, and never to more than twice
    the original size. If that is not enough, training uses crops of the images at the necessary
    scale (`INPUT.CROP`), and evaluation uses whole images at that scale. The size is never reduced.
    A size of 0, which keeps the sizes of the images, counts as that of the median image.

    Source: the enlargement of small objects follows the analysis of scale in SNIP (Singh and
    Davis, 2018); the thresholds come from our own experiments (docs/planning.md).
    """
    if any(cfg.INPUT.FIXED_SIZE):
        return [Note("INPUT.FIXED_SIZE sets the input size, so it is not planned")]
    listed = tuple(cfg.INPUT.AUGMENTATIONS)
    if any(entry.name in RESIZING for entry in parse_augmentations(listed)):
        return [Note("INPUT.AUGMENTATIONS sets the input size, so it is not planned")]
    if cfg.INPUT.CROP.ENABLED or any(e.name == "RandomCrop" for e in parse_augmentations(listed)):
        return [Note("the base config crops the images, so the input size is not planned")]
    if not np.isfinite(data.objects.sizes).all():
        return [Note("the sizes of the images are not known, so the input size is not planned")]
    shapes = data.resized_shapes(cfg)
    side = float(np.quantile(np.sqrt(shapes.prod(1)), _SMALL))
    if side >= MIN_SIDE:
        return [
            Note(
                f"the input size is kept: after the resize, nine out of ten objects are at least "
                f"{side:.0f} pixels large"
            )
        ]
    original = float(np.median(data.objects.sizes.min(1)))
    elongation = float((data.objects.sizes.max(1) / data.objects.sizes.min(1)).max())
    resized = float(np.median(cfg.INPUT.MIN_SIZE_TRAIN))
    short = resized or original
    # MAX_SIZE_TRAIN may bind, so that this is not the ratio of the shorter sides.
    scales = shapes[:, 0] / data.objects.widths_heights[:, 0]
    growth = min(MIN_SIDE / side, _MAX_ENLARGEMENT / float(np.median(scales)))
    if growth <= 1:
        return [
            Note(
                f"one out of ten objects is smaller than {side:.1f} pixels, but the images are "
                "already enlarged: more pixels would show no more detail"
            )
        ]
    why = (
        f"one out of ten objects is smaller than {side:.1f} pixels at an input size of {short:.0f}"
    )
    if growth <= _MAX_GROWTH:
        target = _rounded(short * growth)
        why = f"{why}; at {target}, the limit is {side * target / short:.1f}"
        ratio = cfg.INPUT.MAX_SIZE_TRAIN / short if resized else elongation
        longest = _rounded(ratio * target)
        return [
            Setting("INPUT.MIN_SIZE_TRAIN", (target,), why),
            Setting(
                "INPUT.MAX_SIZE_TRAIN",
                longest,
                "same ratio to the shorter side as in the base config"
                if resized
                else "room for the most elongated image",
            ),
            *_test_size(data, target, longest, cfg, "as in training"),
        ]
    # Crops of all images have one scale, which does not depend on the sizes of the images.
    side = float(np.quantile(np.sqrt(data.objects.widths_heights.prod(1)), _SMALL))
    target = _rounded(original * min(MIN_SIDE / side, _MAX_ENLARGEMENT))
    why = f"{why}; in crops, the limit is {side * target / original:.1f}"
    crop = min(_rounded(short * _CROP), target)
    of_image = int(np.ceil(crop * original / target))
    crops: Advice = [
        Setting("INPUT.CROP.ENABLED", True, f"whole images at {target} pixels are too large"),
        Setting("INPUT.CROP.TYPE", "absolute", "crops of one size keep the scale of the objects"),
        Setting("INPUT.CROP.SIZE", [of_image, of_image], f"resized to {crop} pixels; {why}"),
        Setting("INPUT.MIN_SIZE_TRAIN", (crop,), "size of a crop after the resize"),
        Setting("INPUT.MAX_SIZE_TRAIN", 2 * crop, "room for crops of narrow images"),
    ]
    # INPUT.CROP cannot be combined with the list, and Detectron2's crop of polygons needs shapely.
    if listed or cfg.MODEL.MASK_ON:
        listed = listed or _FLIPS[cfg.INPUT.RANDOM_FLIP]
        resize = f"ResizeScale(min_scale=1, max_scale=1, size={crop})"
        texts = (f"FixedSizeCrop(size={of_image})", resize, *listed)
        why = f"whole images at {target} pixels are too large; {why}"
        crops = [
            Setting("INPUT.AUGMENTATIONS", texts, why),
            Setting("INPUT.RANDOM_FLIP", "horizontal", "the default, which the list replaces"),
        ]
    return [
        *crops,
        *_test_size(
            data,
            target,
            _rounded(target * elongation),
            cfg,
            "whole images at the scale of the crops",
        ),
        Note(
            f"evaluation and inference use whole images of {target} pixels, because they need the "
            "scale of the crops. This takes memory and time"
        ),
    ]


def _test_size(data: TrainingSet, short: int, longest: int, cfg: CfgNode, why: str) -> Advice:
    """Enlarge the size for evaluation, where the base config's is smaller."""
    base = cfg.INPUT.MIN_SIZE_TEST
    if short <= (base or np.median(data.objects.sizes.min(1))):
        short = base
    return [
        Setting("INPUT.MIN_SIZE_TEST", short, why),
        Setting("INPUT.MAX_SIZE_TEST", max(longest, cfg.INPUT.MAX_SIZE_TEST), why),
    ]


def _rounded(pixels: float) -> int:
    return int(np.ceil(pixels / _MULTIPLE - 1e-6)) * _MULTIPLE
