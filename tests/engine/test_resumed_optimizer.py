"""Which settings of its optimizer a resumed run may change."""

import pytest
import torch
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import MultiStepParamScheduler

from libra_d2.engine.resumed_optimizer import (
    apply_group_settings,
    check_optimizer_fits,
    group_settings,
)
from libra_d2.errors import UserError


def made(lr=0.1, weight_decay=0.0, sizes=(2, 3), kind=torch.optim.SGD, **kwargs):
    params = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    kwargs = {"momentum": 0.9, **kwargs} if kind is torch.optim.SGD else kwargs
    optimizer = kind(params, lr=lr, weight_decay=weight_decay, **kwargs)
    multiplier = MultiStepParamScheduler([1, 0.1], milestones=[4], num_updates=10)
    return optimizer, LRMultiplier(optimizer, multiplier, max_iter=10)


def stepped(optimizer, scheduler, steps=2):
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
    return optimizer.state_dict(), scheduler.state_dict()


def resumed(state, **changes):
    optimizer, scheduler = made(**changes)
    settings = group_settings(optimizer)
    optimizer.load_state_dict(state[0])
    scheduler.load_state_dict(state[1])
    apply_group_settings(optimizer, scheduler, settings)
    return optimizer, scheduler


def test_unchanged_settings_change_nothing():
    state = stepped(*made(lr=0.3))
    optimizer, scheduler = resumed(state, lr=0.3)
    assert optimizer.state_dict()["param_groups"] == state[0]["param_groups"]
    assert scheduler.state_dict() == state[1]


def test_changed_settings_take_effect_and_momentum_stays():
    state = stepped(*made())
    optimizer, scheduler = resumed(state, lr=0.02, weight_decay=0.5, momentum=0.5)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.02, 0.5, 0.5)
    buffer = optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(buffer, state[0]["state"][0]["momentum_buffer"])
    stepped(optimizer, scheduler)
    assert group["lr"] == pytest.approx(0.002)  # the schedule goes on from the new rate


@pytest.mark.parametrize(
    "change, key, message",
    [
        ({"kind": torch.optim.AdamW}, "SOLVER.OPTIMIZER", "another optimizer: SOLVER.OPTIMIZER"),
        ({"sizes": (2,)}, "MODEL.BACKBONE.FREEZE_AT", "MODEL.BACKBONE.FREEZE_AT 2 -> 4 .2 -> 1"),
        ({"sizes": (2, 4)}, "MODEL.FPN.OUT_CHANNELS", "MODEL.FPN.OUT_CHANNELS"),
    ],
)
def test_what_cannot_change_is_refused_with_its_key(change, key, message):
    state = {"_trainer": {"optimizer": stepped(*made())[0]}}
    with pytest.raises(UserError, match=message):
        check_optimizer_fits(state, made(**change)[0], {key: "2 -> 4"})
