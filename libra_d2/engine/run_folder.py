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

# What a start writes before its first step. A folder of nothing else holds no run, if its
# metrics.json is empty.
_OF_START = (
    *("config.yaml", "run.json", "run.lock", "data_check.json", "datasets"),
    *("model.txt", "weights.txt", "environment.txt"),
    *("log.txt*", "events.out.tfevents.*", "metrics.json", "*.libra-partial*"),
)
# What a run leaves, which is moved away with --overwrite; other files stay.
_OF_RUN = (
    *_OF_START,
    *("last_checkpoint", "model_[0-9]*.pth", "model_final.pth", "model_best*.pth"),
    *("model_stopped.pth", "metrics_old.json", "run_old*.json", "mlflow_run_id.txt"),
    *("inference", "inference_TTA", "analysis", "non_finite"),
    *("loss_curve.png", "predictions.png", "balance.png"),
)
_configs: Dict[str, bytes] = {}  # config.yaml of runs that are resumed, as it was before


def enter(output_dir: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """
    Make the folder of a training run, and take it for this process.

    All processes of a run must call this; the main one does it, and the others wait.

    Args:
        resume: the run in the folder goes on.
        overwrite: files of another run are first moved to a folder `old_run_<time>` in it.

    Raises:
        UserError: the folder cannot be written to, holds another run, is another process's, or
            `resume` finds no checkpoint in it.
    """
    if comm.is_main_process():
        folder = Path(output_dir)
        with writing(output_dir):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:  # as /proc says it
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
    """Raise an error about another run in the folder, unless it may be moved away."""
    if not overwrite:
        raise UserError(
            f"OUTPUT_DIR {output_dir} holds another run: go on with it by --resume, "
            "set another OUTPUT_DIR, or give --overwrite, which first moves that run's "
            "files to a folder in it"
        )


def has_trained(folder: Path) -> bool:
    """Whether a run has made a step in the folder, or left a checkpoint there."""
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
                f"--resume, but there is no checkpoint in OUTPUT_DIR {folder}, which is not empty: "
                "name the run's folder, or leave --resume out to start a run"
            )
        logger.info(f"--resume: no run was begun in {folder} yet, it starts")
    config = folder / "config.yaml"
    if config.is_file():
        _configs[str(folder)] = config.read_bytes()


def restore_config(output_dir: str) -> None:
    """Put `config.yaml` back as it was before a resume that was refused."""
    before = _configs.pop(str(Path(output_dir)), None)
    if before is not None and comm.is_main_process():
        Path(output_dir, "config.yaml").write_bytes(before)


def move_away(folder: Path) -> Path:
    """
    Move the files of a run, and no others, to a new folder in theirs.

    Returns:
        The new folder.
    """
    backup = _new(str(folder), "old_run_{}")
    moved = 0
    for path in sorted(folder.iterdir()):
        if any(path.match(pattern) for pattern in _OF_RUN) and path.name != run_lock.NAME:
            with writing(path):
                os.rename(path, os.path.join(backup, path.name))
            moved += 1
    logger.info(f"--overwrite: {moved} files and folders of the run before are now in {backup}")
    return Path(backup)


def run_folder(output_dir: str, brief: str, resume: bool) -> str:
    """
    Make the folder `<output_dir>/<yymmdd_HHMMSS>_<brief>`, with the time in UTC, or find the newest
    one of that brief.

    All processes of a run must call this, and get the same name: that of the main process.

    Args:
        output_dir: where the folders of the runs are.
        brief: letters, digits, and `.`, `_`, `-`, `+`, `=`.
        resume: whether an old folder is wanted. If there is none, a new one is made.

    Raises:
        UserError: the brief has other characters in it, or the folder cannot be made.
    """
    if not re.fullmatch(r"[\w.+=-]+", brief):
        raise UserError(
            f"OUTPUT_BRIEF {brief!r} becomes the name of a folder: letters, digits and . _ - + = "
            "only"
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
            except FileExistsError:  # another run began in this second
                time.sleep(0.2)
