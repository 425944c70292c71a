"""Draw what a detector found and what it missed."""

from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

from ..predictions.matching import match
from ..predictions.score_thresholds import ScoreThresholds
from .colours import GREEN, GREY, VERMILION, YELLOW, Colour
from .marks import DASHED, DOTTED, SOLID, Mark, draw_marks, draw_outline, font_size
from .text import draw_text, shortened, text_height, text_width

_PAPER: Colour = (32, 32, 32)
_INK: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Kind:
    sign: str
    name: str
    colour: Colour
    style: str

    def mark(self, box: np.ndarray, label: str) -> Mark:
        return Mark(box.tolist(), self.colour, f"{self.sign} {label}", self.style)


HIT = Kind("✓", "hit", GREEN, SOLID)
FALSE = Kind("✗", "false", VERMILION, DASHED)
MISSED = Kind("○", "missed", YELLOW, DOTTED)
IGNORED = Kind("~", "in a crowd", GREY, DOTTED)


@dataclass(frozen=True)
class MatchCounts:
    hits: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: "MatchCounts") -> "MatchCounts":
        return MatchCounts(
            self.hits + other.hits, self.false + other.false, self.missed + other.missed
        )


def draw_matches(
    image: np.ndarray,
    objects: Sequence[Dict[str, Any]],
    detections: Sequence[Dict[str, Any]],
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
    side_by_side: bool = False,
    legend: bool = True,
) -> np.ndarray:
    """
    Draw hits, false detections and missed objects, each with its own color, line style and sign.

    Detections and objects are matched by :func:`libra_d2.predictions.matching.match`.

    Args:
        image: (H, W, 3) uint8, RGB.
        objects: dicts with "bbox" (XYWH in absolute pixels), "class" (name) and, optionally,
            "crowd" (bool, by default False). Other keys are ignored.
        detections: dicts with "bbox", "class" and "score".
        iou_threshold: detections with lower IoUs are not hits.
        score_threshold: detections with lower scores are not drawn.
        side_by_side: whether to draw objects on the left and detections on the right.
        legend: whether to add a strip below that explains the signs.

    Returns:
        (H', W', 3) uint8, RGB. Small images are enlarged as by
        :func:`~libra_d2.visualization.detection_pictures.draw_boxes`.
    """
    thresholds = ScoreThresholds(score_threshold)
    picture, _ = matches_picture(
        image, objects, detections, iou_threshold, thresholds, side_by_side, legend
    )
    return np.array(picture)


def matches_picture(
    image: np.ndarray,
    objects: Sequence[Dict[str, Any]],
    detections: Sequence[Dict[str, Any]],
    iou_threshold: float,
    thresholds: ScoreThresholds,
    side_by_side: bool,
    legend: bool,
) -> Tuple[Image.Image, MatchCounts]:
    """Return the picture of :func:`draw_matches` and the numbers of what it shows."""
    detections = [d for d in detections if d["score"] >= thresholds.of(d["class"])]
    detections = sorted(detections, key=lambda d: -d["score"])
    boxes, gt_boxes = _boxes(detections), _boxes(objects)
    crowd = [bool(o.get("crowd", False)) for o in objects]
    matched, ignored = match(
        boxes,
        [d["score"] for d in detections],
        [d["class"] for d in detections],
        gt_boxes,
        [o["class"] for o in objects],
        crowd,
        iou_threshold,
    )
    found = set(matched.tolist())

    kinds = [IGNORED if i else FALSE if m < 0 else HIT for m, i in zip(matched, ignored)]
    gt_kinds = [
        IGNORED if of_crowd else HIT if i in found else MISSED for i, of_crowd in enumerate(crowd)
    ]
    marks = [
        kind.mark(box, f"{d['class']} {d['score']:.0%}")
        for kind, box, d in zip(kinds, boxes, detections)
    ]
    gt_marks = [
        kind.mark(box, f"crowd of {o['class']}" if kind is IGNORED else o["class"])
        for kind, box, o in zip(gt_kinds, gt_boxes, objects)
    ]
    if side_by_side:
        pair = [draw_marks(image, gt_marks), draw_marks(image, marks)]
        titles = (
            f"ground truth ({len(objects)})",
            f"detections with score ≥ {thresholds.range_text()} ({len(marks)})",
        )
        picture = _beside([_with_title(p, title) for p, title in zip(pair, titles)])
        size = font_size(pair[0])
    else:
        missed = [m for m, kind in zip(gt_marks, gt_kinds) if kind is not HIT]
        picture = draw_marks(image, [*missed, *marks])
        size = font_size(picture)
    counts = MatchCounts(kinds.count(HIT), kinds.count(FALSE), gt_kinds.count(MISSED))
    if legend:
        items = [(HIT, counts.hits), (FALSE, counts.false), (MISSED, counts.missed)]
        num_ignored = kinds.count(IGNORED)
        items += [(IGNORED, num_ignored)] if num_ignored or any(crowd) else []
        picture = with_legend(picture, items, size)
    return picture, counts


def _boxes(entries: Sequence[Dict[str, Any]]) -> np.ndarray:
    boxes = np.array([e["bbox"] for e in entries], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _with_title(picture: Image.Image, title: str) -> Image.Image:
    size = font_size(picture)
    height = text_height(size) + size // 2
    ret = Image.new("RGB", (picture.width, picture.height + height), _PAPER)
    ret.paste(picture, (0, height))
    title = shortened(title, size, picture.width - size)
    draw_text(ImageDraw.Draw(ret), (size // 2, size // 4), title, size, _INK)
    return ret


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    gap = max(4, pictures[0].width // 100)
    width = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    ret = Image.new("RGB", (width, pictures[0].height), _PAPER)
    x = 0
    for picture in pictures:
        ret.paste(picture, (x, 0))
        x += picture.width + gap
    return ret


def with_legend(picture: Image.Image, items: Sequence[Tuple[Kind, int]], size: int) -> Image.Image:
    """Add a legend below, on as many lines as it needs. A narrow picture gets a margin."""
    texts = [f"{kind.sign} {kind.name}: {count}".strip() for kind, count in items]
    widths = [text_width(text, size) + 4 * size for text in texts]
    width = max(picture.width, *widths)
    lines: List[List[int]] = [[]]
    for i in range(len(texts)):
        if lines[-1] and sum(widths[j] for j in (*lines[-1], i)) > width:
            lines.append([])
        lines[-1].append(i)
    height = text_height(size) + size // 2
    ret = Image.new("RGB", (width, picture.height + height * len(lines)), _PAPER)
    ret.paste(picture, (0, 0))
    draw = ImageDraw.Draw(ret)
    for row, line in enumerate(lines):
        x, y = size // 2, picture.height + row * height + size // 4
        for i in line:
            box = (x, y + size // 8, x + 2 * size, y + text_height(size) - size // 8)
            kind = items[i][0]
            draw_outline(draw, box, max(2, size // 8), kind.colour, kind.style)
            draw_text(draw, (x + round(2.5 * size), y), texts[i], size, _INK)
            x += widths[i]
    return ret
