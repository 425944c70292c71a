"""Check the masks of COCO annotations before pycocotools, which does not, uses them."""

import math
from typing import Any, List, Union

import pycocotools.mask as mask_util

# Points this far outside of the image are refused: pycocotools would write out of bounds.
_MARGIN = 10_000


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def usable_mask(segmentation: Any, height: int, width: int) -> Union[list, dict, None]:
    """
    Return the valid part of a mask.

    Args:
        segmentation: polygons, or RLE with compressed counts or counts as a list.
        height: height of the image in pixels.
        width: width of the image in pixels.

    Returns:
        The valid polygons, or compressed RLE; None if the mask is not valid.
    """
    if isinstance(segmentation, list):
        polygons = [p for p in segmentation if _is_polygon(p, height, width)]
        return polygons or None
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        return None
    counts = segmentation.get("counts")
    if isinstance(counts, list):
        whole = all(type(c) is int and c >= 0 for c in counts)
        if not whole or sum(counts) != height * width:
            return None
        return mask_util.frPyObjects(segmentation, height, width)
    return segmentation if rle_area(counts) == height * width else None


def _is_polygon(points: Any, height: int, width: int) -> bool:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    limits = (width + _MARGIN, height + _MARGIN)
    return all(is_number(v) and abs(v) <= limits[i % 2] for i, v in enumerate(points))


def rle_area(counts: Any) -> int:
    """Return the number of pixels that compressed counts describe, or -1 if they are invalid."""
    if not isinstance(counts, str) or not counts.isascii():
        return -1
    runs: List[int] = []
    value = shift = 0
    for letter in counts.encode():
        letter -= 48
        if not 0 <= letter < 64 or shift > 35:
            return -1
        value |= (letter & 31) << shift
        shift += 5
        if not letter & 32:
            value -= (1 << shift) if letter & 16 else 0
            value += runs[-2] if len(runs) > 2 else 0
            if value < 0:
                return -1
            runs.append(value)
            value = shift = 0
    return sum(runs) if not shift else -1
