"""The command that trains a run: what a user would type, with the settings of the experiment."""

import os
import sys
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import torch
from detectron2.config import CfgNode

from ..engine.run_folder import has_trained
from ..errors import UserError
from .design import Design, Run
from .folds import fold_data

PLAN = "plan.yaml"
FOLDS = "folds"
INITIAL_WEIGHTS = "init"
RUNS = "runs"


def config_file(design: Design) -> str:
    """Return the config that all variants change: the base, or what was planned from it."""
    return design.path(PLAN) if design.plan else design.base


def data_of(design: Design, fold: int) -> Tuple[str, str]:
    """Return the values of `DATASETS.TRAIN` and `DATASETS.TEST`. The folds have been made."""
    return fold_data(design.path(FOLDS), fold) if fold else (design.train, design.test)


def initial_weights(design: Design, seed: int) -> str:
    """Return the path of the weights with which the runs of a seed start."""
    return design.path(INITIAL_WEIGHTS, f"seed{seed}.pth")


def settings(design: Design, run: Run) -> List[str]:
    """Return KEY VALUE ... of a run, apart from its initial weights."""
    train, test = data_of(design, run.fold)
    return [
        *design.overrides_of(run.variant),
        *("DATASETS.TRAIN", train),
        *("DATASETS.TEST", test),
        *("SEED", str(run.seed)),
        *("OUTPUT_DIR", design.path(run.folder)),
    ]


def command(design: Design, run: Run, *, shares_weights: bool, trust: bool) -> List[str]:
    """
    Return the command that starts or continues a run.

    A run that was killed before its first checkpoint starts again; what it has left is moved to a
    subfolder.

    Args:
        shares_weights: whether the run starts with the weights that all runs of its seed share,
            rather than with its own `MODEL.WEIGHTS`.
        trust: see `--trust` of `libra-d2 train`.
    """
    words = [sys.executable, "-m", "libra_d2.cli.main", "train"]
    words += ["--config-file", config_file(design)]
    folder = Path(design.path(run.folder))
    if any(folder.glob("model_*.pth")):
        words.append("--resume")
    elif has_trained(folder):
        words.append("--overwrite")
    words += ["--trust"] if trust else []
    weights = initial_weights(design, run.seed)
    return [*words, *settings(design, run), *(["MODEL.WEIGHTS", weights] if shares_weights else [])]


def gpus(cfgs: Mapping[str, CfgNode], parallel: int) -> List[str]:
    """
    Return the GPUs for the runs, as values for `CUDA_VISIBLE_DEVICES`; none if they use the CPU.

    Args:
        cfgs: config of each variant.
        parallel: number of runs at the same time.

    Raises:
        UserError: there are fewer GPUs or cores than that.
    """
    if parallel < 1:
        raise UserError(f"--parallel must be at least 1, got {parallel}")
    visible: List[str] = []
    if any(cfg.MODEL.DEVICE.startswith("cuda") for cfg in cfgs.values()):
        count = torch.cuda.device_count()
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        visible = [gpu.strip() for gpu in listed if gpu.strip()][:count]
        visible = visible or [str(i) for i in range(count)]
    most, what = (len(visible), "GPUs") if visible else (num_cores(), "cores")
    if parallel > most:
        raise UserError(
            f"--parallel must be at most the number of {what} of this machine, {most}, got "
            f"{parallel}"
        )
    return visible


def environments(parallel: int, gpus: Sequence[str]) -> List[Dict[str, str]]:
    """
    Return the environment variables of each of the processes that run at the same time: one GPU of
    each, or its share of the cores. A single process gets all, as without this command.

    >>> environments(2, ["0", "3"])
    [{'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '3'}]

    Args:
        parallel: number of processes, at most that of the GPUs.
        gpus: values for `CUDA_VISIBLE_DEVICES`; empty to train on the CPU.
    """
    if parallel == 1:
        return [{}]
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:parallel]]
    if "OMP_NUM_THREADS" in os.environ:  # the user knows better
        return [{} for _ in range(parallel)]
    share = max(num_cores() // parallel, 1)
    return [{"OMP_NUM_THREADS": str(share)} for _ in range(parallel)]


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
