"""Which images are drawn how often, and how they are augmented."""

import numpy as np
from detectron2.config import CfgNode

from .settings import Advice, Note, Setting
from .training_set import TrainingSet

_RARE = 0.25  # of the median share of images of a class: a class below it is rare
_SHOWN = 3
_ORIENTATION = ("HorizontalFlip", "VerticalFlip", "Rotate90")


def plan_repeat_factors(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Repeat images of rare classes if a class is in fewer than a quarter of the images of the median
    class.

    The threshold is the median share of images of a class, so that a class with a quarter of it is
    drawn twice as often.

    Source: repeat-factor sampling of LVIS (Gupta et al., 2019), equation in section 5; its
    threshold of 0.001 is for 1200 classes.
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
        advice.append(Note(f"no objects of {len(missing)} classes ({names}{more}) to learn from"))
    if rare:
        names = ", ".join(f"{data.class_names[i]} in {shares[i]:.1%}" for i in rare[:_SHOWN])
        why = f"{len(rare)} rare classes ({names} of the images; median {median:.1%})"
        advice += [
            Setting("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", why),
            Setting("DATALOADER.REPEAT_THRESHOLD", round(median, 4), "median share of the images"),
        ]
    return advice


def plan_any_orientation(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Flip and rotate by right angles: for images without up and down, such as aerial and microscope
    images. The user has to say so, since annotations do not tell.
    """
    if cfg.INPUT.CROP.ENABLED:
        return [
            Note(
                "--any-orientation is not planned, because INPUT.AUGMENTATIONS does not go with "
                "INPUT.CROP; put a crop into INPUT.AUGMENTATIONS instead"
            )
        ]
    others = [t for t in cfg.INPUT.AUGMENTATIONS if not t.startswith(_ORIENTATION)]
    augmentations = (*others, "HorizontalFlip(prob=0.5)", "Rotate90(prob=0.75)")
    return [
        Setting("INPUT.RANDOM_FLIP", "horizontal", "INPUT.AUGMENTATIONS takes its place"),
        Setting("INPUT.AUGMENTATIONS", augmentations, "--any-orientation"),
    ]
