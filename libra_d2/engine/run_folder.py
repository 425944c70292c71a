"""The output folder of a run, which must not contain another run."""

import datetime
import errno
import json
import logging
import os
import re
import time
from pathlib import Path
from typing import Dict, List

from detectron2.utils import comm

from ..errors import UserError
from ..utils.system_errors import writing
from . import run_lock

logger = logging.getLogger(__name__)

# Files that are written before the first step of a run. If a folder has no others, and its
# metrics.json is empty, it holds no run.
_OF_START = (
    *("config.yaml", "run.json", "run.lock", "data_check.json", "datasets"),
    *("model.txt", "weights.txt", "environment.txt"),
    *("log.txt*", "events.out.tfevents.*", "metrics.json", "*.libra-partial*"),
)
# Files that a run writes. --overwrite moves them away and leaves all others where they are.
_OF_RUN = (
    *_OF_START,
    *("last_checkpoint", "model_[0-9]*.pth", "model_final.pth", "model_best*.pth"),
    *("model_stopped.pth", "metrics_old.json", "run_old*.json", "mlflow_run_id.txt"),
    *("inference", "inference_TTA", "analysis", "non_finite"),
    *("loss_curve.png", "predictions.png", "balance.png"),
)
_configs: Dict[str, bytes] = {}  # config.yaml of resumed runs, as it was before they were resumed


def enter(output_dir: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """
    Create the folder of a training run, and lock it for this run.

    All processes of a run must call this. The main process does the work, and the others wait.

    Args:
        resume: whether to continue the run in the folder.
        overwrite: whether to move files of another run to a subfolder `old_run_<time>` first.

    Raises:
        UserError: the folder cannot be written to, holds another run, is in use by another process,
            or has no checkpoint to resume from.
    """
    if comm.is_main_process():
        folder = Path(output_dir)
        with writing(output_dir):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:  # raised in /proc, where nobody can create a folder
                raise PermissionError(errno.EACCES, "", output_dir) from None
            if not os.access(output_dir, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "", output_dir)
        run_lock.acquire(output_dir)
        try:
            if resume and overwrite:
                raise UserError(
                    "--resume and --overwrite cannot be combined. Give --resume to continue the "
                    "run, or --overwrite to replace it"
                )
            if resume:
                _enter_again(folder)
            elif has_trained(folder):
                refuse_unless(overwrite, output_dir)
                move_away(folder)
        except BaseException:
            run_lock.release(output_dir)
            raise
    comm.synchronize()


def refuse_unless(overwrite: bool, output_dir: str) -> None:
    """Raise an error that the folder holds another run, unless that run may be moved away."""
    if not overwrite:
        raise UserError(
            f"OUTPUT_DIR {output_dir} holds another run. Continue it with --resume, set another "
            "OUTPUT_DIR, or give --overwrite, which first moves that run's files to a subfolder"
        )


def has_trained(folder: Path) -> bool:
    """Whether a run has written metrics of a step or a checkpoint into the folder."""
    return bool(_checkpoints(folder)) or _steps_were_made(folder)


def _checkpoints(folder: Path) -> List[Path]:
    found = [p for pattern in _OF_RUN if ".pth" in pattern for p in folder.glob(pattern)]
    return found + [p for p in [folder / "last_checkpoint"] if p.exists()]


def _steps_were_made(folder: Path) -> bool:
    try:
        if (folder / "metrics.json").stat().st_size:
            return True
    except OSError:
        pass
    try:
        entries = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    entries = entries if isinstance(entries, list) else []
    return any(isinstance(e, dict) and "first_iteration" in e for e in entries)


def _enter_again(folder: Path) -> None:
    if not _checkpoints(folder):
        others = [p for p in folder.iterdir() if not any(map(p.match, _OF_START))]
        if others or _steps_were_made(folder):
            raise UserError(
                f"--resume finds no checkpoint in OUTPUT_DIR {folder}, which is not empty. Set "
                "OUTPUT_DIR to the folder of the run, or omit --resume to start a new run"
            )
        logger.info(f"--resume: {folder} contains no run yet. Starting a new one")
    config = folder / "config.yaml"
    if config.is_file():
        _configs[str(folder)] = config.read_bytes()


def restore_config(output_dir: str) -> None:
    """Restore `config.yaml` after a resume was refused."""
    before = _configs.pop(str(Path(output_dir)), None)
    if before is not None and comm.is_main_process():
        Path(output_dir, "config.yaml").write_bytes(before)


def move_away(folder: Path) -> Path:
    """
    Move the files of a run, and no others, to a new subfolder.

    Returns:
        The subfolder.
    """
    backup = _new(str(folder), "old_run_{}")
    moved = 0
    for path in sorted(folder.iterdir()):
        if any(path.match(pattern) for pattern in _OF_RUN) and path.name != run_lock.NAME:
            with writing(path):
                os.rename(path, os.path.join(backup, path.name))
            moved += 1
    logger.info(f"--overwrite: moved {moved} files and folders of the previous run to {backup}")
    return Path(backup)


def run_folder(output_dir: str, brief: str, resume: bool) -> str:
    """
    Create the folder `<output_dir>/<yymmdd_HHMMSS>_<brief>`, with the time in UTC, or find the
    newest existing one.

    All processes of a run must call this. All get the path that the main process has chosen.

    Args:
        output_dir: the folder that contains the folders of runs.
        brief: a short description of the run: letters, digits, and `.`, `_`, `-`, `+`, `=`.
        resume: whether to return the newest folder with this brief. If there is none, a new one is
            created.

    Raises:
        UserError: the brief contains other characters, or the folder cannot be created.
    """
    if not re.fullmatch(r"[\w.+=-]+", brief):
        raise UserError(
            "OUTPUT_BRIEF is part of a folder name and must consist of letters, digits and "
            f". _ - + =, got {brief!r}"
        )
    folder = None
    if comm.is_main_process():
        folder = (_newest(output_dir, brief) if resume else None) or _new(
            output_dir, f"{{}}_{brief}"
        )
    return comm.all_gather(folder)[0]


def _newest(output_dir: str, brief: str):
    pattern = re.compile(r"\d{6}_\d{6}_" + re.escape(brief))
    names = os.listdir(output_dir) if os.path.isdir(output_dir) else []
    found = sorted(name for name in names if pattern.fullmatch(name))
    return os.path.join(output_dir, found[-1]) if found else None


def _new(output_dir: str, name: str) -> str:
    while True:
        now = datetime.datetime.now(datetime.timezone.utc)
        folder = os.path.join(output_dir, name.format(now.strftime("%y%m%d_%H%M%S")))
        with writing(output_dir):
            os.makedirs(output_dir, exist_ok=True)
            try:
                os.mkdir(folder)
                return folder
            except FileExistsError:  # another run started in the same second
                time.sleep(0.2)
