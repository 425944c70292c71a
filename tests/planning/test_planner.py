"""Whole plans for made-up sets, each with one trap."""

import time

import numpy as np
import pytest

from libra_d2.data.checks.anchors import best_anchors
from libra_d2.data.checks.config_limits import config_limits
from libra_d2.planning import make_plan
from libra_d2.planning.training_set import TrainingSet

from .made_up import config, log_normal_shapes, training_set


@pytest.fixture
def plan_for(monkeypatch):
    def plan(data, *opts, **kwargs):
        monkeypatch.setattr(TrainingSet, "of", classmethod(lambda cls, cfg: data))
        cfg = config("DATASETS.TEST", "()", *opts)
        return make_plan(cfg, given=opts[0::2], **kwargs)

    return plan


def planned_keys(plan):
    return {s.key for s in plan.settings}


def anchors_reach(data, plan, threshold=0.3):
    ious, _ = best_anchors(data.resized_shapes(plan.cfg), plan.cfg)
    return (ious >= threshold).mean()


RNG = np.random.default_rng(0)


def nested():
    """Pairs of objects of one class, one of which lies in the other."""
    shapes = np.tile([(120.0, 120.0), (100.0, 100.0)], (100, 1))
    corners = np.tile([(0.0, 0.0), (10.0, 10.0)], (100, 1))
    return training_set(shapes, 2, corners=corners)


TRAPS = {
    "500 tiny objects in 4000 x 3000": (
        lambda: training_set(log_normal_shapes(RNG, 3000, 14, spread=0.1), 500, size=(4000, 3000)),
        {"INPUT.CROP.ENABLED", "TEST.DETECTIONS_PER_IMAGE", "MODEL.RPN.POST_NMS_TOPK_TEST"},
    ),
    "aspect ratio 12": (
        lambda: training_set(np.tile([(30.0, 360.0)], (400, 1)), 4),
        {"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"},
    ),
    "all boxes of one size": (
        lambda: training_set(np.full((400, 2), 33.0), 4),
        {"MODEL.ANCHOR_GENERATOR.SIZES"},
    ),
    "nested objects of a class": (nested, {"MODEL.ROI_HEADS.NMS_THRESH_TEST"}),
    "two images": (
        lambda: training_set(np.full((6, 2), 60.0), 3),
        {"SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR", "SOLVER.MAX_ITER"},
    ),
    "one rare class": (
        lambda: training_set(np.full((200, 2), 60.0), 1, classes=[0] * 190 + [1] * 10),
        {"DATALOADER.SAMPLER_TRAIN"},
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_each_trap_is_answered(plan_for, name):
    make, keys = TRAPS[name]
    data = make()
    plan = plan_for(data)
    assert keys <= planned_keys(plan)
    assert anchors_reach(data, plan) >= 0.99
    table = plan.table()
    assert all(key in table for key in keys)


DENSE = {
    "375 objects an image": 375,
    "700 objects an image": 700,
    "one full image": [2] * 19 + [300],
    "full images": [30, 80, 200, 200],
}


@pytest.mark.parametrize("name", [*TRAPS, *DENSE])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_data_check_suggests_nothing_for_a_plan(plan_for, name, split):
    """Both follow the same rules."""
    if name in TRAPS:
        data = TRAPS[name][0]()
    else:
        counts = np.atleast_1d(DENSE[name])
        total = 4 * counts[0] if len(counts) == 1 else counts.sum()
        corners = np.random.default_rng(0).uniform(0, 600, (total, 2))
        data = training_set(np.full((total, 2), 12.0), counts, corners=corners)
    found = config_limits(data.objects, data.file_names, plan_for(data).cfg, split)
    assert not [f.line() for f in found if f.problem]


def test_three_images_of_forty_classes(plan_for):
    data = training_set(np.full((40, 2), 60.0), [14, 13, 13], classes=np.arange(40))
    plan = plan_for(data)
    assert "DATALOADER.SAMPLER_TRAIN" not in planned_keys(plan)
    assert plan.cfg.SOLVER.IMS_PER_BATCH == 3


def test_100000_annotations_take_seconds(plan_for):
    """Of processor time, so that a busy machine does not matter."""
    rng = np.random.default_rng(0)
    shapes = log_normal_shapes(rng, 100_000, 30, spread=0.6)
    data = training_set(shapes, 20, corners=rng.uniform(0, 400, (100_000, 2)))
    start = time.process_time()
    plan_for(data)
    assert time.process_time() - start < 10


def test_a_planned_config_is_not_changed_again(plan_for):
    data = training_set(log_normal_shapes(np.random.default_rng(0), 4000, 30), 200)
    again = make_plan(plan_for(data).cfg)
    assert not again.settings


def test_the_users_settings_are_kept(plan_for):
    data = training_set(log_normal_shapes(np.random.default_rng(0), 4000, 20), 200)
    plan = plan_for(data, "TEST.DETECTIONS_PER_IMAGE", "150")
    assert plan.cfg.TEST.DETECTIONS_PER_IMAGE == 150
    assert any("TEST.DETECTIONS_PER_IMAGE 150 is kept" in note for note in plan.notes)
