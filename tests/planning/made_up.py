"""Training sets made of numbers, without images."""

import numpy as np

from libra_d2.config import load_cfg
from libra_d2.data.datasets.annotation_arrays import Annotations
from libra_d2.planning.training_set import TrainingSet

from ..support.project import ROOT

MOBILENET = str(ROOT / "configs/libra_mobilenet_v2.yaml")


def config(*opts, config_file=MOBILENET):
    return load_cfg(config_file, ["MODEL.DEVICE", "cpu", *opts])


def training_set(shapes, per_image, *, size=(640, 480), classes=None, corners=None, num_classes=1):
    """
    Args:
        shapes: (N, 2) widths and heights, in the order of the images.
        per_image: number of objects of each image, or one number for all images.
        corners: (N, 2) upper left corners; by default, all are at 0.
    """
    shapes = np.asarray(shapes, dtype=np.float64).reshape(-1, 2)
    counts = np.atleast_1d(per_image)
    if len(counts) == 1:
        counts = np.full(-(-len(shapes) // counts[0]), counts[0])
    image = np.repeat(np.arange(len(counts)), counts)[: len(shapes)]
    corners = np.zeros_like(shapes) if corners is None else np.asarray(corners, dtype=np.float64)
    classes = np.zeros(len(shapes), np.int64) if classes is None else np.asarray(classes)
    num_classes = max(num_classes, int(classes.max(initial=0)) + 1)
    objects = Annotations(
        sizes=np.tile(np.array(size, dtype=np.float64), (len(counts), 1)),
        boxes=np.concatenate([corners, corners + shapes], 1),
        image=image,
        classes=classes,
        crowd=np.zeros(len(shapes), bool),
        ids=list(range(len(shapes))),
    )
    names = tuple(f"class {i}" for i in range(num_classes))
    return TrainingSet(objects, [f"{i}.jpg" for i in range(len(counts))], names)


def log_normal_shapes(rng, count, side, *, spread=0.3, ratio_spread=0.2):
    """(count, 2) widths and heights around a side."""
    sides = side * np.exp(rng.normal(0, spread, count))
    ratios = np.exp(rng.normal(0, ratio_spread, count))
    return np.stack([sides / ratios**0.5, sides * ratios**0.5], 1)


def values(advice):
    """Key -> planned value."""
    return {item.key: item.value for item in advice if hasattr(item, "key")}


def notes(advice):
    return "\n".join(item.text for item in advice if hasattr(item, "text"))
