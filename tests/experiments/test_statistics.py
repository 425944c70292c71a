"""The intervals contain the true effect as often as they promise, and the numbers are right."""

import numpy as np
import pytest
from scipy import stats

from libra_d2.experiments.results import METRICS
from libra_d2.experiments.statistics import (
    Estimate,
    Measured,
    compare_variants,
    effect,
    effects_of,
    estimate,
    holm,
    seeds_needed,
    spread,
)

NUM_IMAGES, NUM_DRAWS, EFFECT = 60, 200, 0.7


def simulated(rng, seeds, of_seeds, of_images, of_both):
    """
    Return the differences (S,) of an experiment whose measure is the mean over its images, and
    those on draws of the images (B, S).
    """
    by_image = (
        EFFECT
        + of_seeds * rng.normal(size=(seeds, 1))
        + of_images * rng.normal(size=NUM_IMAGES) * NUM_IMAGES**0.5
        + of_both * rng.normal(size=(seeds, NUM_IMAGES)) * NUM_IMAGES**0.5
    )
    weights = rng.multinomial(NUM_IMAGES, np.full(NUM_IMAGES, 1 / NUM_IMAGES), size=NUM_DRAWS)
    return by_image.mean(1), weights @ by_image.T / NUM_IMAGES


@pytest.mark.parametrize("images", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_coverage_of_500_experiments(seeds, images):
    rng = np.random.default_rng(seeds)
    covered = 0
    for _ in range(500):
        differences, drawn = simulated(rng, seeds, 0.5, images, 0.3)
        of = estimate(differences, drawn, NUM_IMAGES - 1)
        covered += abs(of.difference - EFFECT) <= of.half_width()
    assert 0.92 <= covered / 500 <= 0.98


def test_coverage_of_one_seed_without_variation_between_seeds():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        of = estimate(*simulated(rng, 1, 0.0, 1.0, 0.0), NUM_IMAGES - 1)
        covered += abs(of.difference - EFFECT) <= of.half_width()
    assert 0.92 <= covered / 500 <= 0.98


def test_without_variation_between_images_it_is_the_paired_t_test():
    differences = np.array([0.4, 1.3, -0.2, 0.9])
    found = effect("AP", estimate(differences, np.tile(differences, (50, 1)), 30))
    test = stats.ttest_1samp(differences, 0)
    interval = test.confidence_interval(0.95)
    assert found.difference == pytest.approx(0.6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(test.pvalue)
    assert found.superiority == pytest.approx(1 - test.pvalue / 2)


def test_variances_by_hand():
    """
    Draws move both seeds together by -1, 0 or 1 (variance 1), and the second by as much again in a
    pattern that does not covary with it.
    """
    together = np.array([-1.0, 0.0, 1.0] * 3)
    alone = np.repeat([-1.0, 0.0, 1.0], 3)
    drawn = np.stack([together, together + alone], 1)
    of = estimate(np.array([1.0, 4.0]), drawn, 8)
    variance = together.var(ddof=1)
    assert of.difference == 2.5
    assert of.seed_variance == pytest.approx(4.5)
    assert of.image_variance == pytest.approx(variance)  # 0.75: without the part of `alone`
    assert of.variance == pytest.approx(4.5 / 2 + 0.75)
    assert of.image_df == pytest.approx(4)  # 8 degrees of the images, and 8 of the draws
    assert of.df == pytest.approx((2.25 + 0.75) ** 2 / (2.25**2 / 1 + 0.75**2 / 4))


def test_negative_covariance_counts_as_no_variance():
    drawn = np.array([[1.0, -1.0], [-1.0, 1.0]] * 5)
    assert estimate(np.array([0.0, 1.0]), drawn, 30).image_variance == 0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None, 0.005]) == pytest.approx([0.03, 0.06, 0.06, None, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_seeds_needed_is_the_smallest_number_with_enough_power():
    def power(n, std):  # of the t-test, from its noncentral distribution
        limit, shift = stats.t.ppf(0.975, n - 1), n**0.5 / std
        return stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)

    for std in (0.3, 0.8, 1.0, 2.5):
        needed = seeds_needed(Estimate(0.0, 3, std**2, 0.0, 50.0))
        assert power(needed, std) >= 0.8 > (power(needed - 1, std) if needed > 2 else 0)


@pytest.mark.parametrize(
    "of, why",
    [
        (Estimate(0.0, 1, 0.0, 0.1, 50.0), "one seed does not show how much seeds vary"),
        (Estimate(0.0, 3, 0.1, 0.5, 50.0), "more seeds do not reduce the variance of the images"),
    ],
)
def test_no_number_of_seeds_is_enough(of, why):
    assert seeds_needed(of) is None, why


def test_more_variance_between_images_needs_more_seeds():
    needed = [seeds_needed(Estimate(0.0, 3, 1.0, v, 50.0)) for v in (0.0, 0.05, 0.1)]
    assert needed == sorted(needed) and len(set(needed)) == 3


def test_spread():
    assert spread([1.0, None, 4.0]).mean == 2.5
    assert spread([1.0, None, 4.0]).std == pytest.approx(4.5**0.5)
    assert spread([1.0, None, 4.0]).values == [1.0, None, 4.0]
    assert (spread([3.0]).mean, spread([3.0]).std) == (3.0, None)
    assert (spread([None]).mean, spread([]).std) == (None, None)


# The following tests use runs with the six metrics and one class, all with the same value.

NAMES = [*METRICS, "cat"]


def run(value, drawn):
    """A run with this value on all images and these values on the draws."""
    return Measured(np.full(7, value), np.tile(np.array(drawn, dtype=float)[:, None], (1, 7)))


def drawn_around(value, seed=0, std=0.2):
    return value + std * np.random.default_rng(seed).normal(size=50)


def test_folds_are_averaged_within_a_seed():
    """Differences 1 and 3 in the folds of seed 0, and 2 in the only fold of seed 1."""
    zero = run(0.0, np.zeros(50))
    base = {(0, 1): zero, (0, 2): zero, (1, 1): zero}
    variant = {(0, 1): run(1, [1] * 50), (0, 2): run(3, [3] * 50), (1, 1): run(2, [2] * 50)}
    found = effects_of(NAMES, variant, base, {1: 20, 2: 20})
    assert [e.metric for e in found] == NAMES
    assert {e.difference for e in found} == {2.0}


def test_metrics_that_a_fold_does_not_define_come_from_the_others():
    base = {(0, 1): run(10, drawn_around(10)), (0, 2): run(np.nan, [np.nan] * 50)}
    better = {(0, 1): run(11, drawn_around(11, 1)), (0, 2): run(np.nan, [np.nan] * 50)}
    found = effects_of(NAMES, better, base, {1: 20, 2: 20})[0]
    assert found.difference == pytest.approx(1.0)
    assert found.low < 1 < found.high


def test_a_metric_that_rests_on_two_images_has_no_interval():
    """Both are missing in 14 % of the draws."""
    rare = np.where(np.arange(50) < 7, np.nan, np.arange(50))
    found = effects_of(NAMES, {(0, 0): run(1, rare)}, {(0, 0): run(0, np.zeros(50))}, {0: 20})[0]
    assert found.difference == 1.0
    assert (found.low, found.high, found.p_value, found.seeds_needed) == (None,) * 4


def test_a_metric_that_is_never_defined_has_no_effect():
    nothing = {(s, 0): run(np.nan, [np.nan] * 50) for s in range(3)}
    found = effects_of(NAMES, nothing, nothing, {0: 20})[0]
    assert list(vars(found).values()) == ["AP", *[None] * 7]


def compared(variants, planned=3, images=20):
    return compare_variants(variants, "base", ["cat"], {0: images}, planned)


def base_runs(seeds=3):
    return {(s, 0): run(30.0, drawn_around(30.0)) for s in range(seeds)}


def shifted_runs(shifts):
    """Runs that differ by these numbers from the baseline, on all draws about as much."""
    return {
        (s, 0): run(30.0 + x, drawn_around(30.0) + drawn_around(x, 5, std=0.05))
        for s, x in enumerate(shifts)
    }


def test_identical_variants():
    (found,) = compared({"base": base_runs(), "same": base_runs()})
    for e in (*found.metrics, *found.classes):
        assert (e.difference, e.low, e.high) == (0.0, 0.0, 0.0)
        assert (e.superiority, e.p_value, e.p_adjusted, e.seeds_needed) == (0.5, 1.0, 1.0, None)
    assert found.statement == (
        "The runs of same and base have the same results, so nothing can tell them apart."
    )


def test_no_difference():
    (found,) = compared({"base": base_runs(), "new": shifted_runs([1.0, -1.2, 0.5])})
    ap = found.metrics[0]
    assert ap.low < 0 < ap.high
    assert ap.seeds_needed > 3
    assert found.statement == (
        f"No difference in AP between new and base can be seen with 3 seeds: {ap.difference:+.2f} "
        f"points, 95 % confidence interval {ap.low:+.2f} to {ap.high:+.2f}. With this spread, "
        f"{ap.seeds_needed} seeds would show a difference of 1 AP with 80 % power."
    )


def test_no_difference_with_enough_seeds():
    (found,) = compared({"base": base_runs(), "new": shifted_runs([0.05, -0.05, 0.02])})
    assert "With this spread, 2 seeds are enough to show a difference of 1 AP" in found.statement


def test_no_difference_and_too_much_variance_to_show_one():
    loud = {(s, 0): run(30.1, drawn_around(30.1, 9, std=2.0)) for s in range(3)}
    (found,) = compared({"base": base_runs(), "new": loud})
    assert "no feasible number of seeds would show a difference of 1 AP" in found.statement


@pytest.mark.parametrize("sign, word", [(1, "higher"), (-1, "lower")])
def test_a_difference(sign, word):
    runs = shifted_runs([sign * x for x in (2.0, 2.1, 1.9)])
    (found,) = compared({"base": base_runs(), "new": runs})
    ap = found.metrics[0]
    assert ap.low * ap.high > 0
    assert found.statement == (
        f"AP of new is {word} than that of base by {abs(ap.difference):.2f} points (95 % "
        f"confidence interval {ap.low:+.2f} to {ap.high:+.2f}, 3 seeds)."
    )


def test_many_variants_take_back_a_weak_difference():
    weak = shifted_runs([1.0, 1.2, 0.6])
    others = {f"v{i}": shifted_runs([1.0, -1.2, 0.1 * i]) for i in range(5)}
    found = compared({"base": base_runs(), "weak": weak, **others})[0]
    ap = found.metrics[0]
    assert ap.low > 0 and ap.p_value < 0.05 < ap.p_adjusted == pytest.approx(6 * ap.p_value)
    assert found.statement.endswith(
        f"Adjusted for the 6 variants that are compared, p is {ap.p_adjusted:.3f}: the difference "
        "may be due to chance."
    )


def test_one_seed():
    (found,) = compared({"base": base_runs(1), "new": shifted_runs([2.0])}, planned=1)
    assert found.metrics[0].low > 0 and found.metrics[0].seeds_needed is None
    assert "1 seed)" in found.statement
    assert "only one seed, so the interval contains the variation between test" in found.statement


def test_one_image_has_no_interval():
    (found,) = compared({"base": base_runs(1), "new": shifted_runs([2.0])}, images=1)
    assert found.metrics[0].low is None
    assert found.statement.startswith(
        "The difference in AP between new and base is +2.00 points. There are too few test images"
    )


def test_missing_runs_are_left_out_in_pairs():
    runs = shifted_runs([2.0, 2.1, 1.9])
    base = base_runs()
    del runs[0, 0], base[2, 0]
    (found,) = compared({"base": base, "new": runs})
    assert found.num_pairs == 1
    assert found.metrics[0].difference == pytest.approx(2.1)
    assert "2 of 3 pairs are left out, because a run has no result." in found.statement


def test_no_pairs():
    (found,) = compared({"base": {}, "new": shifted_runs([1.0])})
    assert found.num_pairs == 0
    assert [e.difference for e in found.metrics] == [None] * 6
    assert found.statement == (
        "new cannot be compared with base: no seed and fold has a finished run of both."
    )
