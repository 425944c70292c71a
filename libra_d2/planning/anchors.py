"""
Sizes and aspect ratios of the anchors, and the levels of the pyramid that have them.

Shapes: N objects; A anchors of one place, of all levels together.
"""

import itertools
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
from detectron2.config import CfgNode

from ..config.detectors import is_retinanet
from ..data.checks.anchors import (
    anchor_settings,
    off_center_ious,
    rounded_size,
    strides_of,
    uses_anchors,
)
from .settings import Advice, Note, Setting
from .training_set import TrainingSet

_MAX_OBJECTS = 4000  # enough for quantiles to a percent; more takes longer only
_COVERAGE = 0.99  # share of the objects that should have an anchor above the lower threshold
_MOST = 0.9  # of them, without which more anchors at a place are worth their cost
_TOLERANCE = 0.02  # of the quality, below which fewer anchors, or those of the base, are preferred
_UNUSED = 0.001  # share of the objects of a level that is not worth its anchors
_STEPS_PER_OCTAVE = 4
_GROWTHS = (2.0, 2.0**1.25)  # of the sizes from level to level
_MAX_RATIOS = 5


class _Fit(NamedTuple):
    """How well anchors fit the objects."""

    mean: float  # of the best IoUs
    coverage: float  # share of the objects whose best IoU is above the lower threshold
    foreground: float  # share of the objects whose best IoU is above the upper threshold

    @property
    def quality(self) -> float:
        return self.mean + min(self.coverage, _COVERAGE) + self.foreground


class _Anchors(NamedTuple):
    sizes: Tuple[Tuple[float, ...], ...]  # by level
    ratios: Tuple[float, ...]

    @property
    def num_per_place(self) -> int:
        return len(self.sizes[0]) * len(self.ratios)


def plan_anchors(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Choose anchors with a high mean IoU and many objects above both thresholds.

    The sizes double from level to level, as in FPN (Lin et al., 2017), or grow a little faster to
    cover a wider range. The search covers the smallest size, one or two sizes a level, and aspect
    ratios: one, Detectron2's three, and the centers of clusters of the objects' ratios, on a
    logarithmic scale. An anchor is off the center of an object by a quarter of its level's stride
    on average, which counts. There are no more anchors at a place than in the base config, unless
    these would leave more than a tenth of the objects without one: more of them need a longer
    training. Of anchors that fit almost equally well (within 0.02), those with the fewest at a
    place are taken, and the base config's rather than others. Levels at the ends of the
    pyramid without objects get no anchors.

    Source: k-means over shapes is YOLOv2's way (Redmon and Farhadi, 2017). Here it has one
    dimension only, so that the result depends little on the sample.
    """
    if not uses_anchors(cfg):
        return [Note("the detector has no anchors to plan")]
    shapes = _sample(data.resized_shapes(cfg))
    low, high = anchor_settings(cfg)
    strides = strides_of(cfg)
    base = _base_anchors(cfg, len(strides))
    fit_of_base = _fit(shapes, base, strides, low, high)
    fits = {
        anchors: _fit(shapes, anchors, strides, low, high)
        for anchors in _candidates(shapes, base, len(strides))
    }
    fits = _with_few_anchors(fits, base.num_per_place)
    best_quality = max(fit.quality for fit in fits.values())
    good = [a for a, fit in fits.items() if fit.quality >= best_quality - _TOLERANCE]
    chosen = min(good, key=lambda a: (a.num_per_place, -fits[a].quality))
    if fit_of_base.quality >= fits[chosen].quality - _TOLERANCE:
        chosen = base
    fit = fits.get(chosen, fit_of_base)

    advice: Advice = []
    if chosen != base:
        why = (
            f"objects with an anchor of IoU {low:g}: {fit.coverage:.1%} (base "
            f"{fit_of_base.coverage:.1%}), of IoU {high:g}: {fit.foreground:.1%} (base "
            f"{fit_of_base.foreground:.1%})"
        )
    best, ious = _best(shapes, chosen, strides)
    share = np.bincount(best // chosen.num_per_place, minlength=len(strides)) / len(shapes)
    kept = _used_levels(shapes, chosen, strides, low, share, fit.coverage)
    names = list((cfg.MODEL.RETINANET if is_retinanet(cfg) else cfg.MODEL.RPN).IN_FEATURES)
    if chosen != base or len(kept) < len(names):
        sizes = [[_plain(s) for s in chosen.sizes[i]] for i in kept]
        without = [names[i] for i in range(len(names)) if i not in kept]
        unused = f"no objects of the size of {' and '.join(without)}"
        advice.append(
            Setting("MODEL.ANCHOR_GENERATOR.SIZES", sizes, why if chosen != base else unused)
        )
        if without:
            key = "RETINANET" if is_retinanet(cfg) else "RPN"
            features = [names[i] for i in kept]
            advice.append(Setting(f"MODEL.{key}.IN_FEATURES", features, unused))
    if chosen.ratios != base.ratios:
        heights = np.log2(shapes[:, 1] / shapes[:, 0])
        low_ratio, high_ratio = 2.0 ** np.quantile(heights, (0.05, 0.95))
        advice.append(
            Setting(
                "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
                [[_plain(r) for r in chosen.ratios]],
                f"height / width of nine out of ten objects is {low_ratio:.2g} to {high_ratio:.2g}",
            )
        )
    if fit.coverage < _COVERAGE:
        advice.append(_uncovered(shapes, ious, strides, low))
    return advice


def _with_few_anchors(fits: Dict[_Anchors, _Fit], num_per_place: int) -> Dict[_Anchors, _Fit]:
    """
    Keep the fits with at most so many anchors at a place if they reach nine out of ten objects, or
    else those with at most twice as many, or else all.
    """
    for limit in (num_per_place, 2 * num_per_place):
        few = {anchors: fit for anchors, fit in fits.items() if anchors.num_per_place <= limit}
        if few and max(fit.coverage for fit in few.values()) >= _MOST:
            return few
    return fits


def _sample(shapes: np.ndarray) -> np.ndarray:
    """At most `_MAX_OBJECTS` of the shapes, evenly spread over their areas."""
    if len(shapes) <= _MAX_OBJECTS:
        return shapes
    order = np.argsort(shapes.prod(1), kind="stable")
    return shapes[order[np.linspace(0, len(shapes) - 1, _MAX_OBJECTS).astype(int)]]


def _base_anchors(cfg: CfgNode, num_levels: int) -> _Anchors:
    node = cfg.MODEL.ANCHOR_GENERATOR
    sizes = node.SIZES if len(node.SIZES) == num_levels else list(node.SIZES) * num_levels
    return _Anchors(
        tuple(tuple(float(s) for s in level) for level in sizes),
        tuple(float(r) for r in node.ASPECT_RATIOS[0]),
    )


def _candidates(shapes: np.ndarray, base: _Anchors, num_levels: int) -> Iterator[_Anchors]:
    sides = np.sqrt(shapes.prod(1))
    smallest, largest = np.log2(np.quantile(sides, (0.01, 0.99)))
    start = np.floor((smallest - 1) * _STEPS_PER_OCTAVE)
    stop = max(np.ceil(largest * _STEPS_PER_OCTAVE), start)
    ratio_sets = list(_ratio_candidates(shapes, base.ratios))
    per_level = sorted({1, 2, len(base.sizes[0])})
    for step, growth, count in itertools.product(np.arange(start, stop + 1), _GROWTHS, per_level):
        first = 2.0 ** (step / _STEPS_PER_OCTAVE)
        sizes = tuple(
            tuple(rounded_size(first * growth ** (level + i / count)) for i in range(count))
            for level in range(num_levels)
        )
        for ratios in ratio_sets:
            yield _Anchors(sizes, ratios)


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


def _fit(
    shapes: np.ndarray, anchors: _Anchors, strides: np.ndarray, low: float, high: float
) -> _Fit:
    _, ious = _best(shapes, anchors, strides)
    return _Fit(float(ious.mean()), float((ious >= low).mean()), float((ious >= high).mean()))


def _best(
    shapes: np.ndarray, anchors: _Anchors, strides: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """(N,) index of each object's best anchor, ordered by level, and (N,) its IoU."""
    ious = np.zeros(len(shapes))
    best = np.zeros(len(shapes), dtype=np.int64)
    index = 0
    for level, stride in zip(anchors.sizes, strides):
        for size in level:
            for ratio in anchors.ratios:
                anchor = np.array([size / ratio**0.5, size * ratio**0.5])
                iou = off_center_ious(shapes, anchor, stride)
                better = iou > ious
                ious[better], best[better] = iou[better], index
                index += 1
    return best, ious


def _used_levels(
    shapes: np.ndarray,
    anchors: _Anchors,
    strides: np.ndarray,
    low: float,
    share: np.ndarray,
    coverage: float,
) -> List[int]:
    """
    Levels without those at both ends that no object needs. At least two are kept.

    Args:
        share: (levels,) of the objects, whose best anchor is on the level.
        coverage: of all levels, which those that are kept must reach, too.
    """
    levels = list(range(len(strides)))
    for end in (-1, 0):
        while len(levels) > 2 and share[levels[end]] <= _UNUSED:
            rest = [i for i in levels if i != levels[end]]
            fewer = _Anchors(tuple(anchors.sizes[i] for i in rest), anchors.ratios)
            _, ious = _best(shapes, fewer, strides[rest])
            if (ious >= low).mean() < coverage:
                break
            levels = rest
    return levels


def _uncovered(shapes: np.ndarray, ious: np.ndarray, strides: np.ndarray, low: float) -> Note:
    without = shapes[ious < low]
    width, height = np.median(without, axis=0)
    return Note(
        f"{len(without) / len(shapes):.1%} of the objects have no anchor of IoU {low:g}: they are "
        f"{width:.0f} x {height:.0f} pixels large in the median, and the anchors of the finest "
        f"level are {strides[0]:.0f} pixels apart. A larger input, or training on crops, helps"
    )


def _plain(number: float) -> float:
    """An integer where it is one, which reads better in YAML."""
    return int(number) if float(number).is_integer() else number
