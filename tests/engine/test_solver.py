import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.solver import build_optimizer as build_optimizer_upstream
from hypothesis import given, settings
from hypothesis import strategies as st

from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.engine.solver import schedule_advice
from libra_d2.errors import UserError


def load(*opts):
    return load_cfg("configs/libra_r50.yaml", [str(o) for o in opts])


def small_model():
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))


def optimizer(name, *opts, model=None):
    opts = [
        *("SOLVER.OPTIMIZER", name, "SOLVER.WEIGHT_DECAY", "0.05", "SOLVER.BASE_LR", "0.001"),
        *opts,
    ]
    return LibraTrainer.build_optimizer(load(*opts), model or small_model())


def clip_options(clip_type, value=1.0, norm_type=2.0):
    return [
        *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type),
        *("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", value),
        *("SOLVER.CLIP_GRADIENTS.NORM_TYPE", norm_type),
    ]


def test_optimisers_by_name():
    assert isinstance(optimizer("SGD"), torch.optim.SGD)
    adam = optimizer("AdamW")
    assert isinstance(adam, torch.optim.AdamW)
    assert {g["lr"] for g in adam.param_groups} == {0.001}
    assert {g["weight_decay"] for g in adam.param_groups} == {0.05, 0.0}  # none for the norm


def test_unknown_optimiser_is_named():
    with pytest.raises(UserError, match=r"OPTIMIZER must be one of .*, got 'Lion'"):
        optimizer("Lion")


def clipped(clip_type, gradients, value=1.0, norm_type=2.0, build=LibraTrainer.build_optimizer):
    """
    Return the gradients, a tensor or None for each parameter, that reach SGD: it takes one step of
    size 1 from weights of 0.
    """
    model = torch.nn.Module()
    for i in range(len(gradients)):
        model.register_parameter(f"p{i}", torch.nn.Parameter(torch.zeros(2)))
    cfg = load(
        *clip_options(clip_type, value, norm_type),
        *("SOLVER.BASE_LR", 1.0, "SOLVER.WEIGHT_DECAY", 0.0),
    )
    sgd = build(cfg, model)
    for p, gradient in zip(model.parameters(), gradients):
        p.grad = None if gradient is None else torch.tensor(gradient)
    sgd.step()
    return [(-p).tolist() for p in model.parameters()]


def flat(lists):
    return [v for values in lists for v in values]


def test_clipping_by_value_by_norm_and_by_the_norm_of_all():
    gradients = [[3.0, 4.0], [0.0, 0.3]]
    assert clipped("value", gradients) == [[1.0, 1.0], [0.0, pytest.approx(0.3)]]
    # Norm 5 becomes 1; norm 0.3 stays.
    assert flat(clipped("norm", gradients)) == pytest.approx([0.6, 0.8, 0, 0.3], abs=1e-5)
    # Largest absolute value 4 of all becomes 2.
    of_all = clipped("global_norm", gradients, value=2.0, norm_type="1e999")
    assert flat(of_all) == pytest.approx([1.5, 2.0, 0.0, 0.15], abs=1e-5)


@pytest.mark.parametrize("clip_type", ["value", "norm", "global_norm"])
def test_parameters_without_a_gradient_are_left_out(clip_type):
    """Detectron2's clipping by value fails for them: "Expected !nested_tensorlist[0].empty()"."""
    ret = clipped(clip_type, [None, [3.0, 0.0], None])
    assert flat(ret) == pytest.approx([0, 0, 1, 0, 0, 0], abs=1e-5)
    assert clipped(clip_type, [None, None]) == [[0, 0], [0, 0]]


@settings(max_examples=25)
@given(
    clip_type=st.sampled_from(["value", "norm"]),
    gradients=st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=2), min_size=1, max_size=4
    ),
    value=st.floats(0.01, 50),
)
def test_clipping_by_value_and_norm_is_upstreams(clip_type, gradients, value):
    ours = clipped(clip_type, gradients, value)
    assert ours == clipped(clip_type, gradients, value, build=build_optimizer_upstream)


@pytest.mark.parametrize(
    "opts,named",
    [
        (clip_options("all"), "CLIP_TYPE must be one of .*, got 'all'"),
        (clip_options("norm", 0.0), "CLIP_VALUE must be above 0, got 0.0"),
    ],
)
def test_clipping_that_makes_no_sense_is_refused(opts, named):
    with pytest.raises(UserError, match=named):
        optimizer("AdamW", *opts)


def rates(*opts, steps):
    cfg = load("SOLVER.WARMUP_ITERS", 4, "SOLVER.WARMUP_FACTOR", 0.25, *opts)
    sgd = LibraTrainer.build_optimizer(cfg, small_model())
    scheduler = LibraTrainer.build_lr_scheduler(cfg, sgd)
    ret = []
    for _ in range(steps):
        ret.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return ret


def test_schedules_warm_up_and_fall():
    common = ("SOLVER.BASE_LR", 1.0, "SOLVER.MAX_ITER", 16)
    steps = rates(*common, "SOLVER.STEPS", "(8,12)", steps=16)
    warm = [0.25, 0.4375, 0.625, 0.8125]
    assert steps == pytest.approx([*warm, *[1.0] * 4, *[0.1] * 4, *[0.01] * 4])
    cosine = rates(*common, "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", steps=16)
    assert cosine[8] == pytest.approx(0.5)  # half of the way
    assert cosine[:5] == sorted(cosine[:5]) and cosine[4:] == sorted(cosine[4:], reverse=True)
    assert cosine[15] < 0.01


@pytest.mark.parametrize(
    "opts,named",
    [
        (
            ["SOLVER.LR_SCHEDULER_NAME", "Cosine"],
            "LR_SCHEDULER_NAME must be one of .*, got 'Cosine'",
        ),
        (["SOLVER.WARMUP_METHOD", "exponential"], "Unknown warmup method: exponential"),
        (["SOLVER.STEPS", "(80,60)"], r"STEPS must increase, got \(80, 60\)"),
        (["SOLVER.MAX_ITER", 0], "MAX_ITER must be at least 1, got 0"),
        (["SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "(1,)"], r"MAX_ITER 1, STEPS \(1,\)"),
        (["SOLVER.BASE_LR", 0.0], "BASE_LR must be above 0, got 0.0"),
        (
            ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR_END", 1.0],
            "BASE_LR_END must be from 0 to SOLVER.BASE_LR 0.02, got 1.0",
        ),
    ],
)
def test_schedules_that_make_no_sense_are_refused(opts, named):
    cfg = load(*opts)
    sgd = torch.optim.SGD(small_model().parameters(), lr=1.0)
    with pytest.raises(UserError, match=named):
        LibraTrainer.build_lr_scheduler(cfg, sgd)


def test_scaling_to_the_number_of_processes_keeps_the_work_of_each():
    """Twice the processes have twice the images, in as many parts, and half of the steps."""
    cfg = load(
        *("SOLVER.REFERENCE_WORLD_SIZE", 2, "SOLVER.IMS_PER_BATCH", 8, "SOLVER.BASE_LR", 0.01),
        *("SOLVER.ACCUMULATION_STEPS", 2, "SOLVER.MAX_ITER", 100, "SOLVER.STEPS", "(60,80)"),
    )
    scaled = DefaultTrainer.auto_scale_workers(cfg, 4).SOLVER
    assert (scaled.IMS_PER_BATCH, scaled.ACCUMULATION_STEPS) == (16, 2)
    assert (scaled.BASE_LR, scaled.MAX_ITER, scaled.STEPS) == (0.02, 50, (30, 40))
    assert scaled.EMA_DECAY == cfg.SOLVER.EMA_DECAY and scaled.NON_FINITE_SKIPS == 0


@pytest.mark.parametrize(
    "opts,advice,rate",
    [
        (["SOLVER.IMS_PER_BATCH", 16], None, None),
        (["SOLVER.IMS_PER_BATCH", 8], None, None),  # twice of it is not yet worth a word
        (
            ["SOLVER.IMS_PER_BATCH", 4],
            "BASE_LR is 0.02. The linear scaling rule, 0.02 for 16 images, gives 0.005 for",
            0.005,
        ),
        (
            ["SOLVER.BASE_LR", 0.002],
            "BASE_LR is 0.002. The linear scaling rule, 0.02 for 16 images, gives 0.02 for",
            0.02,
        ),
        (
            ["SOLVER.BASE_LR", 0.03, "MODEL.META_ARCHITECTURE", "LibraRetinaNet"],
            "BASE_LR is 0.03. The linear scaling rule, 0.01 for 16 images, gives 0.01 for",
            0.01,
        ),
        (["SOLVER.BASE_LR", 0.0001, "SOLVER.OPTIMIZER", "AdamW"], None, None),
    ],
)
def test_a_learning_rate_far_off_the_linear_rule_is_remarked(opts, advice, rate):
    lines = schedule_advice(load(*opts))
    assert len(lines) == (advice is not None)
    if advice:
        assert advice in lines[0] and lines[0].endswith(f'; set SOLVER.BASE_LR "{rate}"')
        assert not schedule_advice(load(*opts, "SOLVER.BASE_LR", rate))


@pytest.mark.parametrize("warmup,remarked", [(10, False), (50, False), (51, True), (100, True)])
def test_a_run_that_is_mostly_warm_up_is_remarked(warmup, remarked):
    lines = schedule_advice(load("SOLVER.MAX_ITER", 100, "SOLVER.WARMUP_ITERS", warmup))
    assert lines == [line for line in lines if line.startswith("SOLVER.WARMUP_ITERS is")]
    assert bool(lines) is remarked and all('WARMUP_ITERS "10"' in line for line in lines)
