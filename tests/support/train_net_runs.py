"""Runs of train_net.py in a process of their own."""

import subprocess
import sys

from .project import ROOT

SMALL = (
    "INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96 DATALOADER.NUM_WORKERS 0 "
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 100 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 "
    "SOLVER.STEPS (1,)"
).split()


def train_net(*args, cwd=ROOT):
    return subprocess.run(
        [sys.executable, str(ROOT / "train_net.py"), *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=1800,  # for machines that are slow or busy
    )


def on_data(train, test=None, config="configs/libra_mobilenet_v2.yaml"):
    test = test or train
    return [
        *(
            "--config-file",
            config,
            "DATASETS.TRAIN",
            f"coco:{train[0]},{train[1]}",
        ),
        *("DATASETS.TEST", f"coco:{test[0]},{test[1]}"),
    ]
