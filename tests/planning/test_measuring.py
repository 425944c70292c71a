"""Measuring with a fake process: real steps are measured in test_command.py."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from libra_d2.errors import UserError
from libra_d2.planning import measuring

from .made_up import config

CUDA = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture
def process(monkeypatch):
    """Return a function that lets steps with less than some number of parts fail."""

    def set_up(parts_needed, stderr=CUDA, returncode=1):
        tried = []

        def run(program, **kwargs):
            solver = yaml.safe_load(Path(program[3]).read_text())["SOLVER"]
            images, parts = solver["IMS_PER_BATCH"], solver["ACCUMULATION_STEPS"]
            tried.append((images, parts))
            if parts < parts_needed:
                return subprocess.CompletedProcess(program, returncode, "", stderr)
            costs = measuring.Costs(0.5, 0.1, 10, 7, 8, images, parts)
            Path(program[4]).write_text(json.dumps(costs._asdict()))
            return subprocess.CompletedProcess(program, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        return tried

    return set_up


@pytest.mark.parametrize(
    "stderr,returncode",
    [(CUDA, 1), ("", -9), ("RuntimeError: DefaultCPUAllocator: can't allocate memory", 1)],
)
def test_steps_that_do_not_fit_are_split_into_more_parts(process, stderr, returncode):
    tried = process(3, stderr, returncode)
    costs = measuring.measure(config("SOLVER.IMS_PER_BATCH", "12"), processes=2)
    assert tried == [(6, 1), (6, 2), (6, 3)]
    assert (costs.images, costs.parts) == (6, 3)


def test_the_first_number_of_parts_is_that_of_the_config(process):
    tried = process(1)
    cfg = config("SOLVER.IMS_PER_BATCH", "8", "SOLVER.ACCUMULATION_STEPS", "4")
    measuring.measure(cfg)
    cfg.SOLVER.IMS_PER_BATCH = 2  # after the plan of the batch
    measuring.measure(cfg)
    assert tried == [(8, 4), (2, 2)]


def test_an_image_that_does_not_fit_is_a_mistake_of_the_user(process):
    tried = process(5)
    with pytest.raises(UserError, match="one image at a time needs more memory"):
        measuring.measure(config("SOLVER.IMS_PER_BATCH", "4"))
    assert tried == [(4, 1), (4, 2), (4, 4)]


def test_other_failures_are_not_tried_again(process):
    tried = process(5, "Traceback\nOSError: cannot read a.jpg")
    with pytest.raises(UserError, match="could not be measured: OSError: cannot read"):
        measuring.measure(config())
    assert len(tried) == 1


def test_steps_that_take_too_long_are_a_mistake_of_the_user(monkeypatch):
    def run(program, **kwargs):
        raise subprocess.TimeoutExpired(program, kwargs["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="they take more than 30 minutes"):
        measuring.measure(config())
