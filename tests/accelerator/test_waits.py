"""
Every part of this package on a simulated accelerator: no tensors of the CPU and of the device are
mixed, and the host waits for the device no more often than with Detectron2 itself.

PyTorch cannot forget a device, so all of it runs in one process of its own, and each test looks at
a part of the result.
"""

import json
import subprocess
import sys

import pytest
from torch.utils import backend_registration

from ..support.project import ROOT
from .detectors import FAMILY
from .simulation import CHECKS
from .workloads import WORK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
        reason="this release of PyTorch has no devices that are written in Python",
    ),
]

# Soft-NMS is not Detectron2's, and reads two sizes and how many boxes are left. The NMS that it
# replaces in RetinaNet waits twice; two-stage detectors still call it, to select candidates.
SOFT_NMS = {"Faster R-CNN": 2, "Cascade R-CNN": 2, "RetinaNet": 1}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    file = tmp_path_factory.mktemp("waits") / "waits.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.accelerator.waits", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", [*CHECKS, *WORK])
def test_it_runs_without_mixing_devices(name, results):
    assert "error" not in results[name], results[name]["error"]


@pytest.mark.parametrize("name", [name for name in WORK if "Soft-NMS" not in name])
def test_no_more_waits_than_detectron2(name, results):
    ours, theirs = results[name]["ours"], results[name]["theirs"]
    if theirs is not None:
        own = [wait for wait in ours if wait not in theirs]
        assert 0 < len(ours) <= len(theirs), f"waits that Detectron2 does not have: {own}"


@pytest.mark.parametrize("name", [name for name in WORK if name.startswith("inference with")])
def test_soft_nms_waits_a_fixed_number_of_times(name, results):
    result = results[name]
    more = len(result["ours"]) - len(result["theirs"])
    assert more <= result["images"] * SOFT_NMS[name.rpartition(", ")[2]]


@pytest.mark.parametrize("member", FAMILY)
def test_the_loop_and_its_hooks_wait_once(member, results):
    result = results[f"training step, {member}"]
    assert result["facts"]["hooks and loop"] == 1
    assert result["facts"]["measured"], "the balance was not measured"
    assert result["facts"]["a step that measures"] > len(result["ours"])


def test_soft_nms_does_not_wait_for_each_box(results):
    result = results["Soft-NMS of 600 boxes"]
    assert len(result["ours"]) <= 2 + result["facts"]["steps"] // 64


@pytest.mark.parametrize("name", ["sampling of 2000 proposals", "Soft-NMS of 600 boxes"])
def test_the_device_does_not_change_the_result(name, results):
    assert results[name]["facts"]["same as on the CPU"]


def test_something_was_detected(results):
    for name, result in results.items():
        assert all(result.get("facts", {}).get("detections", [1])), name


def test_the_predictor_leaves_its_results_on_the_device(results):
    facts = results["Predictor"]["facts"]
    assert facts["devices"] == ["simulated:0"] and facts["names"]


@pytest.mark.parametrize("name", [name for name in WORK if name.startswith("validation loss")])
def test_the_validation_loss_is_read_once_per_batch(name, results):
    facts, images = results[name]["facts"], results[name]["images"]
    assert facts["reads"] == images  # batches of one image
    assert {"total_loss", "loss_cls", "loss_box_reg"} <= set(facts["losses"])


def test_a_step_with_a_non_finite_loss_is_skipped(results):
    facts = results["non-finite loss"]["facts"]
    assert facts["unchanged"] and facts["changed"]
    assert facts["files"] == ["iter_0000000.json"]
