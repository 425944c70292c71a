"""
Images that are augmented together with their annotations.

Detectron2's mapper augments the image first and its annotations after all transforms. Transforms
that drop objects or add some need both at once.
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import transforms as T
from detectron2.data.detection_utils import transform_instance_annotations
from detectron2.structures import BoxMode, polygons_to_bitmask

Annotation = Dict[str, Any]

_PIXELS_ONLY = (T.NoOpTransform, T.BlendTransform, T.ColorTransform)


class AnnotatedInput:
    """
    Input of Detectron2's augmentations, like `AugInput`, with annotations, which each transform
    changes together with the image.

    Attributes:
        image: (H, W, 3) uint8.
        sem_seg: (H, W) uint8 labels, or None.
        annotations: dicts of Detectron2's form, without those of crowds. "bbox" is a float64 array,
            XYXY in pixels. "segmentation" is a list of polygons or a (H, W) uint8 mask.
        num_dropped: number of objects that crops have dropped or copies have hidden.
        num_pasted: number of objects that were copied from another image.
    """

    def __init__(
        self,
        image: np.ndarray,
        annotations: Sequence[Annotation] = (),
        sem_seg: Optional[np.ndarray] = None,
        *,
        mask_format: str = "polygon",
        keypoint_hflip_indices: Optional[np.ndarray] = None,
    ):
        """
        Args:
            annotations: dicts of Detectron2's form. They will be changed.
            mask_format: "polygon" or "bitmask", in which the model takes masks.
        """
        self.image = image
        self.sem_seg = sem_seg
        self.annotations = [_prepared(a) for a in annotations if a.get("iscrowd", 0) == 0]
        self.mask_format = mask_format
        self.keypoint_hflip_indices = keypoint_hflip_indices
        self.num_dropped = 0
        self.num_pasted = 0

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) XYXY in pixels."""
        return np.array([a["bbox"] for a in self.annotations], dtype=np.float64).reshape(-1, 4)

    def transform(self, tfm: T.Transform) -> None:
        self.image = tfm.apply_image(self.image)
        if isinstance(tfm, _PIXELS_ONLY):
            return
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)
        for annotation in self.annotations:
            mask = annotation.get("segmentation")
            if isinstance(mask, np.ndarray):
                del annotation["segmentation"]
            transform_instance_annotations(
                annotation,
                [tfm],
                self.image.shape[:2],
                keypoint_hflip_indices=self.keypoint_hflip_indices,
            )
            if isinstance(mask, np.ndarray):
                annotation["segmentation"] = _transformed_mask(mask, tfm)

    def crop(self, tfm: T.Transform, shares: np.ndarray, min_area: float) -> None:
        """
        Apply a transform that crops, and drop the objects of which too little is left.

        Args:
            shares: (N,) shares of the boxes' areas that the crop leaves.
            min_area: objects with a smaller share are dropped.
        """
        before = len(self.annotations)
        kept = np.flatnonzero(shares >= min_area)
        self.annotations = [self.annotations[i] for i in kept]
        cut = [a for i, a in zip(kept, self.annotations) if shares[i] < 1 and has_mask(a)]
        self.transform(tfm)
        # The box of what is left of a mask may be smaller than what is left of its box.
        empty = [a for a in cut if not _fit_box_to_mask(a)]
        self.annotations = [a for a in self.annotations if not any(a is e for e in empty)]
        self.num_dropped += before - len(self.annotations)


class ClippingCrop(T.CropTransform):
    """Detectron2's crop, which clips polygons without shapely, an optional package."""

    def apply_polygons(self, polygons: List[np.ndarray]) -> List[np.ndarray]:
        window = (self.x0, self.y0, self.x0 + self.w, self.y0 + self.h)
        return [self.apply_coords(p) for p in clip_polygons(polygons, window)]


def clipping(tfm: T.Transform) -> T.Transform:
    """Replace Detectron2's crops in a transform by :class:`ClippingCrop`."""
    if isinstance(tfm, T.TransformList):
        return T.TransformList([clipping(t) for t in tfm.transforms])
    if isinstance(tfm, T.CropTransform):
        return ClippingCrop(tfm.x0, tfm.y0, tfm.w, tfm.h, tfm.orig_w, tfm.orig_h)
    return tfm


def clip_polygons(
    polygons: Sequence[np.ndarray], box: Tuple[float, float, float, float]
) -> List[np.ndarray]:
    """
    Clip polygons to a box by the algorithm of Sutherland and Hodgman (1974).

    A concave polygon of which several parts are left stays one polygon, whose parts are joined by
    lines on the border of the box.

    Args:
        polygons: (N, 2) points each.
        box: XYXY.
    """
    clipped = [_clip_polygon(np.asarray(p, np.float64).reshape(-1, 2), box) for p in polygons]
    return [p for p in clipped if len(p) >= 3 and _area(p) > 0]


def _clip_polygon(points: np.ndarray, box: Tuple[float, float, float, float]) -> np.ndarray:
    x0, y0, x1, y1 = box
    for axis, bound, sign in ((0, x0, 1), (1, y0, 1), (0, x1, -1), (1, y1, -1)):
        inside = sign * (points[:, axis] - bound) >= 0
        if inside.all():
            continue
        ret = []
        for i in range(len(points)):
            j = (i + 1) % len(points)
            p, q = points[i], points[j]
            if inside[i]:
                ret.append(p)
            if inside[i] != inside[j]:
                crossing = p + (bound - p[axis]) / (q[axis] - p[axis]) * (q - p)
                crossing[axis] = bound
                ret.append(crossing)
        points = np.array(ret).reshape(-1, 2)
    return points


def _area(polygon: np.ndarray) -> float:
    x, y = (polygon - polygon.mean(0)).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def has_mask(annotation: Annotation) -> bool:
    return len(annotation.get("segmentation", ())) > 0


def mask_within(annotation: Annotation, box: Tuple[int, int, int, int]) -> np.ndarray:
    """Return the pixels of an object within a box (XYXY): of its mask, or all if it has none."""
    x0, y0, x1, y1 = box
    if not has_mask(annotation):
        return np.ones((y1 - y0, x1 - x0), bool)
    mask = annotation["segmentation"]
    if isinstance(mask, np.ndarray):
        return mask[y0:y1, x0:x1] > 0
    polygons = [np.asarray(p, np.float64).reshape(-1, 2) - (x0, y0) for p in mask]
    return polygons_to_bitmask([p.reshape(-1) for p in polygons], y1 - y0, x1 - x0)


def pixel_box(box: np.ndarray, size: Tuple[int, int]) -> Tuple[int, int, int, int]:
    """Return the whole pixels that a box (XYXY) touches within an image of (height, width)."""
    x0, y0 = np.floor(box[:2] + 1e-3).astype(int).clip(0).tolist()
    x1, y1 = np.minimum(np.ceil(box[2:] - 1e-3).astype(int), size[::-1]).tolist()
    return x0, y0, x1, y1


def bounds(mask: np.ndarray) -> Tuple[int, int, int, int]:
    """Return the bounding box (XYXY) of a (H, W) mask that is not empty."""
    x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


def _prepared(annotation: Annotation) -> Annotation:
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    annotation.update(bbox=np.array(box, dtype=np.float64), bbox_mode=BoxMode.XYXY_ABS)
    mask = annotation.get("segmentation")
    if isinstance(mask, dict):
        annotation["segmentation"] = mask_util.decode(mask)
    elif isinstance(mask, list):
        annotation["segmentation"] = [np.array(p, dtype=np.float64) for p in mask]
    return annotation


def _fit_box_to_mask(annotation: Annotation) -> bool:
    """Shrink the box to the mask. Return False if the mask is empty."""
    mask = annotation["segmentation"]
    if isinstance(mask, np.ndarray):
        if not mask.any():
            return False
        annotation["bbox"] = np.array(bounds(mask), dtype=np.float64)
    elif mask:
        points = np.concatenate([p.reshape(-1, 2) for p in mask])
        annotation["bbox"] = np.concatenate([points.min(0), points.max(0)])
    return bool(len(mask))


def _transformed_mask(mask: np.ndarray, tfm: T.Transform) -> np.ndarray:
    if isinstance(tfm, T.TransformList):
        for t in tfm.transforms:
            mask = _transformed_mask(mask, t)
        return mask
    if isinstance(tfm, T.PadTransform):  # it pads label maps by another value than 0
        return np.pad(mask, ((tfm.y0, tfm.y1), (tfm.x0, tfm.x1)))
    return tfm.apply_segmentation(mask)
