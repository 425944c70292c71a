import time

import numpy as np
import pytest

from libra_d2.config.flattening import set_value
from libra_d2.data.checks.anchors import anchor_levels, best_anchors
from libra_d2.planning.anchors import plan_anchors

from ..support.project import ROOT
from .made_up import config, log_normal_shapes, notes, training_set, values

RETINANET = str(ROOT / "configs/libra_retinanet_r50.yaml")


def with_plan(cfg, planned):
    for key, value in planned.items():
        set_value(cfg, key, value)
    return cfg


def coverage(data, planned, threshold=0.3, **kwargs):
    cfg = with_plan(config(**kwargs), planned)
    ious, _ = best_anchors(data.resized_shapes(cfg), cfg)
    return (ious >= threshold).mean(), ious.mean()


SETS = {
    "cells": lambda rng: log_normal_shapes(rng, 2000, 20),
    "one size": lambda rng: np.full((500, 2), 45.0),
    "wide range": lambda rng: log_normal_shapes(rng, 2000, 50, spread=0.9),
    "elongated": lambda rng: np.stack([rng.uniform(20, 40, 800), rng.uniform(240, 460, 800)], 1),
    "two shapes": lambda rng: np.concatenate(
        [log_normal_shapes(rng, 900, 60), np.stack([np.full(300, 25.0), np.full(300, 300.0)], 1)]
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_planned_anchors_reach_the_objects(name):
    data = training_set(SETS[name](np.random.default_rng(0)), 10)
    advice = plan_anchors(data, config())
    planned = values(advice)
    reached, mean = coverage(data, planned)
    reached_by_base, mean_of_base = coverage(data, {})
    assert reached >= reached_by_base
    assert reached >= 0.99 or "have no anchor of IoU 0.3" in notes(advice)
    assert reached >= 0.99 or reached == reached_by_base >= 0.7
    assert mean >= mean_of_base


def test_anchors_that_reach_most_objects_are_kept_if_the_others_are_small():
    """Smaller anchors would fit better, but slow down the training of the RPN."""
    large = np.full((80, 2), 90.0)
    small = training_set([*large, *np.full((20, 2), 20.0)], 10)
    advice = plan_anchors(small, config())
    assert "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS" not in values(advice)
    assert values(advice).get("MODEL.ANCHOR_GENERATOR.SIZES", [[32]])[0] == [32]
    assert "20.0% of the objects have no anchor" in notes(advice)
    assert "The anchors are kept" in notes(advice)
    thin = training_set([*large, *np.tile([(20.0, 300.0)], (20, 1))], 10)
    assert "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS" in values(plan_anchors(thin, config()))
    tiny = training_set([*large, *np.full((80, 2), 20.0)], 10)
    assert values(plan_anchors(tiny, config()))["MODEL.ANCHOR_GENERATOR.SIZES"][0][0] < 32


def test_an_aspect_ratio_of_12_gets_an_anchor():
    planned = values(
        plan_anchors(training_set(SETS["elongated"](np.random.default_rng(0)), 10), config())
    )
    ratios = planned["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"][0]
    assert any(9 < ratio < 16 for ratio in ratios)


def test_large_objects_are_not_lost_for_many_small_ones():
    rng = np.random.default_rng(0)
    shapes = np.concatenate([log_normal_shapes(rng, 3000, 18), log_normal_shapes(rng, 60, 300)])
    data = training_set(shapes, 30)
    planned = values(plan_anchors(data, config()))
    cfg = with_plan(config(), planned)
    ious, _ = best_anchors(data.resized_shapes(cfg)[-60:], cfg)
    assert (ious >= 0.3).mean() >= 0.95


def test_anchors_that_fit_are_kept():
    rng = np.random.default_rng(0)
    data = training_set(log_normal_shapes(rng, 2000, 45), 10)
    cfg = config()
    planned = with_plan(cfg, values(plan_anchors(data, cfg)))
    again = values(plan_anchors(data, planned))
    assert "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS" not in again
    assert again.get("MODEL.ANCHOR_GENERATOR.SIZES", cfg.MODEL.ANCHOR_GENERATOR.SIZES)


def test_levels_without_objects_have_no_anchors():
    data = training_set(log_normal_shapes(np.random.default_rng(0), 2000, 30), 10)
    planned = values(plan_anchors(data, config()))
    levels = planned["MODEL.RPN.IN_FEATURES"]
    assert levels[0] == "p2" and 2 <= len(levels) < 5
    assert len(planned["MODEL.ANCHOR_GENERATOR.SIZES"]) == len(levels)


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[0.5,1.0,2.0]"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[32,64,128,256,512]"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[16,32,64,128]]"),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[0.5,1.0],[1.0,2.0],[1.0,2.0],[1.0,2.0],[1,3]]"),
    ],
)
@pytest.mark.parametrize("side", [8, 60])
def test_lists_for_all_levels_and_for_each(opts, side):
    """Detectron2 can build the planned anchors, which have lists for as many levels as features."""
    data = training_set(log_normal_shapes(np.random.default_rng(0), 400, side), 10)
    planned = values(plan_anchors(data, config(*opts)))
    cfg = with_plan(config(*opts), planned)
    ious, _ = best_anchors(data.resized_shapes(cfg), cfg)
    assert (ious >= 0.3).mean() >= (0.4 if side == 8 else 0.99)


def test_objects_are_on_the_level_of_their_stride():
    """Not all on the first one if one list of sizes holds for all levels."""
    cfg = config("MODEL.ANCHOR_GENERATOR.SIZES", "[[16,32,64,128]]")
    assert anchor_levels(cfg).max() == 4


def test_retinanets_levels_are_its_own():
    data = training_set(log_normal_shapes(np.random.default_rng(0), 2000, 60), 10)
    planned = values(plan_anchors(data, config(config_file=RETINANET)))
    assert "MODEL.RPN.IN_FEATURES" not in planned
    reached, _ = coverage(data, planned, 0.4, config_file=RETINANET)
    assert reached >= 0.99


def test_the_reason_is_given_where_no_anchor_can_reach():
    """At a stride of 4 pixels, no anchor lies close enough to objects of 2 pixels."""
    data = training_set(np.full((500, 2), 2.0), 10)
    advice = plan_anchors(data, config())
    assert "have no anchor of IoU 0.3" in notes(advice)
    assert "4 pixels apart" in notes(advice)


def test_bootstrap_samples_give_nearly_the_same_anchors():
    """Their anchors fit the whole set as well as its own: within 0.03 of the mean best IoU."""
    rng = np.random.default_rng(0)
    shapes = log_normal_shapes(rng, 1500, 30, spread=0.5, ratio_spread=0.4)
    data = training_set(shapes, 10)
    reached, mean = coverage(data, values(plan_anchors(data, config())))
    for _ in range(5):
        sample = training_set(shapes[rng.integers(0, len(shapes), len(shapes))], 10)
        planned = values(plan_anchors(sample, config()))
        reached_by_it, mean_of_it = coverage(data, planned)
        assert reached_by_it >= reached - 0.01
        assert abs(mean_of_it - mean) < 0.03


def test_proposals_from_files_need_no_anchors():
    data = training_set(np.full((50, 2), 30.0), 10)
    assert not values(plan_anchors(data, config("MODEL.LOAD_PROPOSALS", "True")))


def test_100000_objects_take_seconds():
    """Of processor time, so that a busy machine does not matter."""
    shapes = log_normal_shapes(np.random.default_rng(0), 100_000, 30, spread=0.6)
    data = training_set(shapes, 20)
    start = time.process_time()
    plan_anchors(data, config())
    assert time.process_time() - start < 10
