"""Runs of train_net.py in a process of their own."""

from .programs import run_python
from .project import ROOT

SMALL = (
    "INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96 DATALOADER.NUM_WORKERS 0 "
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 100 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 "
    "SOLVER.STEPS (1,)"
).split()


def train_net(*args, cwd=ROOT):
    return run_python(ROOT / "train_net.py", *args, cwd=cwd)


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
