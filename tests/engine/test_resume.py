"""
A run that is killed, at any moment, and started again with --resume ends as the run that was not.

LIBRA_D2_TEST_KILLS sets how many times it is killed.
"""

import json
import os
import random
import subprocess
import sys
import time

import torch

from libra_d2.data.shapes import write_shapes

from ..conftest import ROOT
from .test_train_net import on_data

NUM_KILLS = int(os.environ.get("LIBRA_D2_TEST_KILLS", "2"))
OPTIONS = (
    "INPUT.MIN_SIZE_TRAIN (64,96) INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 1 SEED 5 "
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 100 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 "
    "SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 24 SOLVER.STEPS (16,) SOLVER.WARMUP_ITERS 8 "
    "SOLVER.CHECKPOINT_PERIOD 3 SOLVER.CHECKPOINTS_TO_KEEP 2 SOLVER.DETERMINISTIC True "
    "INPUT.EXPAND_PROB 0.5 TEST.EVAL_PERIOD 6 TEST.BEST_METRIC validation/total_loss "
    "TEST.BEST_MODE min TEST.BEST_TO_KEEP 2 TEST.VALIDATION_LOSS True BALANCE.PERIOD 5 "
    "SOLVER.EMA.ENABLED True SOLVER.ACCUMULATION_STEPS 2"
).split()
TIMES = ("time", "data_time", "rank_data_time", "eta_seconds")


def start(folder, *args):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train_net.py"), *map(str, args), "OUTPUT_DIR", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def first_iteration(process):
    for line in process.stdout:
        if "Starting training from iteration" in line:
            return int(line.split()[-1])
    raise AssertionError("it did not start")


def metrics_of(folder):
    """Records by iteration, without what is a matter of time."""
    records = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        record = {k: v for k, v in json.loads(line).items() if k not in TIMES}
        iteration = record.pop("iteration")
        assert iteration not in records or not record, f"iteration {iteration} is there twice"
        if record:
            records[iteration] = record
    return json.dumps(records, sort_keys=True)  # text, in which NaN equals NaN


def test_killed_run_ends_as_the_one_that_was_not(tmp_path):
    write_shapes(tmp_path, "train", 12, seed=1)
    write_shapes(tmp_path, "val", 3, seed=2)
    files = [(tmp_path / f"{split}.json", tmp_path / split) for split in ("train", "val")]
    args = [*on_data(*files), *OPTIONS]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start(whole, *args)
    log = undisturbed.communicate()[0]
    assert undisturbed.returncode == 0, log[-2000:]

    rng = random.Random(NUM_KILLS)
    started_from = []
    for kills in range(NUM_KILLS + 1):
        process = start(killed, "--resume", *args)
        started_from.append(first_iteration(process))
        if kills == NUM_KILLS:
            break
        while not (killed / "last_checkpoint").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2.5))  # steps, evaluations, and the writing of checkpoints
        process.kill()  # SIGKILL
        process.communicate()
    log = process.communicate()[0]
    assert process.returncode == 0, log[-2000:]
    print("started from", started_from)
    assert any(0 < i < 24 for i in started_from), "it was never killed in between"

    names = {p.name for p in whole.glob("*.pth")}
    assert {p.name for p in killed.glob("*.pth*")} == names
    assert {"model_final.pth", "model_best.pth", "model_0000023.pth", "model_0000020.pth"} < names
    for name in names:
        ours, theirs = (torch.load(f / name, weights_only=True) for f in (killed, whole))
        assert ours["iteration"] == theirs["iteration"], name
        for key, value in theirs["model"].items():
            assert torch.equal(ours["model"][key], value), f"{name}: {key}"
        states = [x["trainer"]["_trainer"]["optimizer"]["state"] for x in (ours, theirs)]
        for i, state in states[1].items():
            assert torch.equal(states[0][i]["momentum_buffer"], state["momentum_buffer"]), name
        ours, theirs = (x["trainer"]["hooks"] for x in (ours, theirs))
        for key, value in theirs["EMA"]["weights"].items():  # the raw ones
            assert torch.equal(ours["EMA"]["weights"][key], value), f"{name}: {key}"
        assert ours["BestCheckpointer"] == theirs["BestCheckpointer"]
        assert ours["BalanceMonitor"] == theirs["BalanceMonitor"]
    assert metrics_of(killed) == metrics_of(whole)
