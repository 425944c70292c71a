"""
The geometry of slices: where they are in an image, and what they show of boxes and masks.

Boxes and slices are XYXY in absolute pixels. A slice is `[x0, y0, x1, y1]` with integers, and
contains the pixels from x0 to x1 - 1. In shapes, N is the number of boxes and S of slices.
"""

import math
from typing import List, Sequence, Tuple

import numpy as np
from pycocotools import mask as mask_util

from ...errors import UserError

MIN_SIZE = 32  # pixels, the largest stride of the usual backbones
MAX_OVERLAP = 0.9  # with more, an image would have hundreds of times its pixels


def check_slicing(
    size: int, overlap: float, names: Tuple[str, str] = ("--size", "--overlap")
) -> None:
    """
    Raises:
        UserError: the size of slices or their overlap is out of range. `names` are the options.
    """
    if size < MIN_SIZE:
        raise UserError(f"{names[0]} must be at least {MIN_SIZE} pixels, got {size}")
    if not 0 <= overlap <= MAX_OVERLAP:
        raise UserError(f"{names[1]} must be in [0, {MAX_OVERLAP}], got {overlap:g}")


def slice_starts(length: int, size: int, overlap: float) -> List[int]:
    """
    Return the first pixels of the slices along one side of an image. The slices cover the side, and
    neighbors share at least the share `overlap` of their size. The last slice is moved back, so
    that it ends with the image.

    >>> slice_starts(1000, 400, 0.25)
    [0, 300, 600]
    >>> slice_starts(900, 400, 0.25), slice_starts(300, 400, 0.25)
    ([0, 300, 500], [0])

    Args:
        length: length of the side, in pixels.
        size: length of a slice. A side that is not longer has one slice, which ends with it.
        overlap: in [0, 0.9].
    """
    step = max(1, size - math.ceil(overlap * size - 1e-9))
    last = max(0, length - size)
    return [*range(0, last, step), last]


def slice_grid(width: int, height: int, size: int, overlap: float) -> np.ndarray:
    """
    Return the slices of an image (S, 4), row by row. See :func:`slice_starts`.

    >>> slice_grid(900, 300, 500, 0.2).tolist()
    [[0, 0, 500, 300], [400, 0, 900, 300]]
    """
    xs, ys = (slice_starts(length, size, overlap) for length in (width, height))
    slices = [(x, y, min(x + size, width), min(y + size, height)) for y in ys for x in xs]
    return np.array(slices, dtype=np.int64)


def clip_boxes(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """
    Clip boxes to a window, or each one to a window of its own.

    Args:
        boxes: (..., 4).
        window: (..., 4). Leading dimensions are broadcast.

    Returns:
        (..., 4). Boxes outside of the window become boxes without area, within it.
    """
    low, high = np.concatenate([window[..., :2]] * 2, -1), np.concatenate([window[..., 2:]] * 2, -1)
    return np.clip(boxes, low, high)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas of boxes: (..., 4) to (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip_polygon(points: Sequence[float], window: Sequence[float]) -> List[float]:
    """
    Clip a polygon to a window (Sutherland and Hodgman, 1974, doi:10.1145/360767.360802).

    A polygon of which the window shows several parts stays one polygon, whose parts are connected
    along the border of the window.

    >>> clip_polygon([0, 0, 20, 0, 20, 10, 0, 10], [5, 0, 15, 10])
    [5.0, 0.0, 15.0, 0.0, 15.0, 10.0, 5.0, 10.0]

    Args:
        points: x0, y0, x1, y1, ... in the coordinates of the image.
        window: XYXY.

    Returns:
        Points in the coordinates of the image, or [] if the window shows no part with an area.
    """
    polygon = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    x0, y0, x1, y1 = window
    if (polygon >= (x0, y0)).all() and (polygon <= (x1, y1)).all():
        return polygon.ravel().tolist()
    for axis, limit, sign in ((0, x0, 1), (0, x1, -1), (1, y0, 1), (1, y1, -1)):
        polygon = _cut_polygon(polygon, axis, limit, sign)
    clipped = _without_spikes(polygon).ravel().tolist()
    return clipped if polygon_area(clipped) > 0 else []


def _cut_polygon(polygon: np.ndarray, axis: int, limit: float, sign: int) -> np.ndarray:
    """Keep what has a coordinate of at least `limit`, or with `sign` -1, of at most `limit`."""
    following = np.roll(polygon, -1, axis=0)
    inside, inside_next = (sign * (p[:, axis] - limit) for p in (polygon, following))
    crosses = inside * inside_next < 0
    share = np.divide(inside, inside - inside_next, out=np.zeros(len(polygon)), where=crosses)
    crossings = polygon + (following - polygon) * share[:, None]
    crossings[:, axis] = limit
    both = np.stack([polygon, crossings], axis=1).reshape(-1, 2)
    return both[np.stack([inside >= 0, crosses], axis=1).ravel()]


def _without_spikes(polygon: np.ndarray) -> np.ndarray:
    """
    Remove points at which the outline turns back on itself. They enclose nothing, but would make
    the bounds of the polygon too large.
    """
    points = polygon.tolist()
    i = 0
    unchanged = 0
    while len(points) >= 3 and unchanged <= len(points):
        i %= len(points)
        (ax, ay), (bx, by), (cx, cy) = points[i - 1], points[i], points[(i + 1) % len(points)]
        ux, uy, vx, vy = bx - ax, by - ay, cx - bx, cy - by
        if ux * vy == uy * vx and ux * vx + uy * vy <= 0:
            del points[i]
            i, unchanged = i - 1, 0
        else:
            i, unchanged = i + 1, unchanged + 1
    return np.array(points if len(points) >= 3 else [], dtype=np.float64).reshape(-1, 2)


def polygon_area(points: Sequence[float]) -> float:
    """
    Return the area of a polygon that does not cross itself, in squared pixels.

    >>> polygon_area([0, 0, 4, 0, 4, 3])
    6.0
    """
    x, y = np.asarray(points, dtype=np.float64).reshape(-1, 2).T
    if not len(x):
        return 0.0
    x, y = x - x[0], y - y[0]
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def polygon_bounds(polygons: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the box around polygons (4,)."""
    points = np.concatenate([np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in polygons])
    return np.concatenate([points.min(0), points.max(0)])


def crop_mask(mask: np.ndarray, window: Sequence[int]) -> Tuple[dict, int, np.ndarray]:
    """
    Cut a window out of a mask.

    Args:
        mask: (H, W) uint8 of zeros and ones.
        window: XYXY, within the mask.

    Returns:
        RLE of the window, whose counts are text; the number of its pixels in the mask; and the box
        around them (4,) in the coordinates of the image, which has no area if there are none.
    """
    x0, y0, x1, y1 = window
    part = np.asfortranarray(mask[y0:y1, x0:x1])
    rle = mask_util.encode(part)
    x, y, width, height = mask_util.toBbox(rle).tolist()
    box = np.array([x, y, x + width, y + height]) + (x0, y0, x0, y0)
    counts = {"size": [y1 - y0, x1 - x0], "counts": rle["counts"].decode("ascii")}
    return counts, int(mask_util.area(rle)), box
