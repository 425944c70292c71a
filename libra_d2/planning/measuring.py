"""
Measure the time and memory of training steps in a separate process.

The process, `python -m libra_d2.planning.measuring CONFIG RESULT`, trains a few steps with a saved
config and writes their costs to a JSON file.
"""

import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from ..data.datasets.setup import with_descriptions
from ..errors import UserError
from ..utils.memory import resident_memory
from .schedule import Costs, numbers_of_parts

STEPS = 12
_WARM_STEPS = 3
_TEST_IMAGES = 8
_TIMEOUT = 1800  # seconds
_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|MemoryError", re.IGNORECASE)


class OutOfMemory(UserError):
    """A measuring process needs more memory than is available."""


def measure(cfg: CfgNode, processes: int = 1) -> Costs:
    """
    Train a few steps in another process, and return their costs.

    The weights are random, because weights hardly change the cost of a step. If the memory does
    not suffice, a step is split into more parts.

    Args:
        processes: number of processes that share a batch. The steps use the part of one of them.

    Raises:
        UserError: the process failed, or even one image at a time needs too much memory.
    """
    images = max(cfg.SOLVER.IMS_PER_BATCH // processes, 1)
    # A batch that the plan has reduced may not be a multiple of the base config's parts.
    least = math.gcd(images, cfg.SOLVER.ACCUMULATION_STEPS)
    for parts in numbers_of_parts(images, least):
        try:
            return _measured(cfg, images, parts)
        except OutOfMemory:
            continue
    raise UserError(
        "training steps could not be measured: one image at a time needs more memory than is "
        "available. Reduce INPUT.MIN_SIZE_TRAIN, or choose a smaller model"
    )


def _measured(cfg: CfgNode, images: int, parts: int) -> Costs:
    with tempfile.TemporaryDirectory(prefix="libra_d2-plan-") as folder:
        saved = with_descriptions(cfg)
        saved.MODEL.WEIGHTS, saved.OUTPUT_DIR, saved.OUTPUT_BRIEF = "", f"{folder}/run", ""
        saved.SOLVER.EPOCHS, saved.SOLVER.MAX_ITER, saved.SOLVER.STEPS = 0.0, STEPS, ()
        saved.SOLVER.IMS_PER_BATCH, saved.SOLVER.ACCUMULATION_STEPS = images, parts
        saved.SOLVER.WARMUP_ITERS = 0
        saved.SOLVER.NON_FINITE_SKIPS = STEPS
        saved.SOLVER.CHECKPOINT_PERIOD = 10 * STEPS
        saved.TEST.EVAL_PERIOD = 0
        saved.TEST.BEST_METRIC = ""
        saved.TEST.EARLY_STOPPING_PATIENCE = 0
        saved.MLFLOW.ENABLED = False
        saved.DATASETS.CHECK = False
        return Costs(**measured_by("libra_d2.planning.measuring", saved))


def measured_by(module: str, cfg: CfgNode, *arguments: str) -> Dict[str, Any]:
    """
    Run `python -m MODULE CONFIG RESULT ARGUMENTS` with a saved config, and return what it writes to
    the JSON file RESULT. A process of its own has a peak memory of its own, and if it is killed for
    lack of memory, this one goes on.

    Raises:
        OutOfMemory: the process needs more memory than is available.
        UserError: the process failed for another reason.
    """
    with tempfile.TemporaryDirectory(prefix="libra_d2-measuring-") as folder:
        config, result = os.path.join(folder, "config.yaml"), os.path.join(folder, "result.json")
        Path(config).write_text(cfg.dump(), encoding="utf-8")
        program = [sys.executable, "-m", module, config, result, *arguments]
        try:
            process = subprocess.run(program, capture_output=True, text=True, timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise UserError(
                "training steps could not be measured: they take more than "
                f"{_TIMEOUT // 60} minutes"
            ) from None
        if process.returncode or not os.path.exists(result):
            lines = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
            killed = process.returncode == -signal.SIGKILL
            reason = "the process was killed, probably for lack of memory" if killed else lines[-1]
            kind = OutOfMemory if killed or _OUT_OF_MEMORY.search(process.stderr) else UserError
            raise kind(f"training steps could not be measured: {reason}")
        return json.loads(Path(result).read_text(encoding="utf-8"))


def available_memory(device: str) -> int:
    """Return the free memory of the GPU or, for "cpu", of the machine, in bytes."""
    if device != "cpu":
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _main(config: str, result: str) -> None:
    start = time.monotonic()
    available = available_memory(_device(config))
    from ..engine import LibraTrainer, default_argument_parser, setup

    args = default_argument_parser().parse_args(["--config-file", config, "--trust"])
    cfg = setup(args)
    trainer = LibraTrainer(cfg)
    times = _StepTimes()
    trainer.register_hooks([times])
    _heaviest_step(trainer, cfg)
    started = time.monotonic() - start
    trainer.train()
    costs = Costs(
        step_seconds=statistics.median(times.seconds[_WARM_STEPS:]),
        image_seconds=_inference_seconds(trainer, cfg),
        start_seconds=started,
        peak_bytes=_peak_memory(cfg.MODEL.DEVICE),
        available_bytes=available,
        images=cfg.SOLVER.IMS_PER_BATCH,
        parts=cfg.SOLVER.ACCUMULATION_STEPS,
    )
    Path(result).write_text(json.dumps(costs._asdict()), encoding="utf-8")


def _device(config: str) -> str:
    from ..config import configured_device

    device = configured_device(config)
    return device if torch.cuda.is_available() else "cpu"


class _StepTimes(HookBase):
    """Measures the wall-clock time of each step, including the time to load its data."""

    def __init__(self) -> None:
        self.seconds: List[float] = []

    def before_step(self) -> None:
        self._start = time.perf_counter()

    def after_step(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._start)


def _heaviest_step(trainer: Any, cfg: CfgNode) -> None:
    """Compute losses and gradients for the images with the most objects, which need most memory."""
    from ..data import LibraDatasetMapper

    dicts = [d for name in cfg.DATASETS.TRAIN for d in DatasetCatalog.get(name)]
    size = -(-cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.ACCUMULATION_STEPS)
    most = sorted(dicts, key=lambda d: -len(d.get("annotations", ())))[:size]
    mapper = LibraDatasetMapper(cfg, is_train=True)
    mapper.copy_objects_from(dicts, dicts)
    batch = [mapper(d) for d in (most * size)[:size]]
    with EventStorage():
        losses = trainer.model(batch)
    sum(losses.values()).backward()
    trainer.optimizer.zero_grad()


def _inference_seconds(trainer: Any, cfg: CfgNode) -> float:
    """Return the time to load an image and run inference on it, or 0 if there is no test set."""
    if not cfg.DATASETS.TEST:
        return 0.0
    trainer.model.eval()
    ends = []
    with torch.no_grad():
        for batch in trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]):
            trainer.model(batch)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())
            if len(ends) > _TEST_IMAGES:
                break
    # The first image waits for the loader to start.
    return (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0


def _peak_memory(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_reserved()
    peak = resident_memory(peak=True)
    if peak is not None:
        return peak
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    _main(*sys.argv[1:])
