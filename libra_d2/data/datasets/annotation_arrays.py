"""
The objects of a data set as arrays.

Shapes: I: number of images; N: number of objects in all images.
"""

from dataclasses import dataclass, replace
from typing import Any, Dict, List

import numpy as np
from detectron2.structures import BoxMode

from .coco import usable_annotations


@dataclass(frozen=True)
class Annotations:
    sizes: np.ndarray  # (I, 2) width and height
    boxes: np.ndarray  # (N, 4) XYXY, absolute pixels
    image: np.ndarray  # (N,) index of the image
    classes: np.ndarray  # (N,)
    crowd: np.ndarray  # (N,) bool
    ids: List[Any]  # (N,) annotation ids

    @classmethod
    def of(cls, dicts: List[Dict[str, Any]]) -> "Annotations":
        """Convert Detectron2's dataset dicts. Image sizes that are missing become infinite."""
        objects = [(i, a) for i, d in enumerate(dicts) for a in d.get("annotations", ())]
        boxes = np.array([a["bbox"] for _, a in objects], dtype=np.float64).reshape(-1, 4)
        modes = np.array([int(a["bbox_mode"]) for _, a in objects], dtype=np.int64)
        xywh = modes == int(BoxMode.XYWH_ABS)
        boxes[xywh, 2:] += boxes[xywh, :2]
        sizes = [(d.get("width", np.inf), d.get("height", np.inf)) for d in dicts]
        return cls(
            sizes=np.array(sizes, dtype=np.float64).reshape(-1, 2),
            boxes=boxes,
            image=np.array([i for i, _ in objects], dtype=np.int64),
            classes=np.array([a["category_id"] for _, a in objects], dtype=np.int64),
            crowd=np.array([a.get("iscrowd", 0) != 0 for _, a in objects], dtype=bool),
            ids=[a.get("id", i) for i, (_, a) in enumerate(objects)],
        )

    @classmethod
    def of_coco(cls, content: Dict[str, Any]) -> "Annotations":
        """
        Convert the content of a COCO annotation file. Images and classes keep the order of the
        file. Annotations that are not ground truth are left out, see :func:`usable_annotations`.
        """
        image_index = {image["id"]: i for i, image in enumerate(content["images"])}
        class_index = {category["id"]: k for k, category in enumerate(content["categories"])}
        annotations = usable_annotations(content)
        boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        sizes = [(image["width"], image["height"]) for image in content["images"]]
        return cls(
            sizes=np.array(sizes, dtype=np.float64).reshape(-1, 2),
            boxes=boxes,
            image=np.array([image_index[a["image_id"]] for a in annotations], dtype=np.int64),
            classes=np.array([class_index[a["category_id"]] for a in annotations], dtype=np.int64),
            crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
            ids=[a["id"] for a in annotations],
        )

    def without_crowd(self) -> "Annotations":
        return self._selected(~self.crowd)

    def with_area(self) -> "Annotations":
        """Leave out objects whose box has no area."""
        return self._selected(self.widths_heights.min(1) > 0)

    def _selected(self, kept: np.ndarray) -> "Annotations":
        return replace(
            self,
            boxes=self.boxes[kept],
            image=self.image[kept],
            classes=self.classes[kept],
            crowd=self.crowd[kept],
            ids=[id_ for id_, k in zip(self.ids, kept) if k],
        )

    @property
    def widths_heights(self) -> np.ndarray:
        return self.boxes[:, 2:] - self.boxes[:, :2]
