"""
Checks of the simulation itself: what raises on CUDA raises there, and what waits is recorded.

They run in the process of the simulation, so they are no test functions of pytest.
"""

from pathlib import Path
from threading import Thread
from typing import Callable, Dict, List

import torch

from ..support.simulated_accelerator import NAME, recorded_waits

DEVICE = f"{NAME}:0"


def tensors_have_a_device(_: Path) -> None:
    created = [
        torch.zeros(2, device=DEVICE),
        torch.arange(3, device=DEVICE),
        torch.tensor([1.0, 2.0], device=DEVICE),
        torch.rand(2).to(DEVICE),
        torch.nn.Linear(2, 2).to(DEVICE).weight,
        torch.rand(2, device=DEVICE) * 2,
    ]
    for x in created:
        assert str(x.device) == DEVICE and x.cpu().device.type == "cpu", x
    assert [tuple(x.shape) for x in created[:3]] == [(2,), (3,), (2,)]


def mixing_devices_raises(_: Path) -> None:
    here, there = torch.ones(3), torch.ones(3, device=DEVICE)
    idxs = torch.tensor([0, 2])
    mistakes = {
        "add": lambda: here + there,
        "where": lambda: torch.where(here > 0, there, there),
        "cat": lambda: torch.cat([here, there]),
        "stack of scalars": lambda: torch.stack([here[0], there[0]]),
        "CPU tensor, indices of the device": lambda: here[idxs.to(DEVICE)],
        "mask": lambda: there.masked_fill(here > 0, 0),
        "assigned values": lambda: there.__setitem__(idxs.to(DEVICE), here[:2]),
        "layer": lambda: torch.nn.Linear(3, 1)(there),
    }
    for name, mistake in mistakes.items():
        try:
            mistake()
        except RuntimeError as e:
            assert "same device" in str(e), (name, e)
        else:
            raise AssertionError(f"{name} did not raise")
    try:
        there.numpy()
    except TypeError:
        pass
    else:
        raise AssertionError("numpy() did not raise")
    assert (there * torch.tensor(2.0)).tolist() == [2, 2, 2], "a CPU scalar is allowed"
    assert there[idxs].tolist() == [1, 1], "CPU indices are allowed"


def waits_are_recorded(_: Path) -> None:
    x = torch.tensor([3.0, 0.0, 1.0], device=DEVICE)
    ones = torch.ones(3, dtype=torch.int64, device=DEVICE)
    mask, idxs = x > 0, ones.clone()
    expected: Dict[str, tuple] = {
        "item": (1, lambda: x[0].item()),
        "bool": (1, lambda: bool(mask.any())),
        "tolist": (1, lambda: x.tolist()),
        "cpu": (1, lambda: x.cpu()),
        "to the device": (1, lambda: torch.zeros(3).to(DEVICE)),
        "tensor of a list": (1, lambda: torch.tensor([1.0], device=DEVICE)),
        "nonzero": (1, lambda: mask.nonzero()),
        "mask": (1, lambda: x[mask]),
        "values to a mask": (1, lambda: x.clone().__setitem__(mask, x[:2])),
        "CPU indices": (1, lambda: x[torch.tensor([0])]),
        "list of indices": (1, lambda: x[[0, 1]]),
        "a number to an index": (1, lambda: x.clone().__setitem__(0, 1.0)),
        "unique": (1, lambda: x.unique()),
        "bincount": (2, lambda: ones.bincount()),
        "repeat_interleave": (1, lambda: x.repeat_interleave(ones)),
        # No waits: their sizes do not depend on values.
        "arithmetic": (0, lambda: (x * 2 + 1).sort()),
        "indices": (0, lambda: x[idxs]),
        "a number to a mask": (0, lambda: x.clone().__setitem__(mask, 0.0)),
        "fill": (0, lambda: x.clone()[0].fill_(1.0)),
        "factories": (0, lambda: x.new_zeros(3) + torch.arange(3, device=DEVICE)),
        "known size": (0, lambda: x.repeat_interleave(2)),
        "the CPU alone": (0, lambda: torch.ones(2).nonzero().tolist()),
    }
    for name, (count, action) in expected.items():
        with recorded_waits() as waits:
            action()
        assert len(waits) == count, (name, count, waits)
        assert all("tests/accelerator/simulation.py" in w.line for w in waits), (name, waits)


def threads_and_backward_passes_are_recorded(_: Path) -> None:
    x = torch.ones(3, device=DEVICE, requires_grad=True)
    with recorded_waits() as waits:
        thread = Thread(target=lambda: x.detach().tolist())
        thread.start()
        thread.join()
    assert len(waits) == 1
    y = x[x > 0].sum()
    with recorded_waits() as waits:
        y.backward()
    assert [w.line for w in waits] == ["backward pass"] and x.grad.tolist() == [1, 1, 1]


def results_are_those_of_the_cpu(_: Path) -> None:
    def steps(device: str) -> List[float]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 2).to(device)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.rand(5, 4, device=device)).square().mean().backward()
            optimizer.step()
        return layer.weight.detach().cpu().flatten().tolist()

    assert steps(DEVICE) == steps("cpu")


CHECKS: Dict[str, Callable[[Path], None]] = {
    f"the simulation: {check.__name__.replace('_', ' ')}": check
    for check in (
        tensors_have_a_device,
        mixing_devices_raises,
        waits_are_recorded,
        threads_and_backward_passes_are_recorded,
        results_are_those_of_the_cpu,
    )
}
