"""What ran: `run.json` in OUTPUT_DIR."""

import datetime
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from .. import version
from ..errors import UserError
from ..files import replacing
from ..json_files import read_json
from ..package_versions import package_versions

logger = logging.getLogger(__name__)


def write_run_record(cfg: CfgNode, resume: bool) -> None:
    """
    Write `OUTPUT_DIR/run.json`: a list with one entry for each start of the run.

    Each has `command`, `git` (see :func:`git_state`), `versions`, `device`, `world_size` and
    `start_time`.

    Args:
        resume: whether the entry is added to those that are there.
    """
    path = os.path.join(cfg.OUTPUT_DIR, "run.json")
    entries = _read(path) if resume and os.path.isfile(path) else []
    entries.append(
        {
            "command": command_line(),
            "git": git_state(),
            "versions": versions(),
            "device": _device(cfg.MODEL.DEVICE),
            "world_size": comm.get_world_size(),
            "start_time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
    )
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as f:
        json.dump(entries, f, indent=2)


def _read(path: str) -> list:
    try:
        entries = read_json(path, max_bytes=64 << 20)
    except UserError:
        entries = None
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        return entries
    logger.warning(f"{path} is not the record of a run; it is written anew")
    return []


def command_line() -> str:
    return shlex.join([sys.executable, *sys.argv])


def git_state(file: str = version.__file__) -> Optional[Dict[str, Any]]:
    """
    Args:
        file: of the code. By default one of this package.

    Returns:
        `commit` and `dirty`, whether files that git tracks differ from it; None if git does not
        track the file (the package is installed, for example) or is missing.
    """

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(file).parent), *args],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,  # a slow network drive is no reason to wait
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
