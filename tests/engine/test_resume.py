"""
A run that is killed at any moment and restarted with --resume ends like a run that was not.

LIBRA_D2_TEST_KILLS sets how many times it is killed.
"""

import os
import random
import re
import time

from libra_d2.data.datasets.shapes import write_shapes

from ..support.programs import program_server
from ..support.train_net_runs import on_data
from .resumed_runs import OPTIONS, assert_same_checkpoints, metrics_of

NUM_KILLS = int(os.environ.get("LIBRA_D2_TEST_KILLS", "2"))


def start(folder, *args):
    log = folder.with_suffix(f".{time.monotonic_ns()}.log")
    args = ("train_net.py", *args, "OUTPUT_DIR", folder)
    return program_server().start(*args, out=log, err=log)


def first_iteration(program):
    program.wait_for("Starting training from iteration")
    start = re.search(r"Starting training from iteration (\d+)\n", program.log.read_text())
    assert start, f"it did not start: {program.tail()}"
    return int(start.group(1))


def test_killed_run_ends_as_the_one_that_was_not(tmp_path):
    write_shapes(tmp_path, "train", 12, seed=1)
    write_shapes(tmp_path, "val", 3, seed=2)
    files = [(tmp_path / f"{split}.json", tmp_path / split) for split in ("train", "val")]
    args = [*on_data(*files), *OPTIONS]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start(whole, *args)
    assert undisturbed.wait() == 0, undisturbed.tail()

    rng = random.Random(NUM_KILLS)
    started_from = []
    for kills in range(NUM_KILLS + 1):
        process = start(killed, "--resume", *args)
        started_from.append(first_iteration(process))
        if kills == NUM_KILLS:
            break
        while not (killed / "last_checkpoint").exists() and not process.ended():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2.5))  # steps, evaluations, and the writing of checkpoints
        process.kill()
        process.wait()
    assert process.wait() == 0, process.tail()
    print("started from", started_from)
    assert any(0 < i < 24 for i in started_from), "it was never killed in between"

    names = {p.name for p in whole.glob("*.pth")}
    assert {"model_final.pth", "model_best.pth", "model_0000023.pth", "model_0000020.pth"} < names
    assert_same_checkpoints(killed, whole)
    assert metrics_of(killed) == metrics_of(whole)
