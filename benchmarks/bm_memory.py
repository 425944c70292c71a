"""Growth of the resident memory of a training run and of its loader's workers."""

import multiprocessing
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import parser, title
from detectron2.engine import HookBase, default_argument_parser

from libra_d2.data.datasets.shapes import write_shapes
from libra_d2.engine import LibraTrainer, setup
from libra_d2.visualization.loss_curve import save_loss_curve  # noqa: F401 (loads matplotlib before the start)

OPTIONS = (
    "INPUT.MIN_SIZE_TRAIN (64,) DATALOADER.NUM_WORKERS 2 SOLVER.IMS_PER_BATCH 2 SEED 1 "
    "SOLVER.CHECKPOINT_PERIOD 500 SOLVER.CHECKPOINTS_TO_KEEP 2 SOLVER.STEPS (1500,) "
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 100 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16"
).split()


class Memory(HookBase):
    def __init__(self, every: int):
        self.every, self.rows = every, []

    def after_step(self):
        if (self.trainer.iter + 1) % self.every == 0:
            workers = sum(resident(p.pid) for p in multiprocessing.active_children())
            self.rows.append((self.trainer.iter + 1, resident(os.getpid()), workers))


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB. Linux only."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1e6


def trend(steps: np.ndarray, memory: np.ndarray):
    """Fit a line, and return its slope and the standard error for autocorrelated noise."""
    line, covariance = np.polyfit(steps, memory, 1, cov=True)
    noise = memory - np.polyval(line, steps)
    likeness = np.clip(np.corrcoef(noise[1:], noise[:-1])[0, 1], 0, 0.99) if noise.std() else 0
    return line[0], np.sqrt(covariance[0, 0] * (1 + likeness) / (1 - likeness))


def main():
    p = parser(__doc__)
    p.add_argument("--steps", type=int, default=2000)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_shapes(Path(folder), "train", 100, seed=1)
        opts = ["DATASETS.TRAIN", f"coco:{folder}/train.json,{folder}/train"]
        opts += ["OUTPUT_DIR", f"{folder}/out", "DATASETS.TEST", "()"]
        opts += [*OPTIONS, "MODEL.DEVICE", args.device, "SOLVER.MAX_ITER", str(args.steps)]
        config = ["--config-file", "configs/libra_mobilenet_v2.yaml"]
        cfg = setup(default_argument_parser().parse_args([*config, *opts]))
        trainer = LibraTrainer(cfg)
        memory = Memory(every=25)
        trainer.register_hooks([memory])
        trainer.resume_or_load(resume=False)
        trainer.train()
    title(f"Resident memory over {args.steps} steps of two small images", args.device)
    rows = np.array(memory.rows)
    rows = rows[rows[:, 0] > args.steps / 4]  # without the growth of the first steps
    for name, column in (("the process", 1), ("its workers", 2)):
        slope, error = trend(rows[:, 0], rows[:, column])
        print(
            f"{name}: {rows[0, column]:.1f} MB, then {rows[-1, column]:.1f} MB; slope "
            f"{1000 * slope:.2f} +- {1000 * error:.2f} MB in 1000 steps"
        )
    if args.device.startswith("cuda"):
        print(f"device: at most {torch.cuda.max_memory_allocated() / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
