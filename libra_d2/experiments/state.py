"""How far the runs of an experiment are, as read from the files that they have written."""

import os
import re
from pathlib import Path
from typing import Optional

from ..engine import run_lock
from ..utils.messages import printable
from ..utils.metrics_file import read_metrics
from .design import Design, Run

_TAIL = 1 << 16  # bytes of the end of a log in which its last lines are
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_MAX_ERROR = 300  # characters


def is_finished(folder: str) -> bool:
    """
    Whether a run has been trained to its end and evaluated there. Training names `model_final.pth`
    as its last checkpoint only after the last evaluation.
    """
    try:
        last = Path(folder, "last_checkpoint").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return False
    is_final = last == "model_final.pth" and os.path.isfile(os.path.join(folder, last))
    return is_final and _last_value(folder, "bbox/AP") is not None


def iterations_done(folder: str) -> int:
    """Return the number of iterations that a run has written to `metrics.json`."""
    last = _last_value(folder, "iteration")
    return 0 if last is None else int(last) + 1


def last_ap(folder: str) -> Optional[float]:
    """Return the AP of the last evaluation; None if there was none."""
    return _last_value(folder, "bbox/AP")


def _last_value(folder: str, key: str) -> Optional[float]:
    try:
        records = read_metrics(os.path.join(folder, "metrics.json"))
    except OSError:
        return None
    return next((record[key] for record in reversed(records) if key in record), None)


def console_log(design: Design, run: Run) -> str:
    """Return the path of what the process of a run has printed. It is beside the run's folder."""
    return f"{design.path(run.folder)}.log"


def error_of(design: Design, run: Run) -> str:
    """Return "" if a run is finished, or else one line that says why it is not."""
    if is_finished(design.path(run.folder)):
        return ""
    process = run_lock.holder(design.path(run.folder))
    if process:
        return f"the run is not finished: it is trained by {process}"
    lines = _last_lines(console_log(design, run))
    return error_in(lines) if lines else "the run has not been started"


def last_error(log: str) -> str:
    """Return the last line of a log that names an error; its last line if none does."""
    return error_in(_last_lines(log))


def error_in(lines: list) -> str:
    """
    >>> error_in(["Traceback ...", "RuntimeError: too big", "", "  warnings.warn("])
    'RuntimeError: too big'
    """
    lines = [printable(_COLOR.sub("", line).strip()) for line in lines]
    lines = [line for line in lines if line]
    named = [line for line in lines if re.match(r"(\w+\.)*\w*([Ee]rror|Exception)\b", line)]
    line = (named or lines or ["it printed nothing"])[-1]
    return line if len(line) <= _MAX_ERROR else f"{line[: _MAX_ERROR - 3]}..."


def _last_lines(path: str) -> list:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL, 0))
            content = file.read()
    except OSError:
        return []
    return content.decode("utf-8", errors="replace").splitlines()
