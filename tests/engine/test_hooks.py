import contextlib
import copy
import logging
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage

from libra_d2.engine import load_cfg
from libra_d2.engine.hooks import (
    BestCheckpointer,
    EarlyStopping,
    Evaluation,
    FinalEvaluation,
    PeriodicCheckpointer,
    PreciseBN,
    RunPictures,
    TrainingEnded,
)
from libra_d2.errors import UserError


def pictures(tmp_path, last_iter=10):
    cfg = load_cfg("configs/demo.yaml", ["OUTPUT_DIR", str(tmp_path)])
    hook = RunPictures(cfg, str(tmp_path / "inference"))
    hook.trainer = SimpleNamespace(iter=last_iter, max_iter=10)
    hook.before_train()
    return hook


def test_a_failure_to_draw_does_not_end_a_finished_run(tmp_path, caplog, monkeypatch):
    (tmp_path / "metrics.json").write_text('{"iteration": 1, "total_loss": 1.0, "lr": 0.1}\n')
    monkeypatch.setattr("libra_d2.engine.hooks.save_loss_curve", lambda *paths: 1 / 0)
    pictures(tmp_path).after_train()
    assert "Could not draw" in caplog.text


def test_a_failed_run_is_not_drawn(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 1, "total_loss": 1.0, "lr": 0.1}\n')
    pictures(tmp_path, last_iter=4).after_train()
    assert not (tmp_path / "loss_curve.png").exists()


def test_predictions_of_an_earlier_run_are_not_drawn(tmp_path, caplog):
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference/coco_instances_results.json").write_text("[]")
    hook = pictures(tmp_path)
    hook.start += 1000
    with caplog.at_level(logging.INFO):
        hook.after_train()
    assert not (tmp_path / "predictions.png").exists() and "Could not" not in caplog.text


# -- Evaluation, best checkpoints, early stopping -------------------------------------------------


class Checkpoints:
    """Replaces a checkpointer, and records what is saved."""

    save_to_disk = True
    path_manager = None

    def __init__(self, folder):
        self.save_dir, self.saved = str(folder), []

    def save(self, name, tag=True, **kwargs):
        self.saved.append(name)
        (Path(self.save_dir) / f"{name}.pth").write_text(f"{name} {len(self.saved)}")

    def tag_last_checkpoint(self, name):
        self.tagged = name

    def link(self, name, new_name):
        text = (Path(self.save_dir) / f"{name}.pth").read_text()
        (Path(self.save_dir) / f"{new_name}.pth").write_text(text)


class Trainer:
    """The part of a trainer that hooks use. Each step has one evaluation."""

    def __init__(self, *hooks, max_iter=100):
        self.hooks, self.max_iter, self.iter, self.storage = hooks, max_iter, 0, EventStorage()
        for hook in hooks:
            hook.trainer = self

    def run(self, values, metric="bbox/AP"):
        for hook in self.hooks:
            hook.before_train()
        for value in values:
            self.storage.iter = self.iter
            for hook in self.hooks:
                hook.before_step()
            if value is not None:
                self.storage.put_scalar(metric, value, smoothing_hint=False)
            for hook in self.hooks:
                hook.after_step()
            self.iter += 1


def names(folder):
    return sorted(p.stem for p in folder.glob("*.pth"))


def test_the_best_checkpoint_is_kept(tmp_path):
    hook = BestCheckpointer(Checkpoints(tmp_path), "bbox/AP")
    # A tie is not better, NaN is nothing, and no evaluation is none.
    Trainer(hook).run([1.0, 3.0, 3.0, math.nan, None, 2.0])
    assert hook.best == [(3.0, 1)]
    assert hook.checkpointer.saved == ["model_best", "model_best"]
    assert names(tmp_path) == ["model_best"]


def test_the_best_three_are_kept_and_the_best_of_all_is_named(tmp_path):
    hook = BestCheckpointer(Checkpoints(tmp_path), "bbox/AP", num_best=3)
    Trainer(hook).run([1.0, 5.0, 3.0, 5.0, 0.5, 4.0])
    assert hook.best == [(5.0, 1), (5.0, 3), (4.0, 5)]
    expected = [f"model_best_{i:07d}" for i in (1, 3, 5)]
    assert names(tmp_path) == ["model_best", *expected]
    assert (tmp_path / "model_best.pth").read_text().startswith("model_best_0000001 ")


def test_smaller_is_better_for_losses(tmp_path):
    hook = BestCheckpointer(Checkpoints(tmp_path), "bbox/AP", num_best=2, mode="min")
    Trainer(hook).run([1.0, 5.0, 0.5])
    assert hook.best == [(0.5, 2), (1.0, 0)]


def test_what_was_best_survives_a_resume(tmp_path):
    first = BestCheckpointer(Checkpoints(tmp_path), "bbox/AP", num_best=2)
    Trainer(first).run([4.0, 2.0])
    state = copy.deepcopy(first.state_dict())
    first.trainer.run([3.0])  # of a part of the run that is not resumed from
    assert names(tmp_path) == ["model_best", "model_best_0000000", "model_best_0000002"]

    second = BestCheckpointer(Checkpoints(tmp_path), "bbox/AP", num_best=2)
    second.load_state_dict(state)
    trainer = Trainer(second)
    trainer.iter = 2
    trainer.run([])
    assert second.best == [(4.0, 0)]  # the other one's file is gone
    assert names(tmp_path) == ["model_best", "model_best_0000000"]
    trainer.run([5.0])
    assert second.best == [(5.0, 2), (4.0, 0)]
    assert (tmp_path / "model_best.pth").read_text().startswith("model_best_0000002 ")


def test_training_ends_after_evaluations_without_improvement(tmp_path, caplog):
    hook = EarlyStopping(1, "bbox/AP", patience=2, min_delta=0.5)
    trainer = Trainer(hook)
    with pytest.raises(TrainingEnded):
        trainer.run([1.0, 1.4, 2.0, 2.0, 2.5, 9.0])  # 2.5 is no more than min_delta better
    assert trainer.iter == 5 and trainer.max_iter == 5  # the last step was the last one to all
    resumed = EarlyStopping(1, "bbox/AP", patience=2, min_delta=0.5)
    resumed.load_state_dict(hook.state_dict())
    with pytest.raises(TrainingEnded):
        Trainer(resumed).run([9.0])
    patient = EarlyStopping(1, "bbox/AP", patience=3, min_delta=0.5)
    patient.load_state_dict(hook.state_dict())
    Trainer(patient).run([2.6])
    assert patient.num_without == 0


def test_only_evaluations_count_for_early_stopping():
    hook = EarlyStopping(2, "bbox/AP", patience=1, mode="min")
    trainer = Trainer(hook)
    trainer.run([9.0, 2.0, 9.0, 1.0])
    assert (hook.best, hook.num_without) == (-1.0, 0)


def test_the_end_is_the_last_step_to_the_checkpointer(tmp_path):
    periodic = PeriodicCheckpointer(Checkpoints(tmp_path), 1000)
    stopping = EarlyStopping(1, "bbox/AP", patience=1)
    with pytest.raises(TrainingEnded):
        Trainer(stopping, periodic).run([1.0, 1.0, 1.0])
    assert periodic.checkpointer.saved == ["model_final"]


def test_a_failure_in_the_last_step_is_followed_by_no_evaluation():
    when = []
    for iteration in (9, 10):  # of 10: in the last step, and behind it
        hook = FinalEvaluation(partial(when.append, iteration))
        hook.trainer = SimpleNamespace(iter=iteration, max_iter=10, storage=EventStorage())
        hook.after_train()
    assert when == [10]


def test_precise_batch_norms_stay_where_others_hold_them():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).train()
    mean = model[0].running_mean
    data = [torch.randn(4, 3, 2, 2) + i for i in range(5)]
    hook = PreciseBN(1, model, data, 3, weights=contextlib.nullcontext)
    for _ in range(2):  # of the same images each time
        hook.update_stats()
        assert model[0].running_mean is mean
        expected = torch.stack([x.mean((0, 2, 3)) for x in data[:3]]).mean(0)
        torch.testing.assert_close(mean, expected)


def test_another_metric_is_not_compared_with_the_old_one(tmp_path):
    ap = BestCheckpointer(Checkpoints(tmp_path), "bbox/AP")
    ap.best = [(30.0, 5)]
    loss = BestCheckpointer(Checkpoints(tmp_path), "validation/total_loss", mode="min")
    loss.load_state_dict(ap.state_dict())
    assert loss.best == []
    stopping = EarlyStopping(1, "validation/total_loss", 2, mode="min")
    stopping.load_state_dict({"metric": ["bbox/AP", 1], "best": 30.0, "num_without": 1})
    assert stopping.num_without == 0 and stopping.best == -math.inf


def test_the_only_best_one_counts_when_more_are_to_be_kept(tmp_path):
    one = BestCheckpointer(Checkpoints(tmp_path), "bbox/AP")
    Trainer(one).run([4.0])
    three = BestCheckpointer(Checkpoints(tmp_path), "bbox/AP", num_best=3)
    three.load_state_dict(one.state_dict())
    trainer = Trainer(three)
    trainer.iter = 1
    trainer.run([2.0])
    assert three.best == [(4.0, 0), (2.0, 1)]
    assert (tmp_path / "model_best.pth").read_text() == "model_best 1"


def test_resuming_counts_earlier_checkpoints_and_no_later_ones(tmp_path):
    for i in (1, 3, 5, 7):
        (tmp_path / f"model_{i:07d}.pth").write_text("")
    hook = PeriodicCheckpointer(Checkpoints(tmp_path), 2, max_to_keep=2)
    # That of iteration 7 is damaged.
    hook.resume_at(6, str(tmp_path / "model_0000005.pth"), max_iter=100)
    assert [Path(p).stem for p in hook.recent_checkpoints] == ["model_0000003", "model_0000005"]
    assert names(tmp_path) == ["model_0000003", "model_0000005", "model_0000007"]


def test_checkpoints_of_the_step_that_a_kill_has_prevented(tmp_path):
    """The run is killed after it has saved the best checkpoint of the last step only."""
    (tmp_path / "model_best_0000005.pth").write_text("of 5")
    (tmp_path / "model_final.pth").write_text("before the evaluation")
    checkpoints = Checkpoints(tmp_path)
    hook = PeriodicCheckpointer(checkpoints, 3)
    hook.resume_at(6, str(tmp_path / "model_best_0000005.pth"), max_iter=6)
    for name in ("model_0000005", "model_final"):
        assert (tmp_path / f"{name}.pth").read_text() == "of 5"
    assert checkpoints.tagged == "model_final.pth"
    assert hook.recent_checkpoints == [str(tmp_path / "model_0000005.pth")]


def evaluated(tmp_path, function, period=2, metric="", max_iter=4):
    hook = Evaluation(period, function, Checkpoints(tmp_path), metric)
    trainer = Trainer(hook, max_iter=max_iter)
    return hook, trainer


def test_evaluates_by_period_and_in_the_last_step(tmp_path):
    when = []
    hook, trainer = evaluated(
        tmp_path, lambda: when.append(trainer.iter) or {"bbox": {"AP": 1.0}}, max_iter=5
    )
    trainer.run([None] * 5)
    assert when == [1, 3, 4]
    assert trainer.storage.latest()["bbox/AP"] == (1.0, 4)
    assert hook.checkpointer.saved == ["model_final"]  # before the last evaluation


def test_a_failing_evaluation_costs_no_training(tmp_path):
    hook, trainer = evaluated(tmp_path, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.run([None] * 4)
    assert hook.checkpointer.saved == ["model_0000001"]


def test_an_unknown_metric_is_named(tmp_path, caplog):
    _, trainer = evaluated(tmp_path, lambda: {"bbox": {"AP": 1.0, "AP50": 2.0}}, metric="bbox/AP5")
    trainer.run([None] * 2)
    assert (
        "TEST.BEST_METRIC must be one of the results ['bbox/AP', 'bbox/AP50'], got 'bbox/AP5'"
        in (caplog.text)
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: BestCheckpointer(None, "a", mode="best"), "got 'best'"),
        (lambda: BestCheckpointer(None, "a", num_best=0), "BEST_TO_KEEP must be at least 1, got 0"),
        (lambda: EarlyStopping(1, "a", patience=0), "PATIENCE must be at least 1, got 0"),
        (lambda: EarlyStopping(1, "a", 1, min_delta=-1), "got -1"),
        (lambda: EarlyStopping(0, "a", 1), "TEST.EVAL_PERIOD above 0, got 0"),
        (lambda: EarlyStopping(1, "", 1), "needs a TEST.BEST_METRIC that is not empty, got ''"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
