"""
An experiment whose processes are killed ends like one that was left alone.

LIBRA_D2_TEST_MOMENTS sets the number of moments.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from libra_d2.engine import run_lock
from libra_d2.experiments.results import Cost
from libra_d2.experiments.saved_costs import COSTS
from libra_d2.utils.dataclass_json import json_fields

from ..engine.resumed_runs import TIMES
from ..support.project import ROOT
from .test_runner import Experiment

NUM_MOMENTS = int(os.environ.get("LIBRA_D2_TEST_MOMENTS", "1"))


def results(folder):
    """Weights and metrics of all runs of an experiment, without measured times."""
    found = {}
    for path in sorted(folder.glob("runs/*/seed?")):
        weights = torch.load(path / "model_final.pth", weights_only=True)["model"]
        lines = (path / "metrics.json").read_text().splitlines()
        records = [{k: v for k, v in json.loads(x).items() if k not in TIMES} for x in lines]
        found[f"{path.parent.name} {path.name}"] = weights, json.dumps(records, sort_keys=True)
    return found


def start(experiment):
    command = [sys.executable, "-m", "libra_d2.cli.main", *experiment.options(seeds="2")]
    with open(log_of(experiment), "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def log_of(experiment):
    return experiment.folder.with_suffix(".log")


def training_process(experiment, runner):
    """Wait until a run is training, and return its process id; None if the runner ends first."""
    while runner.poll() is None:
        for path in experiment.folder.glob("runs/*/seed?/run.lock"):
            with contextlib.suppress(OSError, ValueError):
                owner = json.loads(path.read_text())
                if run_lock.holder(str(path.parent)):
                    return owner["pid"]
        time.sleep(0.05)
    return None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    """An experiment that nobody kills, and its process. It runs beside the first one that is."""
    experiment = new_experiment(tmp_path_factory.mktemp("whole"), data)
    process = start(experiment)
    yield experiment, process
    process.terminate()
    process.wait()


def new_experiment(folder, data):
    experiment = Experiment(folder, data)
    # The costs are not measured, which would take longer than the runs.
    experiment.folder.mkdir()
    cost = json_fields(Cost(1, None, None, None, None))
    content = {"variants": {"baseline": cost, "all": cost}}
    (experiment.folder / COSTS).write_text(json.dumps(content))
    return experiment


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(NUM_MOMENTS))
def test_goes_on_after_kills_as_if_nothing_had_happened(tmp_path, data, undisturbed, moment):
    """
    SIGKILL of the runner while a run trains, which goes on without it, and SIGKILL of a run, each
    at a random moment; then the same command.
    """
    rng = random.Random(moment)
    whole, process = undisturbed
    killed = new_experiment(tmp_path, data)
    waits = [rng.uniform(0, 2), rng.uniform(0, 4)]
    runner = start(killed)
    assert training_process(killed, runner), log_of(killed).read_text()
    time.sleep(waits[0])
    runner.kill()
    runner.wait()

    runner = start(killed)
    trained = training_process(killed, runner)
    time.sleep(waits[1])
    with contextlib.suppress(ProcessLookupError):
        os.kill(trained, signal.SIGKILL)
    runner.wait()

    last = start(killed)
    assert last.wait() == 0, log_of(killed).read_text()
    assert process.wait() == 0, log_of(whole).read_text()
    print(f"killed {waits[0]:.2f} and {waits[1]:.2f} s after a run had begun to train")
    expected, found = results(whole.folder), results(killed.folder)
    assert list(found) == list(expected) and len(found) == 4
    for name, (weights, metrics) in expected.items():
        assert found[name][1] == metrics, name
        assert all(torch.equal(found[name][0][k], v) for k, v in weights.items()), name
