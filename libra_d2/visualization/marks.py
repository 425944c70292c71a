"""
Draw boxes with labels that can be read in images of any size.

All boxes are XYXY. Shapes: R rectangles in which a label could be drawn; K rectangles that it
should not cover.
"""

import math
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

from .colours import Colour, text_colour
from .text import draw_text, shortened, text_height, text_width

SOLID, DASHED, DOTTED = "solid", "dashed", "dotted"

_DASHES = {DASHED: (4, 3), DOTTED: (1, 1.5)}  # lengths of line and gap, in line widths
_MIN_SIDE = 480  # of the longer side of a picture, in pixels
_MIN_FONT = 9
_MANY = 60  # with more marks, lines are thinner, labels smaller, and small boxes unlabeled
_MAX_COVERED = 0.1  # share of a label that may cover other labels


@dataclass(frozen=True)
class Mark:
    """A box to draw, in absolute pixels of the image."""

    box: Sequence[float]
    colour: Colour
    label: str = ""
    style: str = SOLID


def draw_marks(image: np.ndarray, marks: Sequence[Mark]) -> Image.Image:
    """
    Draw marks on a copy of an image.

    Lines and labels grow with the image. A label that would cover others is left out.

    Args:
        image: (H, W, 3) uint8, RGB.
        marks: marks in the order in which their labels are placed. Marks outside of the image, or
            with NaN or infinity, are left out.

    Returns:
        The picture, enlarged by :func:`enlarged` if the image is small.
    """
    picture = enlarged(image)
    draw = ImageDraw.Draw(picture)
    boxes = np.array([m.box for m in marks], dtype=np.float64).reshape(-1, 4)
    boxes *= np.array(picture.size * 2) / np.array(image.shape[1::-1] * 2)
    visible = np.asarray(np.isfinite(boxes).all(1) & (boxes[:, 2:] >= 0).all(1))
    visible &= (boxes[:, :2] < picture.size).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1)
    marks = [m for m, v in zip(marks, visible) if v]
    corner = np.array(picture.size * 2) - 1
    boxes = np.clip(np.round(boxes[visible]), 0, corner).astype(int)

    width = line_width(picture, len(marks))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i in np.argsort(-areas, kind="stable"):  # draw small boxes over large ones
        draw_outline(draw, boxes[i].tolist(), width, marks[i].colour, marks[i].style)
    places = _Places(picture.size, boxes, areas)
    size = font_size(picture, len(marks))
    for box, mark in zip(boxes, marks):
        side = (box[2:] - box[:2]).max()
        _draw_label(draw, places, box, mark, size, 1.2 * side if len(marks) > _MANY else math.inf)
    return picture


def enlarged(image: np.ndarray) -> Image.Image:
    """Return a copy whose longer side has at least 480 pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    factor = _MIN_SIDE / max(picture.size)
    if factor <= 1:
        return picture.copy()
    size = [max(1, round(factor * side)) for side in picture.size]
    return picture.resize(
        size, Image.Resampling.NEAREST if factor > 4 else Image.Resampling.BICUBIC
    )


def line_width(picture: Image.Image, num_marks: int = 0) -> int:
    """Return the width of lines in pixels: 2 for 640x480, 20 for 8000x6000."""
    width = math.sqrt(picture.width * picture.height) / 350
    return max(1 if num_marks > _MANY else 2, round(width * _shrinking(num_marks)))


def font_size(picture: Image.Image, num_marks: int = 0) -> int:
    """Return the size of the font in pixels: 13 for 640x480, 165 for 8000x6000."""
    size = max(13, math.sqrt(picture.width * picture.height) / 42) * _shrinking(num_marks)
    return max(_MIN_FONT, round(size))


def _shrinking(num_marks: int) -> float:
    return max(0.55, min(1.0, math.sqrt(_MANY / max(1, num_marks))))


def draw_outline(
    draw: ImageDraw.ImageDraw, box: Sequence[int], width: int, colour: Colour, style: str
) -> None:
    """
    Draw the outline of a box, with black edges so that it stands out from any image.

    The line of a small box is drawn around it, so that it does not cover the content.
    """
    side = min(box[2] - box[0], box[3] - box[1])
    out = width if side < 5 * width else width // 2
    edge = round(width / 6 + 0.2)  # thin lines, of many boxes, have none
    canvas = draw.im.size
    x0, y0 = (max(edge, v - out) for v in box[:2])
    x1, y1 = (
        max(low, min(v + out, end - 1 - edge)) for v, end, low in zip(box[2:], canvas, (x0, y0))
    )
    width = max(1, min(width, (min(x1 - x0, y1 - y0) + 1) // 2))
    draw.rectangle((x0 - edge, y0 - edge, x1 + edge, y1 + edge), None, (0, 0, 0), width + 2 * edge)
    if style == SOLID:
        draw.rectangle((x0, y0, x1, y1), None, colour, width)
        return
    for rectangle in _dashes((x0, y0, x1, y1), width, *_DASHES[style]):
        draw.rectangle(rectangle, colour)


def _dashes(box: Tuple, width: int, line: float, gap: float) -> List[Tuple]:
    """Return the dashes along the four sides as rectangles, with one in each corner."""
    x0, y0, x1, y1 = box
    ret = []
    for start, end, horizontal in ((x0, x1, True), (y0, y1, False)):
        length = end - start + 1
        count = max(1, round((length - line * width) / ((line + gap) * width)))
        for i in range(count + 1):
            a = start + round(i * (length - min(length, line * width)) / count)
            b = min(end, a + max(1, round(line * width)) - 1)
            if horizontal:
                ret += [(a, y0, b, y0 + width - 1), (a, y1 - width + 1, b, y1)]
            else:
                ret += [(x0, a, x0 + width - 1, b), (x1 - width + 1, a, x1, b)]
    return ret


def _draw_label(
    draw: ImageDraw.ImageDraw,
    places: "_Places",
    box: np.ndarray,
    mark: Mark,
    size: int,
    widest: float,
) -> None:
    """Draw a label, in a smaller font if there is no room for it in this one."""
    for of_font in dict.fromkeys((size, max(_MIN_FONT, round(0.75 * size)))):
        pad = max(1, round(0.2 * of_font))
        text = shortened(mark.label, of_font, places.size[0] - 2 * pad)
        wanted = text_width(text, of_font) + 2 * pad, text_height(of_font)
        place = places.find(box, wanted) if text and wanted[0] <= widest else None
        if place is not None:
            x, y = place
            draw.rectangle((x, y, x + wanted[0] - 1, y + wanted[1] - 1), mark.colour)
            draw_text(draw, (x + pad, y), text, of_font, text_colour(mark.colour))
            return


class _Places:
    """Finds places for labels inside of the image, away from other labels and small boxes."""

    def __init__(self, size: Tuple[int, int], boxes: np.ndarray, areas: np.ndarray):
        self.size = size
        self._boxes, self._areas = boxes, areas
        self._labels = np.zeros((len(boxes), 4), dtype=int)
        self._count = 0

    def find(self, box: np.ndarray, wanted: Tuple[int, int]) -> Optional[Tuple[int, int]]:
        """
        Find the best place for a label.

        Args:
            box: box that the label belongs to.
            wanted: width and height of the label.

        Returns:
            The upper left corner, or None if the label would cover too much of others everywhere.
        """
        w, h = wanted
        if w > self.size[0] or h > self.size[1]:
            return None
        x0, y0, x1, y1 = box.tolist()
        right = x1 - w + 1
        corners = np.array(
            # Above, inside above, below, inside below, beside.
            [(x0, y0 - h), (right, y0 - h), (x0, y0), (right, y0), (x0, y1 + 1), (right, y1 + 1)]
            + [(x0, y1 - h + 1), (x1 + 1, y0), (x0 - w, y0)]
        )
        corners = np.clip(corners, 0, np.array(self.size) - wanted)
        rectangles = np.concatenate([corners, corners + wanted], 1)
        hidden = _overlaps(rectangles, self._labels[: self._count]) / (w * h)
        small = self._boxes[self._areas < 4 * w * h]
        best = (hidden + 0.5 * _overlaps(rectangles, small) / (w * h)).argmin()
        if hidden[best] > _MAX_COVERED:
            return None
        self._labels[self._count] = rectangles[best]
        self._count += 1
        return tuple(corners[best].tolist())


def _overlaps(rectangles: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (R,) the area of each of R rectangles that K others cover, summed over the others."""
    start = np.maximum(rectangles[:, None, :2], others[None, :, :2])
    end = np.minimum(rectangles[:, None, 2:], others[None, :, 2:])
    return (end - start).clip(min=0).prod(-1).sum(1)
