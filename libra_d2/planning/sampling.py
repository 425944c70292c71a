"""Plan how often images are drawn, and how they are augmented."""

import numpy as np
from detectron2.config import CfgNode

from .settings import Advice, Note, Setting
from .training_set import TrainingSet

_RARE = 0.25  # a class is rare if its share of the images is below this part of the median class's
_SHOWN = 3
_ORIENTATION = ("HorizontalFlip", "VerticalFlip", "Rotate90")


def plan_repeat_factors(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Repeat images of rare classes, if there are any.

    A class is rare if it is in fewer than a quarter as many images as the median class. The repeat
    threshold is the share of images that contain the median class. The images of a class with a
    quarter of this share are therefore drawn twice as often.

    Source: repeat-factor sampling of LVIS (Gupta et al., 2019), equation in section 5. The
    threshold of 0.001 used there is for 1200 classes.
    """
    shares = data.image_frequencies
    present = shares[shares > 0]
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler" or len(present) < 2:
        return []
    median = float(np.median(present))
    rare = [i for i in np.argsort(shares, kind="stable") if 0 < shares[i] < _RARE * median]
    missing = [data.class_names[i] for i in np.flatnonzero(shares == 0)]
    advice: Advice = []
    if missing:
        names = ", ".join(missing[:_SHOWN])
        more = ", ..." if len(missing) > _SHOWN else ""
        advice.append(
            Note(f"the training set has no objects of {len(missing)} classes ({names}{more})")
        )
    if rare:
        names = ", ".join(f"{data.class_names[i]} in {shares[i]:.1%}" for i in rare[:_SHOWN])
        why = (
            f"number of rare classes: {len(rare)} ({names} of the images; the median class is in "
            f"{median:.1%})"
        )
        advice += [
            Setting("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", why),
            Setting(
                "DATALOADER.REPEAT_THRESHOLD",
                round(median, 4),
                "share of the images that contain the median class",
            ),
        ]
    return advice


def plan_any_orientation(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Flip images and rotate them by right angles.

    This is for images without up and down, such as aerial and microscope images. The annotations do
    not show this, so the user has to ask for it.
    """
    if cfg.INPUT.CROP.ENABLED:
        return [
            Note(
                "--any-orientation is ignored, because INPUT.AUGMENTATIONS cannot be combined with "
                "INPUT.CROP. Use FixedSizeCrop in INPUT.AUGMENTATIONS instead of INPUT.CROP"
            )
        ]
    others = [t for t in cfg.INPUT.AUGMENTATIONS if not t.startswith(_ORIENTATION)]
    augmentations = (*others, "HorizontalFlip(prob=0.5)", "Rotate90(prob=0.75)")
    return [
        Setting(
            "INPUT.AUGMENTATIONS",
            augmentations,
            "the images have no up and down (--any-orientation)",
        ),
        Setting("INPUT.RANDOM_FLIP", "horizontal", "the default, which the list replaces"),
    ]
