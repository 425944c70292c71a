"""The statistics of a training set that the rules of a plan use."""

from dataclasses import dataclass
from typing import List, Tuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data.checks.anchors import objects_per_view, resized_shapes
from ..data.datasets.annotation_arrays import Annotations
from ..errors import UserError


@dataclass(frozen=True)
class TrainingSet:
    """
    The objects of a training set, without crowd regions and boxes without area, which training
    does not use.

    Shapes: I images, N objects in all images, K classes.
    """

    objects: Annotations
    file_names: List[str]  # (I,)
    class_names: Tuple[str, ...]  # (K,)

    @classmethod
    def of(cls, cfg: CfgNode) -> "TrainingSet":
        """
        Read the registered data sets of `DATASETS.TRAIN`.

        Raises:
            UserError: they have no classes or no objects.
        """
        dicts = [d for name in cfg.DATASETS.TRAIN for d in DatasetCatalog.get(name)]
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:  # training leaves images without objects out
            dicts = [d for d in dicts if any(not a.get("iscrowd", 0) for a in d["annotations"])]
        objects = Annotations.of(dicts).without_crowd().with_area()
        names = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes") or ()
        if not len(objects.boxes) or not names:
            raise UserError(
                f"DATASETS.TRAIN must have classes and objects to plan for, but "
                f"{cfg.DATASETS.TRAIN} has none"
            )
        return cls(objects, [d["file_name"] for d in dicts], tuple(names))

    @property
    def num_images(self) -> int:
        return len(self.file_names)

    @property
    def num_objects(self) -> int:
        return len(self.objects.boxes)

    @property
    def objects_per_image(self) -> np.ndarray:
        """(I,) number of objects in each image."""
        return np.bincount(self.objects.image, minlength=self.num_images)

    def objects_per_view(self, cfg: CfgNode) -> np.ndarray:
        """Return (I,) the expected number of objects that training sees at once."""
        return objects_per_view(self.objects, self.num_images, cfg, "train")

    def resized_shapes(self, cfg: CfgNode) -> np.ndarray:
        """Return (N, 2) widths and heights of the objects, in pixels of the network's input."""
        return resized_shapes(self.objects, cfg, "train")

    @property
    def image_frequencies(self) -> np.ndarray:
        """(K,) share of the images that contain an object of the class."""
        pairs = np.unique(np.stack([self.objects.image, self.objects.classes], 1), axis=0)
        counts = np.bincount(pairs[:, 1], minlength=len(self.class_names))
        return counts / max(self.num_images, 1)
