"""Draw training views with their objects and anchors, one by one or on a contact sheet."""

import os
from dataclasses import replace
from typing import NamedTuple, Optional, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..colours import GREEN, VERMILION, YELLOW, Colour
from ..marks import DASHED, SOLID, Mark, draw_marks
from ..match_pictures import Kind, with_legend
from ..text import draw_text, shortened, text_height
from .views import Summary, TrainingView

CELL = 480  # pixels of the longer side of a picture on the contact sheet
_COLUMNS = 4
_GAP = 12
_FONT = 15
_PAPER: Colour = (32, 32, 32)
_INK: Colour = (255, 255, 255)
_SOFT: Colour = (190, 190, 190)

OBJECT = Kind("", "object", GREEN, SOLID)
ANCHOR = Kind("", "its best anchor", YELLOW, DASHED)
UNMATCHED = Kind("✗", "object without an anchor", VERMILION, SOLID)


class Cell(NamedTuple):
    """A picture on the contact sheet, with two lines of text."""

    picture: Image.Image
    title: str
    text: str


def draw_view(view: TrainingView, background_iou: Optional[float], side: int) -> Image.Image:
    """
    Draw what training sees of an image.

    The label of an object contains its class, the IoU of its best anchor, and the number of anchors
    that are trained as foreground for it. Objects without an anchor of at least `background_iou`
    come first, so that there is room for their labels.

    Args:
        background_iou: smallest IoU with which an anchor is not background, or None if the detector
            has no anchors.
        side: pixels of the longer side of the picture, at least 480.
    """
    picture = Image.fromarray(view.image)
    factor = side / max(picture.size)
    size = [max(1, round(factor * s)) for s in picture.size]
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    scale = np.array(picture.size * 2) / np.array(view.image.shape[1::-1] * 2)
    boxes = view.boxes * scale
    if view.matches is None or background_iou is None:
        marks = [Mark(b, GREEN, name, SOLID) for b, name in zip(boxes.tolist(), view.class_names)]
        return draw_marks(np.asarray(picture), marks)
    without = view.without_anchor(background_iou)
    anchors = view.matches.best_anchors.numpy() * scale
    marks = []
    for i in np.argsort(~without, kind="stable"):
        iou, count = view.matches.best_ious[i], view.matches.num_foreground[i]
        label = f"{view.class_names[i]} {iou:.2f} x{count}"
        if without[i]:
            label = f"{UNMATCHED.sign} no anchor: {label}"
        kind = UNMATCHED if without[i] else OBJECT
        marks.append(Mark(boxes[i].tolist(), kind.colour, label, kind.style))
    marks += [Mark(a, ANCHOR.colour, "", ANCHOR.style) for a in anchors.tolist()]
    return draw_marks(np.asarray(picture), marks)


def contact_sheet(cells: Sequence[Cell], summary: Summary) -> Image.Image:
    """
    Put pictures side by side, at most four in a row, with a legend below.

    Args:
        cells: at least one, with pictures of at most `CELL` pixels.
    """
    columns = min(_COLUMNS, len(cells))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    of_text = 2 * text_height(_FONT) + _GAP
    heights = [max(c.picture.height for c in row) + of_text for row in rows]
    width = columns * (CELL + _GAP) + _GAP
    sheet = Image.new("RGB", (width, sum(heights) + _GAP * (len(rows) + 1)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _GAP
    for row, height in zip(rows, heights):
        for column, cell in enumerate(row):
            x = _GAP + column * (CELL + _GAP)
            sheet.paste(cell.picture, (x + (CELL - cell.picture.width) // 2, y))
            below = y + height - of_text + _GAP // 2
            lines = ((cell.title, _INK), (cell.text, _SOFT))
            for i, (text, colour) in enumerate(lines):
                at = (x, below + i * text_height(_FONT))
                draw_text(draw, at, shortened(text, _FONT, CELL), _FONT, colour)
        y += height + _GAP
    items = [(OBJECT, summary.num_objects - summary.num_without)]
    if summary.background_iou is not None:
        name = f"{UNMATCHED.name} of IoU {summary.background_iou:g}"
        unmatched = replace(UNMATCHED, name=name)
        items += [(ANCHOR, summary.num_objects), (unmatched, summary.num_without)]
    return with_legend(sheet, items, _FONT)


def cell_of(view: TrainingView, text: str, background_iou: Optional[float]) -> Cell:
    picture = draw_view(view, background_iou, CELL)
    title = f"batch {view.batch}: {os.path.basename(view.file_name)}"
    return Cell(picture, title, text)
