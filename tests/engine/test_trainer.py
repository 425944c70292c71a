"""LibraTrainer in this process, with two images."""

import argparse
import warnings

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.modeling import build_model

from libra_d2.engine import LibraTrainer, setup
from libra_d2.engine.train_loop import LibraTrainLoop
from libra_d2.errors import UserError

from ..support.coco_files import write_dataset
from ..support.train_net_runs import SMALL, on_data


@pytest.fixture
def config(tmp_path):
    options = on_data(write_dataset(tmp_path / "data"))

    def load(*opts):
        opts = [*options[2:], *SMALL, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", tmp_path / "out", *opts]
        args = argparse.Namespace(
            config_file=options[1], eval_only=False, opts=[str(o) for o in opts]
        )
        return setup(args)

    return load


def trained(model):
    return {k: p.detach().clone() for k, p in model.named_parameters() if p.requires_grad}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Recorder(HookBase):
    calls = 0

    def after_backward(self):
        self.calls += 1
        self.gradients = [p.grad for p in self.trainer.model.parameters() if p.requires_grad]


def test_averages_are_evaluated_and_saved_and_raw_weights_go_on(config, tmp_path, monkeypatch):
    evaluated = []
    monkeypatch.setattr(
        LibraTrainer, "test", classmethod(lambda cls, cfg, model: evaluated.append(trained(model)))
    )
    cfg = config("SOLVER.EMA_DECAY", "0.999", "SOLVER.MAX_ITER", 3, "SOLVER.STEPS", "(2,)")
    trainer = LibraTrainer(cfg)
    trainer.resume_or_load(False)
    trainer.train()
    raw = trained(trainer.model)
    assert len(evaluated) == 1 and not equal(evaluated[0], raw)

    # MODEL.WEIGHTS of plain Detectron2 gives what was evaluated.
    final = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    plain = build_model(cfg)
    plain.load_state_dict(final["model"])
    assert equal(trained(plain), evaluated[0])

    resumed = LibraTrainer(cfg)
    resumed.resume_or_load(True)
    assert resumed.start_iter == 3
    assert equal(trained(resumed.model), raw)
    with resumed.ema.averaged():
        assert equal(trained(resumed.model), evaluated[0])


def test_the_config_reaches_the_loop(config):
    opts = (
        "SOLVER.ACCUMULATION_STEPS 2 SOLVER.AMP.ENABLED True SOLVER.AMP.DTYPE bfloat16 "
        "SOLVER.NON_FINITE_SKIPS 4 TEST.BEST_METRIC bbox/AP "
        "SOLVER.MAX_ITER 1 SOLVER.STEPS ()"
    ).split()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*GradScaler")  # of upstream's loop
        trainer = LibraTrainer(config(*opts))
    loop = trainer._trainer
    assert isinstance(loop, LibraTrainLoop)
    assert (loop.accumulation_steps, loop.amp_dtype) == (2, torch.bfloat16)
    assert loop.guard.max_skips == 4
    assert loop.grad_scaler is None

    recorder = Recorder()
    trainer.register_hooks([recorder])
    trainer._hooks = [recorder]  # no evaluation
    trainer.train()
    assert recorder.calls == 1  # upstream's DefaultTrainer does not call it
    assert all(g is not None and torch.isfinite(g).all() for g in recorder.gradients)


@pytest.mark.parametrize(
    "opts,named",
    [
        ("SOLVER.NON_FINITE_SKIPS -1", "NON_FINITE_SKIPS must be at least 0"),
        (
            "SOLVER.EMA_DECAY 1.5",
            "EMA_DECAY must be at least 0 and below 1, got 1.5",
        ),
    ],
)
def test_bad_settings_are_refused_before_training(config, opts, named):
    with pytest.raises(UserError, match=named):
        LibraTrainer(config(*opts.split()))
