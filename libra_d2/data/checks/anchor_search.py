"""
Search for anchors that fit the objects of a data set.

Shapes: N objects.
"""

import itertools
from typing import Any, Dict, Iterator, NamedTuple, Sequence, Tuple

import numpy as np
from detectron2.config import CfgNode

from .anchors import (
    anchor_settings,
    off_center_ious,
    rounded_size,
    strides_of,
    values_by_level,
)

SIZES, RATIOS = "MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"
_MAX_OBJECTS = 2000  # enough for quantiles to a percent; more takes longer only
COVERAGE = 0.99  # share of the objects that should have an anchor above the lower threshold
# The base's anchors are kept if they reach this share of the objects, and if nearly all others are
# smaller than all anchors. Anchors that fit better have fewer positive places for each object,
# because they are smaller, and the RPN learns more slowly.
_REACHED_BY_BASE = 0.7
_MISSHAPEN = 0.01
_MOST = 0.9  # of them, without which more anchors at a place are worth their cost
_TOLERANCE = 0.02  # of the quality, below which fewer anchors, or those of the base, are preferred
_STEPS_PER_OCTAVE = 4
_GROWTHS = (2.0, 2.0**1.25)  # of the sizes from level to level
_MAX_RATIOS = 5


class Anchors(NamedTuple):
    """Sizes and aspect ratios (height / width) of each level."""

    sizes: Tuple[Tuple[float, ...], ...]
    ratios: Tuple[Tuple[float, ...], ...]

    @property
    def num_per_place(self) -> int:
        return len(self.sizes[0]) * len(self.ratios[0])

    def settings(self, levels: Sequence[int]) -> Dict[str, Any]:
        """Return the keys and values of the config for some of the levels."""
        ratios = [[plain_number(r) for r in self.ratios[i]] for i in levels]
        same = all(level == ratios[0] for level in ratios)
        return {
            SIZES: [[plain_number(size) for size in self.sizes[i]] for i in levels],
            RATIOS: ratios[:1] if same else ratios,
        }


class Fit(NamedTuple):
    """How well anchors fit the objects."""

    mean: float  # of the best IoUs
    coverage: float  # share of the objects whose best IoU is above the lower threshold
    foreground: float  # share of the objects whose best IoU is above the upper threshold

    @property
    def quality(self) -> float:
        return self.mean + min(self.coverage, COVERAGE) + self.foreground


class AnchorSearch:
    """
    Measures anchors on the objects of a data set, and finds some that fit better.

    Args:
        shapes: (N, 2) widths and heights of the objects in the network's input, in pixels.
        cfg: config with the base's anchors.
    """

    def __init__(self, shapes: np.ndarray, cfg: CfgNode):
        self.shapes = _sample(shapes)
        self.strides = strides_of(cfg)
        self.low, self.high = anchor_settings(cfg)
        self.base = _base_anchors(cfg, len(self.strides))
        self._ious: Dict[Tuple[float, float, float], np.ndarray] = {}

    def best_anchors(self) -> Anchors:
        """
        Return the base's anchors if they reach most objects, or else better ones.

        The base's are kept if they reach seven out of ten objects and nearly all others (all but 1%
        of the objects) are smaller than the smallest anchor, rather than of another shape.

        The search covers the smallest size, one or two sizes a level, and aspect ratios: one,
        Detectron2's three, and the centers of clusters of the objects' ratios, on a logarithmic
        scale. The sizes double from level to level, as in FPN (Lin et al., 2017), or grow a little
        faster to cover a wider range. The quality is the mean of the best IoUs plus the shares of
        the objects above both thresholds. Of anchors that fit almost equally well (within 0.02),
        those with the fewest at a place are taken. There are no more at a place than in the base
        unless these would leave more than a tenth of the objects without one.

        Source: k-means over shapes is YOLOv2's way (Redmon and Farhadi, 2017). Here it has one
        dimension only, so that the result depends little on the sample. That anchors which reach
        most objects are kept comes from our own experiments (docs/planning.md).
        """
        if self._base_reaches_most():
            return self.base
        fits = _with_few_anchors(
            {anchors: self.fit(anchors) for anchors in self.candidates()}, self.base.num_per_place
        )
        best = max(fit.quality for fit in fits.values())
        good = [anchors for anchors, fit in fits.items() if fit.quality >= best - _TOLERANCE]
        return min(good, key=lambda anchors: (anchors.num_per_place, -fits[anchors].quality))

    def _base_reaches_most(self) -> bool:
        _, ious = self.best(self.base)
        without = ious < self.low
        smallest = min(size for level in self.base.sizes for size in level)
        larger = without & (self.shapes.prod(1) > smallest**2)
        return without.mean() <= 1 - _REACHED_BY_BASE and larger.mean() <= _MISSHAPEN

    def fit(self, anchors: Anchors) -> Fit:
        _, ious = self.best(anchors)
        return Fit(
            float(ious.mean()), float((ious >= self.low).mean()), float((ious >= self.high).mean())
        )

    def best(self, anchors: Anchors, levels: Sequence[int] = ()) -> Tuple[np.ndarray, np.ndarray]:
        """
        Return the (N,) level of each object's best anchor, and the (N,) IoU with it.

        An anchor is off the center of an object by a quarter of its level's stride, which is the
        mean.

        Args:
            levels: those to use; by default all.
        """
        ious = np.zeros(len(self.shapes), np.float32)
        level_of = np.zeros(len(self.shapes), dtype=np.int64)
        for level in levels or range(len(self.strides)):
            for size, ratio in itertools.product(anchors.sizes[level], anchors.ratios[level]):
                iou = self._iou(size, ratio, float(self.strides[level]))
                better = iou > ious
                ious[better], level_of[better] = iou[better], level
        return level_of, ious

    def _iou(self, size: float, ratio: float, stride: float) -> np.ndarray:
        """The same anchor is in several candidates, and is measured only once."""
        key = (size, ratio, stride)
        if key not in self._ious:
            anchor = np.array([size / ratio**0.5, size * ratio**0.5])
            self._ious[key] = off_center_ious(self.shapes, anchor, stride).astype(np.float32)
        return self._ious[key]

    def candidates(self) -> Iterator[Anchors]:
        sides = np.sqrt(self.shapes.prod(1))
        smallest, largest = np.log2(np.quantile(sides, (0.01, 0.99)))
        start = np.floor((smallest - 1) * _STEPS_PER_OCTAVE)
        stop = max(np.ceil(largest * _STEPS_PER_OCTAVE), start)
        steps = np.arange(start, stop + 1)
        per_level = sorted({1, 2, len(self.base.sizes[0])})
        num_levels = len(self.strides)
        for ratios in dict.fromkeys(_ratio_candidates(self.shapes, self.base.ratios[0])):
            self._ious.clear()
            for step, growth, count in itertools.product(steps, _GROWTHS, per_level):
                first = 2.0 ** (step / _STEPS_PER_OCTAVE)
                sizes = tuple(
                    tuple(rounded_size(first * growth ** (level + i / count)) for i in range(count))
                    for level in range(num_levels)
                )
                yield Anchors(sizes, (ratios,) * num_levels)


def fitting_anchors(shapes: np.ndarray, cfg: CfgNode) -> Dict[str, Any]:
    """Return the keys and values of :meth:`AnchorSearch.best_anchors` if they differ from `cfg`."""
    search = AnchorSearch(shapes, cfg)
    anchors = search.best_anchors()
    if anchors == search.base:
        return {}
    settings = anchors.settings(range(len(search.strides)))
    if anchors.ratios == search.base.ratios:
        del settings[RATIOS]
    return settings


def plain_number(number: float) -> float:
    """Return an integer where it is one, which reads better in YAML."""
    return int(number) if float(number).is_integer() else number


def _with_few_anchors(fits: Dict[Anchors, Fit], num_per_place: int) -> Dict[Anchors, Fit]:
    """
    Keep the fits with at most so many anchors at a place if they reach nine out of ten objects, or
    else those with at most twice as many, or else all.
    """
    for limit in (num_per_place, 2 * num_per_place):
        few = {anchors: fit for anchors, fit in fits.items() if anchors.num_per_place <= limit}
        if few and max(fit.coverage for fit in few.values()) >= _MOST:
            return few
    return fits


def _base_anchors(cfg: CfgNode, num_levels: int) -> Anchors:
    node = cfg.MODEL.ANCHOR_GENERATOR
    return Anchors(
        values_by_level(node.SIZES, num_levels), values_by_level(node.ASPECT_RATIOS, num_levels)
    )


def _sample(shapes: np.ndarray) -> np.ndarray:
    """At most `_MAX_OBJECTS` of the shapes, evenly spread over their areas."""
    if len(shapes) <= _MAX_OBJECTS:
        return shapes
    order = np.argsort(shapes.prod(1), kind="stable")
    return shapes[order[np.linspace(0, len(shapes) - 1, _MAX_OBJECTS).astype(int)]]


def _ratio_candidates(shapes: np.ndarray, base: Sequence[float]) -> Iterator[Tuple[float, ...]]:
    yield (1.0,)
    yield tuple(base)
    logs = np.log2(shapes[:, 1] / shapes[:, 0])
    for count in range(1, _MAX_RATIOS + 1):
        centers = _k_means(logs, count)
        yield tuple(dict.fromkeys(round(float(2.0**c), 2) for c in centers))


def _k_means(values: np.ndarray, count: int) -> np.ndarray:
    """Lloyd's algorithm in one dimension, from evenly spaced quantiles, so without chance."""
    centers = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(50):
        nearest = np.abs(values[:, None] - centers).argmin(1)
        moved = np.array(
            [
                values[nearest == i].mean() if (nearest == i).any() else centers[i]
                for i in range(count)
            ]
        )
        if np.allclose(moved, centers, atol=1e-4):
            break
        centers = moved
    return np.sort(centers)
