"""The schedule of a run that is resumed with another length."""

import argparse

import pytest
import torch

from libra_d2.config import load_cfg
from libra_d2.config.schedule import resolve
from libra_d2.engine import LibraTrainer, setup
from libra_d2.engine.resumed_optimizer import apply_group_settings, group_settings
from libra_d2.engine.resuming import check_steps_move
from libra_d2.engine.solver import build_lr_scheduler
from libra_d2.errors import UserError

from ..support.coco_files import write_dataset
from ..support.project import ROOT
from ..support.setup_arguments import arguments
from ..support.train_net_runs import SMALL

CONFIG = str(ROOT / "configs/libra_mobilenet_v2.yaml")  # 400 iterations, steps at 300 and 360


def loaded(*opts, file=CONFIG):
    return load_cfg(file, list(map(str, opts)))


def resumed(*opts, before=(), num_images=400):
    """The config of a run that was started with the options `before` and is resumed with others."""
    old, new = loaded(*before), loaded(*before, *opts)
    for cfg in (old, new):
        resolve(cfg, num_images)
    check_steps_move(old.dump(), new)
    return new


@pytest.mark.parametrize("length, steps", [(800, '"(600,720)"'), (380, '"(285,342)"')])
def test_steps_that_stay_are_refused_with_the_ones_to_give(length, steps):
    with pytest.raises(UserError) as e:
        resumed("SOLVER.MAX_ITER", length)
    message = str(e.value)
    assert "\n" not in message
    assert f"changed from 400 to {length}" in message and f"SOLVER.STEPS {steps}" in message
    resumed("SOLVER.MAX_ITER", length, "SOLVER.STEPS", steps.strip('"'))


@pytest.mark.parametrize(
    "opts, before",
    [
        ("SOLVER.MAX_ITER 800 SOLVER.STEPS (300,360)", ""),  # given on the command line
        ("SOLVER.MAX_ITER 800 SOLVER.LR_SCHEDULER_NAME WarmupCosineLR", ""),
        ("SOLVER.MAX_ITER 500", "SOLVER.MAX_ITER 20"),  # the steps were never reached
        ("SOLVER.BASE_LR 0.1", ""),
        ("", ""),
        ("SOLVER.EPOCHS 8", "SOLVER.EPOCHS 4"),
        ("SOLVER.EPOCHS 8", ""),
    ],
)
def test_other_changes_are_allowed(opts, before):
    resumed(*opts.split(), before=before.split())


def test_a_share_moves_even_if_it_is_rounded_to_the_same_iteration(tmp_path):
    (tmp_path / "a.yaml").write_text(f"_BASE_: {CONFIG}\nSOLVER:\n  STEPS: ['50%']\n")
    old, new = (loaded("SOLVER.MAX_ITER", n, file=str(tmp_path / "a.yaml")) for n in (1001, 1002))
    for cfg in (old, new):
        resolve(cfg)
    assert old.SOLVER.STEPS == new.SOLVER.STEPS == (501,)
    check_steps_move(old.dump(), new)


def test_epochs_of_a_file_that_stay_are_refused(tmp_path):
    text = f"_BASE_: {CONFIG}\nSOLVER:\n  EPOCHS: 4\n  STEPS: ['3 epochs']\n"
    (tmp_path / "a.yaml").write_text(text)
    old, new = (loaded(*o, file=str(tmp_path / "a.yaml")) for o in ((), ("SOLVER.EPOCHS", 8)))
    for cfg in (old, new):
        resolve(cfg, 400)
    with pytest.raises(UserError, match=r'Give SOLVER\.STEPS "\(600,\)"'):
        check_steps_move(old.dump(), new)


def rates(cfg, state=None, until=10**9):
    """The learning rates of the iterations that follow a state, and the new state."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.SOLVER.BASE_LR, momentum=0.9)
    scheduler = build_lr_scheduler(cfg, optimizer)
    if state is not None:
        settings = group_settings(optimizer)
        optimizer.load_state_dict(state[0])
        scheduler.load_state_dict(state[1])
        apply_group_settings(optimizer, scheduler, settings)
    ret = []
    while scheduler.last_epoch < min(cfg.SOLVER.MAX_ITER, until):
        ret.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return ret, (optimizer.state_dict(), scheduler.state_dict())


@pytest.mark.parametrize("scheduler", ["WarmupMultiStepLR", "WarmupCosineLR"])
def test_a_resumed_run_has_the_rates_of_an_undisturbed_one(scheduler):
    name = ("SOLVER.LR_SCHEDULER_NAME", scheduler)
    # 40 images in batches of four.
    short, long = (loaded(*name, "SOLVER.EPOCHS", epochs) for epochs in (4, 8))
    for cfg in (short, long):
        resolve(cfg, 40)
    finished, state = rates(short)
    assert len(finished) == 40
    assert rates(long, state)[0] == rates(long)[0][40:]
    # Unchanged, it goes on as if it had not been stopped.
    part, state = rates(short, until=17)
    assert part + rates(short, state)[0] == finished


def test_setup_keeps_the_users_form_in_the_saved_config(tmp_path):
    opts = ["SOLVER.EPOCHS", "4", "TEST.EVAL_PERIOD", "1 epoch", "SOLVER.STEPS", "(50%,)"]
    cfg = setup(arguments(tmp_path, *opts, "SOLVER.IMS_PER_BATCH", "2"))  # three images
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.TEST.EVAL_PERIOD) == (6, (3,), 2)
    saved = load_cfg(str(tmp_path / "out/config.yaml"))
    assert (saved.SOLVER.EPOCHS, saved.TEST.EVAL_PERIOD) == (4.0, "1 epoch")
    assert saved.SOLVER.STEPS == ("50%",)
    resolve(saved, 3)
    assert saved.SOLVER == cfg.SOLVER


@pytest.mark.parametrize(
    "opts",
    [
        ["SOLVER.STEPS", "(1 epoch, 9 epochs)"],
        ["SOLVER.STEPS", "(3, 40)"],
        ["SOLVER.WARMUP_ITERS", "9 epochs"],
    ],
)
def test_a_schedule_beyond_the_end_on_the_command_line_is_refused(tmp_path, opts):
    opts = ["SOLVER.EPOCHS", "4", "SOLVER.IMS_PER_BATCH", "2", *opts]
    with pytest.raises(UserError, match=r"must be below SOLVER\.MAX_ITER 6, got"):
        setup(arguments(tmp_path, *opts))
    assert not (tmp_path / "out/config.yaml").exists()


@pytest.mark.slow
def test_finished_runs_are_extended(tmp_path):
    files = write_dataset(tmp_path / "data")
    out = tmp_path / "out"

    def train(config, *opts, resume=False):
        opts = [*opts, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", out]
        args = argparse.Namespace(
            config_file=str(config), eval_only=False, resume=resume, opts=[str(o) for o in opts]
        )
        trainer = LibraTrainer(setup(args))
        trainer.resume_or_load(resume)
        trainer.train()
        return trainer

    data = ["DATASETS.TRAIN", f"coco:{files[0]},{files[1]}", "SEED", 1]
    train(CONFIG, *data, *SMALL[:-4], "SOLVER.MAX_ITER", 4, "SOLVER.STEPS", "(3,)")
    saved = out / "config.yaml"
    before = saved.read_bytes()
    with pytest.raises(UserError, match=r'SOLVER\.STEPS "\(6,\)"'):
        train(saved, "SOLVER.MAX_ITER", 8, resume=True)
    assert saved.read_bytes() == before
    trainer = train(saved, "SOLVER.EPOCHS", 4, resume=True)  # three images in batches of two
    assert (trainer.start_iter, trainer.iter, trainer.cfg.SOLVER.STEPS) == (4, 6, (5,))
    trainer = train(saved, "SOLVER.EPOCHS", 6, resume=True)
    assert (trainer.start_iter, trainer.iter, trainer.cfg.SOLVER.STEPS) == (6, 9, (7,))
