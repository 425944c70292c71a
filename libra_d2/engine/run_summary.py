"""Lines that a training run logs: its schedule, its results, and commands to run next."""

import logging
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Dict, List, Tuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase

from ..data.checks.datasets import settings_that_do_not_fit
from ..data.epochs import images_seen
from ..utils.metrics_file import read_metrics
from .solver import schedule_advice

logger = logging.getLogger(__name__)

_AP = re.compile(r"(^|/)(bbox|segm)/AP$")
_PICTURES = ("predictions.png", "loss_curve.png", "balance.png")


class RunSummary(HookBase):
    """Logs the schedule at the start and the results at the end. It must be the last hook."""

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg

    def before_train(self) -> None:
        cfg, trainer = self.cfg, self.trainer
        loader = getattr(getattr(trainer, "_trainer", None), "data_loader", None)
        num_images = images_seen(cfg, len(getattr(loader, "dataset", ())))
        for line in schedule_lines(cfg, trainer.start_iter, trainer.max_iter, num_images):
            logger.info(line)
        found = (
            "config.yaml (all settings)",
            "model.txt",
            "weights.txt",
            "environment.txt",
            "data_check.json",
            "log.txt (all details)",
        )
        there = [f for f in found if Path(cfg.OUTPUT_DIR, f.partition(" ")[0]).exists()]
        logger.info(f"Files in {cfg.OUTPUT_DIR}: {', '.join(there)}")
        warn_of_settings(cfg)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # otherwise it failed or was interrupted
            for line in result_lines(self.cfg):
                logger.info(line)


def warn_of_settings(cfg: CfgNode) -> None:
    """
    Log one block about the settings that fit neither the data nor the length of the run, and about
    a test set that is missing.
    """
    of_data = settings_that_do_not_fit(cfg)
    lines = [finding.line() for finding in of_data]
    if any(finding.split == "train" for finding in of_data):
        lines.append(
            "`libra-d2 plan`, or --plan at the start, sets what the training set needs, with a "
            "reason for each key"
        )
    lines += schedule_advice(cfg)
    if not cfg.DATASETS.TEST:
        lines.append(
            "DATASETS.TEST names no data of yours, so nothing is evaluated. `libra-d2 split` "
            'divides a data set into parts; set DATASETS.TEST "coco:val.json,images"'
        )
    if not lines:
        return
    level = logging.WARNING if of_data or not cfg.DATASETS.TEST else logging.INFO
    logger.log(level, "\n  ".join(["Settings that may not fit this run:", *lines]))


def schedule_lines(cfg: CfgNode, start: int, end: int, num_images: int) -> List[str]:
    """
    Describe the schedule of a run.

    Args:
        start: number of iterations that are done already.
        end: number of iterations at the end of training.
        num_images: number of images of an epoch; 0 if it is not known.
    """
    solver, test = cfg.SOLVER, cfg.TEST
    batch = solver.IMS_PER_BATCH

    def in_epochs(iterations: int) -> str:
        return f"{iterations * batch / num_images:.1f}"

    def counted(iterations: int) -> str:
        same = f" ({in_epochs(iterations)} epochs)" if num_images else ""
        return f"{iterations} iterations{same}"

    epochs = f" ({in_epochs(end)} epochs of {num_images})" if num_images else ""
    first = f", from iteration {start + 1}" if start else ""
    steps = ""
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and solver.STEPS:
        at = ", ".join(str(s) for s in solver.STEPS)
        same = f" (epochs {', '.join(map(in_epochs, solver.STEPS))})" if num_images else ""
        steps = f", multiplied by {solver.GAMMA:g} after iterations {at}{same}"
    elif solver.LR_SCHEDULER_NAME != "WarmupMultiStepLR":
        steps = f" ({solver.LR_SCHEDULER_NAME})"
    warmup = f" after a warm-up of {counted(solver.WARMUP_ITERS)}" if solver.WARMUP_ITERS else ""
    sets = ", ".join(cfg.DATASETS.TEST)
    every = f"every {counted(test.EVAL_PERIOD)} and " if 0 < test.EVAL_PERIOD < end else ""
    evaluation = f"Evaluation on {sets} {every}at the end" if sets else "No evaluation"
    period = solver.CHECKPOINT_PERIOD
    every = f"every {counted(period)} and " if 0 < period < end else ""
    return [
        f"Schedule: {end} iterations of {batch} images{epochs}{first}; {solver.OPTIMIZER}, "
        f"learning rate {solver.BASE_LR:g}{warmup}{steps}",
        f"{evaluation}; checkpoints {every}at the end",
    ]


def result_lines(cfg: CfgNode) -> List[str]:
    """Report the last and the best AP, the files of the run, and commands to run next."""
    folder = Path(cfg.OUTPUT_DIR)
    ret = []
    for name, values in _average_precisions(folder / "metrics.json").items():
        (last, _), (best, at) = values[-1], max(values, key=lambda v: (v[0], -v[1]))
        few = f"{name} {last:.2f}"
        if len(values) > 1:
            few += f" at the end; best {best:.2f} after iteration {at + 1}"
        ret.append(few)
    checkpoints = ["model_final.pth", "model_best.pth"]
    ret.append(f"Checkpoints: {_existing(folder, checkpoints)}")
    pictures = _existing(folder, _PICTURES)
    if pictures:
        ret.append(f"Pictures: {pictures}")
    commands = "\n".join(f"    {command}" for command in next_commands(cfg))
    return [*ret, f"Next, for example:\n{commands}"]


def next_commands(cfg: CfgNode) -> List[str]:
    """Return commands that can be copied into a shell, even if the environment is not activated."""
    run, program = shlex.quote(cfg.OUTPUT_DIR), program_name()
    ret = []
    if cfg.DATASETS.TEST:
        ret += [f"{program} analyze --model {run}", f"{program} evaluate --model {run} --reuse"]
    images = _image_folder(cfg)
    if images:
        found = shlex.quote(os.path.join(cfg.OUTPUT_DIR, "found"))
        ret.append(
            f"{program} infer {shlex.quote(images)} --model {run} --output {found}.json "
            f"--draw {found}"
        )
    return ret


def program_name() -> str:
    """Return the name of the program, or its path if the environment is not activated."""
    program = "libra-d2"
    beside = os.path.join(os.path.dirname(sys.executable), program)
    if shutil.which(program) is None and os.path.isfile(beside):
        return shlex.quote(beside)
    return program


def _image_folder(cfg: CfgNode) -> str:
    """Return a folder with images to try the detector on; "" if there is none."""
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        folder = MetadataCatalog.get(name).get("image_root", "")
        if folder and os.path.isdir(folder):
            return folder
    return ""


def _existing(folder: Path, names) -> str:
    return ", ".join(str(folder / name) for name in names if (folder / name).exists())


def _average_precisions(path: Path) -> Dict[str, List[Tuple[float, int]]]:
    """Return the APs in `metrics.json`: name -> [(AP, iteration), ...] in the order of training."""
    ret: Dict[str, List[Tuple[float, int]]] = {}
    for record in read_metrics(str(path)) if path.is_file() else ():
        for name, value in record.items():
            if _AP.search(name) and value == value:
                ret.setdefault(name, []).append((value, record["iteration"]))
    return ret
