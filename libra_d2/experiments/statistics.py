r"""
Estimate what a variant changes against the baseline, from runs that share a seed and a test set.

The difference of a pair of runs varies for two reasons: another seed gives another training, and
other test images give another AP. The model of the difference for seed s and image i is

    D_si = effect + seed_s + image_i + both_si

All seeds share the test images, so more seeds average out `seed` and `both`, but not `image`. The
variance of the mean difference of n seeds is therefore estimated as

    S^2 / n + C

where S^2 is the variance of the seeds' differences, and C is the mean covariance of the differences
of two seeds over draws of the test images with replacement (a paired bootstrap: all runs are
measured on the same draws). C estimates the part of the images alone, because `both` does not
covary between seeds. The variance of the mean over the draws would count `both` a second time. The
95 % interval is Student's t interval with Welch's and Satterthwaite's degrees of freedom.

This method was chosen by simulating 2000 experiments of 100 images for each of seven sets of
variances, in which seeds, images and both vary alone and together. Coverage in percent of the
nominal 95 % interval, from the lowest to the highest of the seven:

    seeds                                         2          3          5         10
    t interval with S^2 / n + C (used)        90 - 95    93 - 96    94 - 95    94 - 96
    with the variance of the mean for C       92 - 98    94 - 99    94 - 99    94 - 99
    t interval of the seeds alone             84 - 95    62 - 96    40 - 95    24 - 96
    bootstrap of the images alone              0 - 95     0 - 95     0 - 95     0 - 94
    hierarchical percentile bootstrap         50 - 99    72 - 99    82 - 100   89 - 100

The percentiles of a bootstrap over few seeds are too close together: 3 seeds have only ten
different draws. With 2 seeds the interval in use can be slightly too narrow as well, which happens
if seeds and images contribute about equally. AP is not a mean over images: of 150 simulated
experiments with 3 seeds, whose measure was the AP of one class in only 40 images, 89 % covered.

N: number of values, the metrics followed by the classes; S: seeds; F: folds; B: draws of images.
"""

from dataclasses import dataclass, replace
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from . import student_t
from .results import METRICS, Comparison, Effect, Spread
from .statements import Evidence, statement

CONFIDENCE = 0.95
POWER = 0.8
MAX_SEEDS = 1000
# Share of the draws. A metric has no interval if fewer define it, such as the AP of a class whose
# objects are in one or two images, which are in 63 and 86 % of the draws.
_LEAST_DEFINED = 0.9

METHOD = (
    "95 % Student's t intervals of the paired differences, whose variance is that between seeds "
    "plus that between test images (bootstrap), with Welch-Satterthwaite degrees of freedom; "
    "p-values are two-sided and adjusted for the number of variants by Holm's method"
)


@dataclass(frozen=True)
class Measured:
    """
    The values of a run, in points, NaN where not defined.

    Attributes:
        values: (N,) on all images of its test set.
        drawn: (B, N) on draws of the images, which are the same for all runs of a fold.
    """

    values: np.ndarray
    drawn: np.ndarray


RunKey = Tuple[int, int]  # seed and fold


class Estimate(NamedTuple):
    """The mean difference of one value, and the parts of its variance."""

    difference: float
    seeds: int
    seed_variance: float  # of a single seed, S^2; 0 for one seed, where it is not known
    image_variance: float  # C
    image_df: float

    @property
    def variance(self) -> float:
        return self.seed_variance / self.seeds + self.image_variance

    @property
    def df(self) -> float:
        return _welch(self.seed_variance, self.seeds, self.image_variance, self.image_df)

    def half_width(self) -> float:
        """Half of the width of the 95 % interval."""
        return student_t.quantile((1 + CONFIDENCE) / 2, self.df) * self.variance**0.5


def compare_variants(
    runs: Dict[str, Dict[RunKey, Measured]],
    baseline: str,
    classes: Sequence[str],
    num_images: Dict[int, int],
    num_planned: int,
) -> List[Comparison]:
    """
    Compare all variants with the baseline.

    The p-values of a metric are adjusted for the number of variants, not for that of metrics and
    classes.

    Args:
        runs: finished runs of each variant.
        baseline: name of a variant.
        classes: names of the classes, whose values follow those of `METRICS`.
        num_images: number of test images of each fold.
        num_planned: number of runs of a variant in the design, to say how many pairs are missing.
    """
    names = [*METRICS, *classes]
    others = [name for name in runs if name != baseline]
    effects = {}
    for name in others:
        effects[name] = effects_of(names, runs[name], runs[baseline], num_images)
    for i in range(len(names)):
        adjusted = holm([effects[name][i].p_value for name in others])
        for name, p in zip(others, adjusted):
            effects[name][i] = replace(effects[name][i], p_adjusted=p)
    ret = []
    for name in others:
        keys = _pairs(runs[name], runs[baseline])
        evidence = Evidence(
            variant=name,
            baseline=baseline,
            effect=effects[name][0],
            num_seeds=len({seed for seed, _ in keys}),
            num_folds=len({fold for _, fold in keys if fold}),
            num_pairs=len(keys),
            num_missing=num_planned - len(keys),
            num_variants=len(others),
            identical=all(_identical(runs[name][k], runs[baseline][k]) for k in keys),
        )
        own = effects[name]
        ret.append(
            Comparison(
                variant=name,
                metrics=own[: len(METRICS)],
                classes=own[len(METRICS) :],
                num_pairs=len(keys),
                statement=statement(evidence),
            )
        )
    return ret


def effects_of(
    names: Sequence[str],
    variant: Dict[RunKey, Measured],
    baseline: Dict[RunKey, Measured],
    num_images: Dict[int, int],
) -> List[Effect]:
    """
    Compute the effect on each of the N values from the pairs of runs. `p_adjusted` is not set.

    Args:
        names: of the N values.
        num_images: number of test images of each fold.
    """
    keys = _pairs(variant, baseline)
    if not keys:
        return [effect(name, None) for name in names]
    seeds, folds = (sorted(set(part)) for part in zip(*keys))
    first = variant[keys[0]].drawn
    values = np.full((len(seeds), len(folds), 1, len(names)), np.nan)
    drawn = np.full((len(seeds), len(folds), *first.shape), np.nan, dtype=first.dtype)
    for key in keys:
        at = seeds.index(key[0]), folds.index(key[1])
        values[at] = variant[key].values - baseline[key].values
        drawn[at] = variant[key].drawn - baseline[key].drawn
    defined = ~np.isnan(values)
    of_seeds, drawn = (_mean_over_folds(x, defined) for x in (values, drawn))
    degrees = sum(num_images[fold] - 1 for fold in folds)
    return [
        effect(name, estimate(of_seeds[:, 0, i], drawn[:, :, i].T, degrees))
        for i, name in enumerate(names)
    ]


def estimate(differences: np.ndarray, drawn: np.ndarray, image_df: int) -> Optional[Estimate]:
    """
    Estimate a mean difference and its variance.

    Args:
        differences: (S,) of the seeds, on all images; NaN where not defined.
        drawn: (B, S) differences on draws of the images.
        image_df: number of images that can be drawn, minus the number of folds.

    Returns:
        None if no difference is defined. If the variance between images cannot be estimated,
        because there are too few images, it is NaN.
    """
    own = ~np.isnan(differences)
    differences, drawn = differences[own], drawn[:, own].astype(np.float64)
    n = len(differences)
    if n == 0:
        return None
    mean = float(differences.mean())
    usable = drawn[~np.isnan(drawn).any(1)]
    if image_df < 1 or len(usable) < max(_LEAST_DEFINED * len(drawn), 2):
        return Estimate(mean, n, 0.0, float("nan"), 1.0)
    degrees = 1 / (1 / image_df + 1 / (len(usable) - 1))  # few draws are less certain, too
    covariance = np.atleast_2d(np.cov(usable.T))
    if n == 1:
        return Estimate(mean, 1, 0.0, float(covariance[0, 0]), degrees)
    between = (covariance.sum() - np.trace(covariance)) / (n * (n - 1))
    return Estimate(mean, n, float(differences.var(ddof=1)), max(float(between), 0.0), degrees)


def effect(metric: str, of: Optional[Estimate]) -> Effect:
    """
    Turn an estimate into an effect. `p_adjusted` is not set.

    `superiority` is the area above 0 of the t distribution around the difference: 1 minus the
    one-sided p-value. If nothing varies, the interval of a difference of 0 is 0 to 0, and other
    differences have no interval.
    """
    if of is None:
        return Effect(metric, None, None, None, None, None, None, None)
    if not of.variance > 0:
        if of.variance == 0 and of.difference == 0:
            return Effect(metric, 0.0, 0.0, 0.0, 0.5, 1.0, None, None)
        return Effect(metric, of.difference, None, None, None, None, None, None)
    t, half = of.difference / of.variance**0.5, of.half_width()
    worse = student_t.cdf(-t, of.df)
    return Effect(
        metric,
        difference=of.difference,
        low=of.difference - half,
        high=of.difference + half,
        superiority=1 - worse,
        p_value=2 * min(worse, 1 - worse),
        p_adjusted=None,
        seeds_needed=seeds_needed(of),
    )


def seeds_needed(of: Estimate, difference: float = 1.0) -> Optional[int]:
    """
    Return the smallest number of seeds, at least 2, with which the test sees a true difference with
    80 % power, if the variances are as estimated.

    Returns:
        None if it is above `MAX_SEEDS`, as more seeds do not reduce the variance between images, or
        if there is one seed, which does not show how much seeds vary.
    """

    def enough(n: int) -> bool:
        variance = of.seed_variance / n + of.image_variance
        df = _welch(of.seed_variance, n, of.image_variance, of.image_df)
        return student_t.power(difference / variance**0.5, df, CONFIDENCE) >= POWER

    if of.seeds < 2 or not enough(MAX_SEEDS):
        return None
    too_few, found = 1, MAX_SEEDS
    while found - too_few > 1:
        middle = (too_few + found) // 2
        too_few, found = (too_few, middle) if enough(middle) else (middle, found)
    return found


def holm(p_values: Sequence[Optional[float]]) -> List[Optional[float]]:
    """
    Adjust p-values for their number (S. Holm, "A simple sequentially rejective multiple test
    procedure", 1979). Values that are None stay so and do not count.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    ret: List[Optional[float]] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        ret[i] = largest
    return ret


def spread(values: Sequence[Optional[float]]) -> Spread:
    """Compute mean and standard deviation of the values that are defined."""
    defined = [value for value in values if value is not None]
    return Spread(
        mean=float(np.mean(defined)) if defined else None,
        std=float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        values=list(values),
    )


def _pairs(a: Dict[RunKey, Measured], b: Dict[RunKey, Measured]) -> List[RunKey]:
    return sorted(a.keys() & b.keys())


def _identical(a: Measured, b: Measured) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True) for x, y in ((a.values, b.values), (a.drawn, b.drawn))
    )


def _mean_over_folds(values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """
    Args:
        values: (S, F, B, N).
        defined: (S, F, 1, N) folds to average over.

    Returns:
        (S, B, N); NaN for seeds without a fold, and draws in which one of the folds is not defined.
    """
    number = defined.sum(1).astype(np.float64)
    total = np.where(defined, values, 0.0).sum(1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _welch(seed_variance: float, seeds: int, image_variance: float, image_df: float) -> float:
    """Degrees of freedom of the sum of two variances (Satterthwaite 1946, Welch 1947)."""
    of_seeds = seed_variance / seeds
    parts = image_variance**2 / image_df
    if seeds > 1:
        parts += of_seeds**2 / (seeds - 1)
    return float((of_seeds + image_variance) ** 2 / parts)
