import numpy as np
import pytest

from libra_d2.evaluation.analysis.score_curves import MAX_POINTS, ScoreCurve, calibration, floor6


def test_equal_scores_are_one_point():
    """A threshold takes all detections of a score, or none."""
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    curve = ScoreCurve.of(scores, np.array([1, 0, 1, 1, 0], dtype=bool), 4)
    assert curve.score.tolist() == [0.9, 0.5, 0.1]
    assert curve.precision.tolist() == [1, 0.75, 0.6]
    assert curve.recall.tolist() == [0.25, 0.75, 0.75]
    assert curve.f1.tolist() == pytest.approx([0.4, 0.75, 2 / 3])
    assert curve.best() == 1


def test_no_best_without_hits():
    assert ScoreCurve.of(np.array([0.5]), np.array([False]), 3).best() is None
    assert ScoreCurve.of(np.zeros(0), np.zeros(0, dtype=bool), 0).best() is None


def test_a_long_curve_is_thinned_but_keeps_its_best_and_its_ends():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.random(5000) ** 3)[::-1]
    curve = ScoreCurve.of(scores, rng.random(5000) < scores, 2000)
    thin = curve.thinned()
    assert 100 < len(thin.score) <= MAX_POINTS
    assert thin.f1.max() == curve.f1.max()
    assert (thin.score[0], thin.score[-1]) == (curve.score[0], curve.score[-1])
    assert (np.diff(thin.score) < 0).all()
    assert (np.abs(np.diff(thin.score)) < 0.03).all(), "a gap in the scores"


def test_written_scores_reach_written_thresholds_as_before():
    rng = np.random.default_rng(0)
    scores = np.float32(rng.random(100000)).astype(np.float64)
    threshold = float(floor6(scores[0]))
    assert ((floor6(scores) >= threshold) == (scores >= threshold)).all()
    assert floor6(0.9) == 0.9 and floor6(1.0) == 1


def test_ends_of_bins():
    """A score on the border belongs to the upper bin, and 1 to the last."""
    scores = np.array([1.0, 0.6, 0.3, 0.0])
    result = calibration(scores, np.array([True, True, False, False]))
    counts = [b.count for b in result.bins]
    assert counts == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert result.ece == pytest.approx((0 + 0.4 + 0.3 + 0) / 4)
    assert calibration(np.zeros(0), np.zeros(0, dtype=bool)).ece is None
