"""
Sizes and aspect ratios of the anchors, and the levels of the pyramid that have them.

Shapes: N objects.
"""

from typing import List

import numpy as np
from detectron2.config import CfgNode

from ..config.detectors import is_retinanet
from ..data.checks.anchor_search import COVERAGE, RATIOS, SIZES, Anchors, AnchorSearch
from ..data.checks.anchors import uses_anchors
from .settings import Advice, Note, Setting
from .training_set import TrainingSet

_UNUSED = 0.001  # share of the objects of a level that is not worth its anchors


def plan_anchors(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Set the anchors of :meth:`AnchorSearch.best_anchors`.

    Levels at the ends of the pyramid without objects get no anchors.
    """
    if not uses_anchors(cfg):
        return [Note("the detector has no anchors to plan")]
    search = AnchorSearch(data.resized_shapes(cfg), cfg)
    base, chosen = search.base, search.best_anchors()
    fit_of_base, fit = search.fit(base), search.fit(chosen)
    why = (
        f"objects with an anchor of IoU {search.low:g}: {fit.coverage:.1%} (base "
        f"{fit_of_base.coverage:.1%}), of IoU {search.high:g}: {fit.foreground:.1%} (base "
        f"{fit_of_base.foreground:.1%})"
    )
    advice: Advice = []
    kept = _used_levels(search, chosen, fit.coverage)
    names = list((cfg.MODEL.RETINANET if is_retinanet(cfg) else cfg.MODEL.RPN).IN_FEATURES)
    settings = chosen.settings(kept)
    without = [names[i] for i in range(len(names)) if i not in kept]
    unused = f"no objects of the size of {' and '.join(without)}"
    if chosen.sizes != base.sizes or without:
        advice.append(Setting(SIZES, settings[SIZES], why if chosen != base else unused))
    if without:
        key = "RETINANET" if is_retinanet(cfg) else "RPN"
        features = [names[i] for i in kept]
        advice.append(Setting(f"MODEL.{key}.IN_FEATURES", features, unused))
    if chosen.ratios != base.ratios:
        heights = np.log2(search.shapes[:, 1] / search.shapes[:, 0])
        low_ratio, high_ratio = 2.0 ** np.quantile(heights, (0.05, 0.95))
        range_of_ratios = (
            f"height / width of nine out of ten objects is {low_ratio:.2g} to {high_ratio:.2g}"
        )
        advice.append(Setting(RATIOS, settings[RATIOS], range_of_ratios))
    elif without and len(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS) > 1:
        advice.append(Setting(RATIOS, settings[RATIOS], unused))
    if fit.coverage < COVERAGE:
        advice.append(_uncovered(search, chosen))
    return advice


def _used_levels(search: AnchorSearch, anchors: Anchors, coverage: float) -> List[int]:
    """
    Return the levels without those at both ends that no object needs. At least two are kept.

    Args:
        coverage: of all levels, which those that are kept must reach, too.
    """
    best_level, _ = search.best(anchors)
    share = np.bincount(best_level, minlength=len(search.strides)) / len(search.shapes)
    levels = list(range(len(search.strides)))
    for end in (-1, 0):
        while len(levels) > 2 and share[levels[end]] <= _UNUSED:
            rest = [i for i in levels if i != levels[end]]
            _, ious = search.best(anchors, rest)
            if (ious >= search.low).mean() < coverage:
                break
            levels = rest
    return levels


def _uncovered(search: AnchorSearch, anchors: Anchors) -> Note:
    _, ious = search.best(anchors)
    without = search.shapes[ious < search.low]
    width, height = np.median(without, axis=0)
    kept = ""
    if anchors == search.base:
        kept = (
            "The anchors are kept: smaller ones fit better, but the RPN learns more slowly with "
            "them. "
        )
    return Note(
        f"{len(without) / len(search.shapes):.1%} of the objects have no anchor of IoU "
        f"{search.low:g}: they are {width:.0f} x {height:.0f} pixels large in the median, and the "
        f"anchors of the finest level are {search.strides[0]:.0f} pixels apart. {kept}A larger "
        "input, or training on crops, helps"
    )
