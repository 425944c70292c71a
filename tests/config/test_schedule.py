"""Schedules in epochs and in shares of the run."""

import pytest

from libra_d2.config import check_for_detectron2, load_cfg
from libra_d2.config.schedule import KEYS, resolve
from libra_d2.errors import UserError

from ..support.project import ROOT

R50 = str(ROOT / "configs/libra_r50.yaml")  # 90000 iterations, steps at 60000 and 80000
PERIODS = [key for key in KEYS if key != "SOLVER.STEPS"]


def loaded(*opts, file=R50, purpose="train"):
    return load_cfg(file, ["MODEL.WEIGHTS", "", *map(str, opts)], purpose=purpose)


def written(folder, text, base=R50, name="my.yaml"):
    (folder / name).write_text(f"_BASE_: {base}\n{text}")
    return str(folder / name)


def schedule(cfg, num_images=0):
    """MAX_ITER, STEPS, WARMUP_ITERS, CHECKPOINT_PERIOD and EVAL_PERIOD in iterations."""
    resolve(cfg, num_images)
    solver = cfg.SOLVER
    periods = (solver.WARMUP_ITERS, solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD)
    return (solver.MAX_ITER, solver.STEPS, *periods)


def test_texts_in_a_file_and_on_the_command_line_mean_the_same(tmp_path):
    text = (
        'SOLVER:\n  MAX_ITER: 1000\n  STEPS: ("70%", "10 epochs", 950)\n  WARMUP_ITERS: 5%\n'
        "  CHECKPOINT_PERIOD: 2 epochs\nTEST:\n  EVAL_PERIOD: 0.5 epochs\n"
    )
    typed = ["SOLVER.MAX_ITER", 1000, "SOLVER.STEPS", "(70%, 10 epochs, 950)"]
    typed += ["SOLVER.WARMUP_ITERS", "5%", "SOLVER.CHECKPOINT_PERIOD", "2 epochs"]
    typed += ["TEST.EVAL_PERIOD", "0.5 EPOCH"]
    # 640 images in batches of 8: an epoch has 80 iterations.
    for cfg in (loaded(file=written(tmp_path, text)), loaded(*typed)):
        cfg.SOLVER.IMS_PER_BATCH = 8
        assert schedule(cfg, 640) == (1000, (700, 800, 950), 50, 160, 40)


@pytest.mark.parametrize(
    "epochs, images, batch, max_iter",
    [(2, 10, 4, 5), (1, 10, 4, 3), (1.1, 10, 1, 11), (0.1, 30, 1, 3), (0.01, 10, 4, 1)],
)
def test_the_last_batch_of_the_run_counts_as_a_whole(epochs, images, batch, max_iter):
    cfg = loaded("SOLVER.EPOCHS", epochs, "SOLVER.IMS_PER_BATCH", batch)
    assert schedule(cfg, images)[0] == max_iter


def test_numbers_of_the_base_keep_their_shares():
    base = loaded()
    assert schedule(loaded("SOLVER.EPOCHS", 1), 90000 * 16) == schedule(base)
    # A tenth of the length: a tenth of each number.
    assert schedule(loaded("SOLVER.EPOCHS", 1), 9000 * 16) == (9000, (6000, 8000), 50, 500, 0)


def test_numbers_of_the_same_and_later_layers_are_iterations(tmp_path):
    file = written(tmp_path, "SOLVER:\n  EPOCHS: 2\n  STEPS: (100, 150)\n")
    cfg = loaded("TEST.EVAL_PERIOD", 7, "SOLVER.EPOCHS", 4, file=file)
    assert schedule(cfg, 90 * 16) == (360, (100, 150), 2, 20, 7)


def test_several_files_are_several_layers(tmp_path):
    """The file in the middle shortens the base: the shares are those of the shortened run."""
    middle = written(tmp_path, "SOLVER:\n  MAX_ITER: 1000\n  STEPS: (800,)\n", name="middle.yaml")
    file = written(tmp_path, "SOLVER:\n  EPOCHS: 1\n", base=middle)
    assert schedule(loaded(file=file), 100 * 16) == (100, (80,), 50, 100, 0)


def test_epochs_can_be_switched_off_again(tmp_path):
    file = written(tmp_path, "SOLVER:\n  EPOCHS: 2\n")
    assert schedule(loaded("SOLVER.EPOCHS", 0.0, file=file)) == schedule(loaded())
    cfg = loaded("SOLVER.EPOCHS", 0.0, "SOLVER.MAX_ITER", 100, file=file)
    assert schedule(cfg)[0] == 100


def test_two_lengths_are_refused(tmp_path):
    both = "SOLVER:\n  EPOCHS: 2\n  MAX_ITER: 100\n"
    with pytest.raises(UserError, match=r"my\.yaml: SOLVER\.MAX_ITER 100 and SOLVER\.EPOCHS 2 bo"):
        loaded(file=written(tmp_path, both))
    with pytest.raises(UserError, match=r"command line: .*Choose one"):
        loaded("SOLVER.MAX_ITER", 100, "SOLVER.EPOCHS", 2)
    file = written(tmp_path, "SOLVER:\n  EPOCHS: 2\n")
    with pytest.raises(UserError, match=r"SOLVER\.EPOCHS 2 of .*my\.yaml .*EPOCHS 0\.0 as well"):
        loaded("SOLVER.MAX_ITER", 100, file=file)
    loaded("SOLVER.EPOCHS", 3, file=written(tmp_path, "SOLVER:\n  MAX_ITER: 100\n"))


@pytest.mark.parametrize(
    "value", ["soon", "10", "1 week", "-1 epoch", "10 %%", "%", "epoch", "1.5"]
)
def test_other_texts_are_refused_together(value):
    opts = [word for key in PERIODS for word in (key, f"'{value}'")]
    with pytest.raises(UserError) as e:
        loaded(*opts, "SOLVER.STEPS", f"('50%', '{value}')")
    expected = (
        'must be a number of iterations, a share such as 10% or epochs such as "2 epochs", got'
    )
    for key in KEYS:
        assert f"{key} {expected} '{value}'" in str(e.value)


@pytest.mark.parametrize(
    "key, value, named",
    [
        ("SOLVER.EPOCHS", "-1", "must be at least 0, got -1"),
        ("SOLVER.STEPS", "(100%,)", "must be a share below 100%, got '100%'"),
        ("SOLVER.STEPS", "(0%,)", "must be above 0, got '0%'"),
        ("SOLVER.STEPS", "(90%, 70%)", "must increase"),
        ("SOLVER.STEPS", "70%", "must be a tuple"),
        ("SOLVER.WARMUP_ITERS", "101%", "at most 100%, got '101%'"),
        ("SOLVER.WARMUP_ITERS", "90000", "must be below SOLVER.MAX_ITER 90000, got 90000"),
        ("SOLVER.CHECKPOINT_PERIOD", "0 epochs", "must be above 0, got '0 epochs'"),
        ("TEST.EVAL_PERIOD", "200%", "at most 100%, got '200%'"),
        ("TEST.EVAL_PERIOD", "-1", "must be at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused_for_training_only(key, value, named):
    with pytest.raises(UserError, match=named):
        loaded(key, value)
    if "tuple" not in named:
        loaded(key, value, purpose="evaluate")


def test_early_stopping_needs_a_period_in_any_unit():
    opts = ["TEST.EARLY_STOPPING_PATIENCE", 2, "TEST.BEST_METRIC", "bbox/AP", "TEST.EVAL_PERIOD"]
    loaded(*opts, "1 epoch")
    with pytest.raises(UserError, match="EARLY_STOPPING_PATIENCE needs"):
        loaded(*opts, "0 epochs")


def test_steps_of_several_units_are_compared_as_iterations():
    cfg = loaded("SOLVER.STEPS", "(90%, 1 epoch)", "SOLVER.EPOCHS", 2)
    with pytest.raises(UserError, match=r"STEPS must increase, got .* iterations \(180, 100\)"):
        resolve(cfg, 1600)


@pytest.mark.parametrize("length", range(1, 12))
def test_very_short_runs_have_a_usable_schedule(length):
    max_iter, steps, warmup, *periods = schedule(loaded("SOLVER.EPOCHS", length), 16)
    assert max_iter == length and list(steps) == sorted(set(steps))
    assert all(0 < step < length for step in steps) and warmup <= length and periods[0] >= 1


def test_a_dumped_config_can_be_loaded_and_changed(tmp_path):
    file = written(tmp_path, "SOLVER:\n  EPOCHS: 2\nTEST:\n  EVAL_PERIOD: 1 epoch\n")
    (tmp_path / "dump.yaml").write_text(loaded(file=file).dump())
    for opts in ([], ["SOLVER.EPOCHS", 4], ["TEST.EVAL_PERIOD", 5], ["SOLVER.STEPS", "(3,)"]):
        ours, dumped = (loaded(*opts, file=f) for f in (file, str(tmp_path / "dump.yaml")))
        assert schedule(ours, 1000) == schedule(dumped, 1000)


def test_a_resolved_config_has_one_length_and_can_be_loaded_again(tmp_path):
    """Such as that of a trainer, which scripts may save."""
    opts = ["SOLVER.EPOCHS", 2, "SOLVER.STEPS", "(50%, 1.5 epochs)", "TEST.EVAL_PERIOD", "1 epoch"]
    cfg = loaded(*opts)
    expected = schedule(cfg, 1000)
    (tmp_path / "dump.yaml").write_text(cfg.dump())
    # Whatever the number of images is now: the dump is in iterations.
    assert schedule(loaded(file=str(tmp_path / "dump.yaml")), 5) == expected
    longer = loaded("SOLVER.MAX_ITER", 500, file=str(tmp_path / "dump.yaml"))
    assert schedule(longer) == (500, *expected[1:])
    check_for_detectron2(
        loaded("SOLVER.CLIP_GRADIENTS.ENABLED", False, file=str(tmp_path / "dump.yaml"))
    )


def test_detectron2s_trainer_is_warned_of_epochs():
    with pytest.raises(UserError, match=r"SOLVER\.EPOCHS is 2\.0, which only"):
        check_for_detectron2(loaded("SOLVER.EPOCHS", 2, "SOLVER.CLIP_GRADIENTS.ENABLED", False))
