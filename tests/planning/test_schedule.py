import numpy as np
import pytest

from libra_d2.planning.schedule import (
    MAX_EPOCHS,
    Costs,
    plan_batch,
    plan_length,
    plan_memory,
    plan_precision,
)

from .made_up import config, notes, training_set, values

COSTS = Costs(
    step_seconds=0.5,
    image_seconds=0.1,
    start_seconds=10,
    peak_bytes=2 * 10**9,
    available_bytes=8 * 10**9,
    images=4,
)


def images(count):
    return training_set(np.full((count, 2), 50.0), 1)


def length(count, *, costs=None, budget=None, tests=50, opts=(), given=False, steps_for=0):
    return plan_length(
        images(count),
        config(*opts),
        num_test_images=tests,
        costs=costs,
        budget=budget,
        length_is_given=given,
        steps_for=steps_for,
    )


def test_the_time_decides_how_many_steps_there_are():
    planned = values(length(1000, costs=COSTS, budget=600))
    evaluations = 10  # of 5 seconds: 50 of 600 seconds are less than 15%
    steps = (600 - 10 - evaluations * 5) / 0.5
    assert planned["SOLVER.MAX_ITER"] == int(steps)
    assert planned["SOLVER.STEPS"] == (
        round(0.75 * steps),
        round(0.9 * steps),
    )  # as 300, 360 of 400
    assert planned["SOLVER.WARMUP_ITERS"] == 100
    assert planned["TEST.EVAL_PERIOD"] == planned["SOLVER.CHECKPOINT_PERIOD"] == steps / evaluations


def test_slow_evaluations_are_fewer():
    planned = values(length(1000, costs=COSTS._replace(image_seconds=1.0), budget=600))
    assert planned["TEST.EVAL_PERIOD"] == planned["SOLVER.MAX_ITER"]  # 50 of at most 90 seconds


@pytest.mark.parametrize("tests,evaluations", [(5000, 1), (50, 3), (10, 10)])
def test_slow_evaluations_are_fewer_without_a_time_too(tests, evaluations):
    """The 300 steps take 850 s; three evaluations of 50 images take 147 of 1000 s."""
    costs = COSTS._replace(step_seconds=2.8, image_seconds=0.98)
    advice = length(4, costs=costs, tests=tests)
    planned = values(advice)
    assert planned["SOLVER.MAX_ITER"] == 300
    assert planned["TEST.EVAL_PERIOD"] == 300 / evaluations
    why = next(item.why for item in advice if getattr(item, "key", "") == "TEST.EVAL_PERIOD")
    number = {1: "1 evaluation of 82 min", 3: "3 evaluations of 49 s each"}
    assert why == number.get(evaluations, "10 evaluations of 10 s each")


def test_a_small_set_is_not_seen_for_ever():
    planned = values(length(40, costs=COSTS, budget=36000))
    assert planned["SOLVER.MAX_ITER"] == MAX_EPOCHS * 40 / 4


@pytest.mark.parametrize(
    "count,steps",
    [(4, 300), (100, 400), (1000, 3000)],  # 300 epochs, as the base, and 12 epochs
)
def test_without_a_time_the_base_config_decides_within_limits(count, steps):
    assert values(length(count))["SOLVER.MAX_ITER"] == steps


SLOW = COSTS._replace(image_seconds=1.0)  # 50 seconds for an evaluation


@pytest.mark.parametrize(
    "costs,budget,period", [(None, None, 80), (COSTS, 60, 80), (SLOW, None, 800), (SLOW, 60, 800)]
)
def test_a_given_length_sets_the_schedule(costs, budget, period):
    """The plan's own length would be 3000 or less than 100."""
    opts = ("SOLVER.MAX_ITER", "800", "SOLVER.STEPS", "(600, 720)")
    planned = values(length(1000, costs=costs, budget=budget, opts=opts, given=True))
    assert planned["SOLVER.STEPS"] == (600, 720) and planned["SOLVER.WARMUP_ITERS"] == 100
    assert planned["TEST.EVAL_PERIOD"] == period


def test_the_steps_of_the_base_config_keep_their_shares_in_a_given_length():
    opts = ("SOLVER.MAX_ITER", "800", "SOLVER.STEPS", "(300, 360)")
    planned = values(length(1000, opts=opts, given=True, steps_for=400))
    assert planned["SOLVER.STEPS"] == (600, 720)


def test_short_runs_are_not_all_warm_up():
    advice = length(1000, costs=COSTS, budget=30)
    planned = values(advice)
    assert planned["SOLVER.WARMUP_ITERS"] <= planned["SOLVER.MAX_ITER"] / 4
    assert all(0 < s < planned["SOLVER.MAX_ITER"] for s in planned["SOLVER.STEPS"])
    assert "training steps are too few to learn much" in notes(advice)


def test_without_a_test_set_it_says_how_to_get_one():
    advice = length(100, tests=0)
    assert "TEST.EVAL_PERIOD" not in values(advice) and "libra-d2 split" in notes(advice)


def test_two_images_make_a_batch_of_two():
    assert values(plan_batch(images(2), config())) == {
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.BASE_LR": 0.005,
    }
    assert not plan_batch(images(4), config())


@pytest.mark.parametrize("gigabytes,parts", [(2, None), (8, 2), (25, 4), (100, 4)])
def test_a_step_that_does_not_fit_is_computed_in_parts(gigabytes, parts):
    advice = plan_memory(config(), COSTS._replace(peak_bytes=gigabytes * 10**9))
    assert values(advice).get("SOLVER.ACCUMULATION_STEPS") == parts
    assert f"{gigabytes:.1f} GB of 8.0 GB of available memory" in (notes(advice) or advice[0].why)


@pytest.mark.parametrize(
    "images,measured,gigabytes,parts",
    [
        (8, 2, 15, 4),  # the peak of 15 GB was measured with the two parts of the base config
        (6, 1, 50, 6),  # 4 parts do not divide 6 images
        (6, 1, 40, 3),
        (2, 1, 100, 2),  # of a batch of 8 in 4 processes
        (8, 4, 7, 4),  # less did not fit
    ],
)
def test_the_parts_have_the_same_number_of_images(images, measured, gigabytes, parts):
    cfg = config("SOLVER.IMS_PER_BATCH", "8")
    costs = COSTS._replace(
        images=images,
        parts=measured,
        peak_bytes=gigabytes * 10**9,
        available_bytes=16 * 10**9,
    )
    assert values(plan_memory(cfg, costs)) == {"SOLVER.ACCUMULATION_STEPS": parts}


def test_one_image_cannot_be_split():
    advice = plan_memory(config(), COSTS._replace(images=1, peak_bytes=8 * 10**9))
    assert not values(advice) and "it cannot be split further" in notes(advice)


def test_mixed_precision_has_to_be_faster():
    faster = COSTS._replace(step_seconds=0.3)
    planned = values(plan_precision(COSTS, faster, "bfloat16"))
    assert planned == {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "bfloat16"}
    assert not values(plan_precision(COSTS, COSTS, "bfloat16"))
