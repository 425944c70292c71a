"""Whole plans for made-up sets, each with one trap."""

import time

import numpy as np
import pytest

from libra_d2.config.checks import check_values
from libra_d2.data.checks.anchors import best_anchors
from libra_d2.data.checks.config_limits import config_limits
from libra_d2.planning import make_plan
from libra_d2.planning.schedule import Costs
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
    assert any("you gave TEST.DETECTIONS_PER_IMAGE 150, so" in note for note in plan.notes)


def tiny():
    return TRAPS["500 tiny objects in 4000 x 3000"][0]()


def of_one_size():
    return training_set(np.full((400, 2), 45.0), 4)


ANCHORS = ("MODEL.ANCHOR_GENERATOR", "MODEL.RPN.IN_FEATURES")
FIVE_SIZES = "[[32], [64], [128], [256], [512]]"
# Key and value of the user, data, and the settings that only work together with the key.
COUPLED = [
    ("INPUT.AUGMENTATIONS", "('Gray()',)", tiny, "INPUT."),
    ("INPUT.CROP.SIZE", "[300, 300]", tiny, "INPUT."),
    ("INPUT.MIN_SIZE_TRAIN", "(320,)", tiny, "INPUT."),
    ("INPUT.MIN_SIZE_TEST", "320", tiny, "INPUT."),
    ("MODEL.ANCHOR_GENERATOR.SIZES", FIVE_SIZES, of_one_size, ANCHORS),
    ("MODEL.RPN.IN_FEATURES", "['p2', 'p3', 'p4', 'p5', 'p6']", of_one_size, ANCHORS),
    (
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
        "[[0.5, 1.0, 2.0]]",
        TRAPS["aspect ratio 12"][0],
        ANCHORS,
    ),
    ("SOLVER.IMS_PER_BATCH", "16", TRAPS["two images"][0], ("SOLVER.IMS", "SOLVER.BASE_LR")),
    ("SOLVER.BASE_LR", "0.02", TRAPS["two images"][0], ("SOLVER.IMS", "SOLVER.BASE_LR")),
]


def mistakes(cfg):
    return check_values(cfg, "train", world_size=1)


@pytest.mark.parametrize("key,value,make,coupled", COUPLED, ids=[row[0] for row in COUPLED])
def test_settings_that_work_together_are_planned_together(plan_for, key, value, make, coupled):
    data = make()
    free = [k for k in planned_keys(plan_for(data)) if k.startswith(coupled)]
    assert set(free) - {key}  # without the user's key, the plan sets others
    plan = plan_for(data, key, value)
    assert not [k for k in planned_keys(plan) if k.startswith(coupled)]
    said = [note for note in plan.notes if note.startswith(f"you gave {key} ")]
    assert len(said) == 1 and any(k in said[0] for k in set(free) - {key})
    assert mistakes(plan.cfg) == mistakes(config("DATASETS.TEST", "()", key, value))


def test_a_mask_model_is_not_cropped_against_the_users_size(plan_for):
    """The list of augmentations would overrule `INPUT.MIN_SIZE_TRAIN`, which it does not set."""
    opts = ["MODEL.MASK_ON", "True"]
    assert "INPUT.AUGMENTATIONS" in planned_keys(plan_for(tiny(), *opts))
    plan = plan_for(tiny(), *opts, "INPUT.MIN_SIZE_TRAIN", "(320,)")
    assert not [key for key in planned_keys(plan) if key.startswith("INPUT.")]
    assert not any("scale of the crops" in note for note in plan.notes)


@pytest.mark.parametrize(
    "opts", [("INPUT.RANDOM_FLIP", "none"), ("INPUT.AUGMENTATIONS", "('Gray()',)")]
)
def test_any_orientation_leaves_the_users_augmentation(plan_for, opts):
    plan = plan_for(of_one_size(), *opts, any_orientation=True)
    assert not [key for key in planned_keys(plan) if key.startswith("INPUT.")]
    assert any(note.startswith(f"you gave {opts[0]} ") for note in plan.notes)
    assert mistakes(plan.cfg) == mistakes(config("DATASETS.TEST", "()", *opts))


def test_any_orientation_goes_with_the_users_size(plan_for):
    plan = plan_for(tiny(), "INPUT.MIN_SIZE_TRAIN", "(320,)", any_orientation=True)
    assert planned_keys(plan) & {"INPUT.AUGMENTATIONS", "INPUT.MIN_SIZE_TEST"} == {
        "INPUT.AUGMENTATIONS"
    }


@pytest.mark.parametrize("opts", [("SOLVER.AMP.ENABLED", "False"), ("SOLVER.AMP.DTYPE", "float16")])
def test_mixed_precision_of_the_user_is_kept(plan_for, opts):
    def measure(cfg):
        return Costs(0.2 if cfg.SOLVER.AMP.ENABLED else 0.5, 0.1, 10, 10**9, 8 * 10**9, images=4)

    options = {"measure": measure, "mixed_dtype": "bfloat16"}
    keys = {"SOLVER.AMP.ENABLED", "SOLVER.AMP.DTYPE"}
    assert keys <= planned_keys(plan_for(of_one_size(), **options))
    assert not keys & planned_keys(plan_for(of_one_size(), *opts, **options))


@pytest.mark.parametrize("count", [100, 1000])  # images, for which the plan is 1000 or 3000 long
def test_the_schedule_follows_the_users_length(plan_for, count):
    data = training_set(np.full((count, 2), 60.0), 1)
    plan = plan_for(data, "SOLVER.MAX_ITER", "2000", "SOLVER.STEPS", "(50%, 80%)")
    solver = plan.cfg.SOLVER
    assert solver.MAX_ITER == 2000 and solver.STEPS == (1000, 1600)
    assert solver.CHECKPOINT_PERIOD == 200
