"""Annotations of slices: what a slice shows of the objects of its image."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from pycocotools import mask as mask_util

from ..datasets.coco_masks import is_number, usable_mask
from .geometry import (
    box_areas,
    clip_boxes,
    clip_polygon,
    crop_mask,
    polygon_area,
    polygon_bounds,
)


@dataclass
class SlicedAnnotations:
    """
    The annotations of an image by slice.

    `kept` has a list for each slice. Each list below has the category id of each part or object:
    `whole` and `cut` parts that were kept, parts that were `dropped` because too little of the
    object is visible, `crowd` parts, and objects of which no slice has a part (`lost`).
    """

    kept: List[List[Dict[str, Any]]]
    whole: List[Any] = field(default_factory=list)
    cut: List[Any] = field(default_factory=list)
    dropped: List[Any] = field(default_factory=list)
    crowd: List[Any] = field(default_factory=list)
    lost: List[Any] = field(default_factory=list)
    bad_masks: List[Any] = field(default_factory=list)  # annotation ids


def slice_annotations(
    annotations: Sequence[Dict[str, Any]],
    width: int,
    height: int,
    slices: np.ndarray,
    min_visible: float,
) -> SlicedAnnotations:
    """
    Clip annotations to slices.

    A part has the annotation's keys with boxes, masks, keypoints and areas of the slice, and
    `visible`, the share of the object that the slice shows: of its mask if it has a valid one, or
    else of its box. An object is first clipped to its image.

    Args:
        annotations: COCO annotations of an image whose boxes overlap with it.
        width, height: of the image, in pixels.
        slices: (S, 4) XYXY.
        min_visible: share of an object that must be visible for its part to be kept. Parts of crowd
            regions are always kept.
    """
    result = SlicedAnnotations([[] for _ in slices])
    xywh = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    boxes = clip_boxes(corners, np.array([0, 0, width, height]))
    parts = clip_boxes(boxes[:, None], slices[None])
    shown = box_areas(parts) > 0
    for i, annotation in enumerate(annotations):
        mask = _Mask.of(annotation, width, height)
        if mask is None and annotation.get("segmentation"):
            result.bad_masks.append(annotation["id"])
        category, crowd = annotation["category_id"], bool(annotation["iscrowd"])
        least = 0 if crowd else min_visible
        found = False
        for s in np.flatnonzero(shown[i]):
            whole = bool((parts[i, s] == boxes[i]).all())
            part = _part(annotation, boxes[i], parts[i, s], slices[s], mask, whole)
            if part["visible"] > 0 and part["visible"] >= least:
                result.kept[s].append(part)
                (result.crowd if crowd else result.whole if whole else result.cut).append(category)
                found = True
            elif not crowd:
                result.dropped.append(category)
        if not found and not crowd:
            result.lost.append(category)
    return result


@dataclass(frozen=True)
class _Mask:
    """A valid mask: polygons that are clipped to the image, or all pixels of an RLE."""

    area: float
    polygons: List[List[float]]
    pixels: Optional[np.ndarray] = None  # (H, W) uint8

    @classmethod
    def of(cls, annotation: Dict[str, Any], width: int, height: int) -> Optional["_Mask"]:
        valid = usable_mask(annotation.get("segmentation"), height, width)
        if isinstance(valid, dict):
            pixels = mask_util.decode(valid)
            mask = cls(int(pixels.sum()), [], pixels)
        else:
            clipped = [clip_polygon(p, (0, 0, width, height)) for p in valid or ()]
            mask = cls(sum(map(polygon_area, clipped)), [p for p in clipped if p])
        return mask if mask.area > 0 else None


def _part(
    annotation: Dict[str, Any],
    box: np.ndarray,
    shown: np.ndarray,
    window: np.ndarray,
    mask: Optional[_Mask],
    whole: bool,
) -> Dict[str, Any]:
    """
    Return the annotation of a slice.

    Args:
        box, shown: (4,) XYXY, the box of the object in the image, and what is in the slice.
        window: (4,) XYXY, the slice.
        whole: whether the slice shows the whole box.
    """
    part = {k: v for k, v in annotation.items() if k != "segmentation"}
    visible = float(box_areas(shown) / box_areas(box))
    if mask is not None:
        segmentation, area, bounds = _clip_mask(mask, window)
        visible = min(1.0, area / mask.area)
        if segmentation:
            part["segmentation"] = segmentation
            # The box of what is visible, unless box and mask do not fit together.
            tight = clip_boxes(bounds, shown)
            shown = tight if not whole and box_areas(tight) > 0 else shown
    if whole:
        visible = 1.0
    x0, y0, x1, y1 = (shown - np.tile(window[:2], 2)).tolist()
    part["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    if is_number(annotation.get("area")):
        part["area"] = annotation["area"] * visible
    else:
        part["area"] = mask.area * visible if mask else part["bbox"][2] * part["bbox"][3]
    if annotation.get("keypoints"):
        part.update(_keypoints(annotation, window))
    part["visible"] = visible
    return part


def _clip_mask(mask: _Mask, window: np.ndarray) -> tuple:
    """Return the segmentation in the slice or None, its area, and its box in the image."""
    if mask.pixels is not None:
        rle, area, bounds = crop_mask(mask.pixels, window.tolist())
        return (rle if area else None), area, bounds
    polygons = [p for p in (clip_polygon(p, window.tolist()) for p in mask.polygons) if p]
    if not polygons:
        return None, 0.0, window
    moved = [(np.reshape(p, (-1, 2)) - window[:2]).ravel().tolist() for p in polygons]
    return moved, sum(map(polygon_area, polygons)), polygon_bounds(polygons)


def _keypoints(annotation: Dict[str, Any], window: np.ndarray) -> Dict[str, Any]:
    """Move keypoints. Those outside of the slice are not labeled, which COCO writes as 0, 0, 0."""
    points = np.reshape(annotation["keypoints"], (-1, 3)).astype(np.float64)
    inside = (points[:, :2] >= window[:2]).all(1) & (points[:, :2] < window[2:]).all(1)
    labeled = inside & (points[:, 2] > 0)
    points[:, :2] -= window[:2]
    points[~labeled] = 0
    return {"keypoints": points.ravel().tolist(), "num_keypoints": int(labeled.sum())}
