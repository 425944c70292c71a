import pytest
import torch

from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.errors import UserError


def optimizer(name):
    opts = ["SOLVER.OPTIMIZER", name, "SOLVER.WEIGHT_DECAY", "0.05", "SOLVER.BASE_LR", "0.001"]
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    return LibraTrainer.build_optimizer(load_cfg("configs/libra_r50.yaml", opts), model)


def test_optimisers_by_name():
    assert isinstance(optimizer("SGD"), torch.optim.SGD)
    adam = optimizer("AdamW")
    assert isinstance(adam, torch.optim.AdamW)
    assert {g["lr"] for g in adam.param_groups} == {0.001}
    assert {g["weight_decay"] for g in adam.param_groups} == {0.05, 0.0}  # none for the norm


def test_unknown_optimiser_is_named():
    with pytest.raises(UserError, match="OPTIMIZER 'Lion'"):
        optimizer("Lion")
