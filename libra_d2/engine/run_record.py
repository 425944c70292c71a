"""The record of a run, `run.json` in OUTPUT_DIR: what was run, where and when."""

import datetime
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from .. import version
from ..errors import UserError
from ..utils.files import replacing
from ..utils.json_files import read_json
from ..utils.package_versions import package_versions
from ..utils.system_errors import writing

logger = logging.getLogger(__name__)


def write_run_record(cfg: CfgNode) -> None:
    """
    Add an entry to `OUTPUT_DIR/run.json`, which has one for each time that the run was started.

    An entry has the keys `command`, `git` (see :func:`git_state`), `versions`, `device`,
    `world_size` and `start_time`, and after the first step also `first_iteration`.
    """
    path = os.path.join(cfg.OUTPUT_DIR, "run.json")
    entries = _read(path)
    entries.append(
        {
            "command": command_line(),
            "git": git_state(),
            "versions": versions(),
            "device": _device(cfg.MODEL.DEVICE),
            "world_size": comm.get_world_size(),
            "start_time": datetime.datetime.now(datetime.timezone.utc).isoformat(
                timespec="seconds"
            ),
        }
    )
    _write(path, entries)


class FirstStep(HookBase):
    """Records in `run.json` the first iteration after this start of the run."""

    def __init__(self, output_dir: str):
        self.path = os.path.join(output_dir, "run.json")

    def after_step(self) -> None:
        if self.trainer.iter != self.trainer.start_iter or not os.path.isfile(self.path):
            return
        entries = _read(self.path)
        if entries and "first_iteration" not in entries[-1]:
            entries[-1]["first_iteration"] = self.trainer.iter
            try:
                _write(self.path, entries)
            except UserError as e:
                logger.warning(f"{e}. Training continues")


def _write(path: str, entries: List[Dict[str, Any]]) -> None:
    with writing(path), replacing(path) as partial, open(partial, "w", encoding="utf-8") as f:
        json.dump(entries, f, indent=2)


def _read(path: str) -> List[Dict[str, Any]]:
    if not os.path.lexists(path):
        return []
    try:
        entries = read_json(path, max_bytes=64 << 20)
    except UserError:
        entries = None
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        return entries
    kept = os.path.join(os.path.dirname(path), "run_old.json")
    with writing(path):
        os.replace(path, kept)
    logger.warning(
        f"{path} must be a list of JSON objects, but is not. It was renamed to {kept}, and a new "
        "record is started"
    )
    return []


def command_line() -> str:
    return shlex.join([sys.executable, *sys.argv])


def git_state(file: str = version.__file__) -> Optional[Dict[str, Any]]:
    """
    Return the state of the git checkout that contains a file.

    Args:
        file: a file of the code, by default one of this package.

    Returns:
        The `commit`, and `dirty`: whether tracked files differ from it. None if git is missing or
        does not track the file, for example because the package is installed.
    """

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(file).parent), *args],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,  # seconds; a slow network drive must not delay the run
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(file).name)
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> Dict[str, str]:
    return {**package_versions(), "python": platform.python_version()}


def _device(device: str) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if "cuda" in device else device
