"""What training sees of an image, and statistics of several such views."""

from dataclasses import dataclass, field
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ...data.checks.anchor_matches import AnchorMatches

MAX_WITHOUT = 0.01  # share of objects without an anchor above which other anchors are advised


class TrainingView(NamedTuple):
    """
    An image with its objects after all augmentations.

    Shapes: N objects.

    Attributes:
        batch: number of the training step that uses the image, counted from 1.
        image: (H, W, 3) uint8, RGB.
        boxes: (N, 4), XYXY in pixels of `image`.
        class_names: N names.
        padded: height and width of the network's input, to which all images of a batch are padded.
        matches: the anchors of the objects, or None if the detector has no anchors.
    """

    batch: int
    file_name: str
    image: np.ndarray
    boxes: np.ndarray
    class_names: List[str]
    padded: Tuple[int, int]
    matches: Optional[AnchorMatches]

    def without_anchor(self, background_iou: float) -> np.ndarray:
        """Return (N,) bool: objects whose best anchor has an IoU below `background_iou`."""
        if self.matches is None:
            return np.zeros(len(self.boxes), dtype=bool)
        return (self.matches.best_ious < background_iou).numpy()


@dataclass
class Summary:
    """
    Statistics of all views.

    Attributes:
        background_iou: an object is counted as without an anchor if the IoU of its best anchor is
            lower than this. None if the detector has no anchors.
        objects_by_level: number of objects by the level of their best anchor.
        num_without: number of objects without an anchor.
        num_foreground: number of anchors that are trained as foreground, for each object.
        num_skipped: number of images that could not be read and were replaced by others.
    """

    background_iou: Optional[float]
    objects_by_level: Dict[str, int]
    num_images: int = 0
    num_objects: int = 0
    num_without: int = 0
    num_foreground: List[int] = field(default_factory=list)
    num_skipped: int = 0

    @classmethod
    def of_levels(cls, levels: Tuple[str, ...], background_iou: float) -> "Summary":
        return cls(background_iou, dict.fromkeys(levels, 0))

    @classmethod
    def without_anchors(cls) -> "Summary":
        return cls(None, {})

    def add(self, view: TrainingView) -> None:
        self.num_images += 1
        self.num_objects += len(view.boxes)
        if view.matches is None or self.background_iou is None:
            return
        self.num_without += int(view.without_anchor(self.background_iou).sum())
        self.num_foreground += view.matches.num_foreground.tolist()
        levels = list(self.objects_by_level)
        for level in view.matches.best_levels.tolist():
            self.objects_by_level[levels[level]] += 1

    @property
    def median_foreground(self) -> float:
        return float(np.median(self.num_foreground)) if self.num_foreground else 0.0

    @property
    def advised(self) -> bool:
        """Whether so many objects have no anchor that other anchors should be planned."""
        return self.num_without > MAX_WITHOUT * self.num_objects

    def line(self) -> str:
        """
        Return the statistics in one line.

        >>> Summary.without_anchors().line()
        '0 images, 0 objects'
        """
        text = f"{_count(self.num_images, 'image')}, {_count(self.num_objects, 'object')}"
        if self.background_iou is not None and self.num_objects:
            levels = ", ".join(f"{name} {n}" for name, n in self.objects_by_level.items())
            text += (
                f", {self.num_without} ({self.num_without / self.num_objects:.1%}) without an "
                f"anchor of IoU {self.background_iou:g}; median of {self.median_foreground:g} "
                f"foreground anchors per object; objects by the level of their best anchor: "
                f"{levels}"
            )
        if self.num_skipped:
            text += f"; {_count(self.num_skipped, 'unreadable image')} skipped"
        return text


def caption(view: TrainingView, background_iou: Optional[float]) -> str:
    """Return a phrase about the objects of a view and their anchors."""
    count = len(view.boxes)
    if not count:
        return "no objects"
    if background_iou is None:
        return _count(count, "object")
    without = int(view.without_anchor(background_iou).sum())
    if without:
        verb = "has" if count == 1 else "have"
        return f"{without} of {_count(count, 'object')} {verb} no anchor of IoU {background_iou:g}"
    return f"{_count(count, 'object')} with an anchor of IoU {background_iou:g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
