"""The runs of an experiment, with links to their own reports."""

import glob
import os
from typing import List, NamedTuple, Optional
from urllib.parse import quote

from ..results import ExperimentResult
from ..tables import number, run_title

# Files of a run that a browser shows, in the order of the links. With several test sets, each has
# its own folder in the analysis.
_FILES = (
    ("report", "analysis/report.html"),
    ("report", "analysis/*/report.html"),
    ("analysis", "analysis/analysis.json"),
    ("losses", "loss_curve.png"),
    ("predictions", "predictions.png"),
)


class Link(NamedTuple):
    title: str
    url: str  # relative to the folder of the experiment


class RunRow(NamedTuple):
    variant: str
    title: str
    folder: str
    ap: str
    seconds: Optional[float]
    time: str
    links: List[Link]
    error: str


def run_rows(folder: str, result: ExperimentResult) -> List[RunRow]:
    return [
        RunRow(
            run.variant,
            run_title(run),
            run.folder,
            number(run.metrics.get("AP")),
            run.seconds,
            duration(run.seconds),
            links(folder, run.folder),
            run.error,
        )
        for run in result.runs
    ]


def links(folder: str, run: str) -> List[Link]:
    """Return links to the files of a run that exist."""
    root = os.path.join(folder, run)
    found = []
    for title, pattern in _FILES:
        for path in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            name = os.path.relpath(path, root)
            # "./" keeps a folder that begins with // from being the name of a server.
            found.append(Link(title, "./" + quote(f"{run}/{name}")))
    if os.path.isfile(root + ".log"):  # what the run has printed
        found.append(Link("log", "./" + quote(f"{run}.log")))
    return found


def duration(seconds: Optional[float]) -> str:
    """
    Format a duration.

    Example:
        >>> [duration(s) for s in (9.4, 612.5, 7260, None)]
        ['9 s', '10 min', '2 h 1 min', '-']
    """
    if seconds is None:
        return number(None)
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
