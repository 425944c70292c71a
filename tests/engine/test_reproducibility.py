from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage

from libra_d2.engine import load_cfg
from libra_d2.engine.reproducibility import (
    LossNormalizer,
    ScalarHistory,
    SeededSteps,
    run_seed,
    set_determinism,
)


def draws(seed, iterations):
    hook = SeededSteps(seed)
    hook.trainer = SimpleNamespace()
    drawn = []
    for hook.trainer.iter in iterations:
        hook.before_step()
        drawn.append(torch.rand(1).item())
    return drawn


def test_the_draw_of_a_step_does_not_depend_on_the_steps_before():
    assert draws(3, range(10))[6:] == draws(3, range(6, 10))
    assert len(set(draws(3, range(10)) + draws(4, range(10)))) == 20
    first, second = SeededSteps(3), SeededSteps(4)
    second.load_state_dict(first.state_dict())
    assert second.seed == 3


def test_seed_of_the_config_or_drawn():
    assert run_seed(load_cfg("", ["SEED", "7"])) == 7
    assert run_seed(load_cfg()) >= 0


def history(values, first, resumed=None):
    """Return the scalars of a run from an iteration on, and the state of the hook at its end."""
    hook = ScalarHistory()
    if resumed:
        hook.load_state_dict(resumed)
    with EventStorage(first) as storage:
        hook.trainer = SimpleNamespace(storage=storage, iter=first, max_iter=100)
        hook.before_train()
        for iteration, value in enumerate(values[first:], first):
            storage.iter = hook.trainer.iter = iteration
            storage.put_scalar("loss", value)
            storage.put_scalar("loss", value / 2)  # of a second part of the step
            if iteration % 30 == 0:
                storage.put_scalar("AP", value, smoothing_hint=False)
        return storage.latest_with_smoothing_hint(20), hook.state_dict()


@pytest.mark.parametrize("cut", [1, 10, 35, 49])
def test_smoothed_scalars_are_those_of_an_undisturbed_run(cut):
    values = torch.rand(50).tolist()
    _, state = history(values[:cut], 0)
    assert history(values, cut, state)[0] == history(values, 0)[0]
    assert len(state["scalars"]["loss"][1]) <= 40


def test_scalars_do_not_pile_up():
    hook = ScalarHistory()
    with EventStorage() as storage:
        hook.trainer = SimpleNamespace(storage=storage, iter=0)
        for hook.trainer.iter in range(3500):
            storage.iter = hook.trainer.iter
            storage.put_scalar("loss", float(storage.iter))
            storage.put_scalar("time", float(storage.iter))
            if storage.iter == 700:
                storage.put_scalar("rare", 1.0)
            hook.after_step()
        for name, least in (("loss", 100), ("time", 1000)):  # "time": for the ETA
            kept = storage.history(name).values()
            assert least <= len(kept) < least + 100 and kept[-1] == (3499.0, 3499)
        assert storage.history("rare").values() == [(1.0, 700)]
        assert storage.latest_with_smoothing_hint(20)["loss"] == (3489.5, 3499)


def test_a_checkpoint_outside_of_training_has_no_scalars():
    hook = ScalarHistory()
    hook.trainer = SimpleNamespace(iter=0)
    assert hook.state_dict() == {}


def test_normalizer_of_retinanet_is_kept():
    model = torch.nn.Module()
    hook = LossNormalizer(model)
    assert hook.state_dict() == {}
    model.loss_normalizer = 42.5
    other = LossNormalizer(torch.nn.Module())
    other.load_state_dict(hook.state_dict())
    assert other.model.loss_normalizer == 42.5


def test_deterministic_algorithms_by_key(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    try:
        set_determinism(load_cfg())
        assert not torch.are_deterministic_algorithms_enabled()
        set_determinism(load_cfg("", ["SOLVER.DETERMINISTIC", "True"]))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
