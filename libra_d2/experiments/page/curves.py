"""Curves of the runs of an experiment over the iterations, from their `metrics.json`."""

import math
import os
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import Dict, Iterable, List, Sequence, Tuple

from ...utils.metrics_file import read_metrics
from ..results import ExperimentResult, RunResult
from ..tables import run_title
from .scales import Scale, Tick, scale_of

MAX_RUNS = 300  # of which curves are shown
_MAX_POINTS = 200  # of a curve
_ALL_POINTS = 40_000  # of all curves of a chart, about
_MARGIN = 3.0  # percent above the highest and below the lowest value
_SIZE = 1000  # of the chart, in the units of its points

Points = List[Tuple[int, float]]  # iteration, counted from 1, and value


@dataclass(frozen=True)
class RunCurves:
    run: RunResult
    points: Dict[str, Points]  # by the names of CHARTS


@dataclass(frozen=True)
class Line:
    title: str
    variant: int  # index
    is_mean: bool  # of the runs of the variant
    points: str  # x,y ... from the upper left corner, 0 to 1000


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    lines: List[Line]
    x: Scale
    y: Scale
    x_ticks: List[Tick]
    y_ticks: List[Tick]


CHARTS = {  # name -> title and note
    "AP": ("Validation AP", ""),
    "total_loss": ("Training loss", "The start may lie above the chart."),
    "validation/total_loss": ("Validation loss", "The start may lie above the chart."),
}


def read_curves(folder: str, runs: Sequence[RunResult]) -> Tuple[List[RunCurves], List[str]]:
    """
    Read the curves of runs. Runs whose `metrics.json` cannot be read are skipped.

    Args:
        folder: the folder of the experiment, which contains the folders of the runs.

    Returns:
        The curves, and the folders of the runs that are skipped.
    """
    found, skipped = [], []
    for run in runs:
        try:
            records = read_metrics(os.path.join(folder, run.folder, "metrics.json"))
        except (OSError, ValueError):  # ValueError: a NUL in the path
            skipped.append(run.folder)
            continue
        points: Dict[str, Points] = defaultdict(list)
        for record in records:
            for name, value in record.items():
                # With several test sets, the first is shown.
                key = "AP" if name == "bbox/AP" or name.endswith("/bbox/AP") else name
                known = key in CHARTS and type(value) in (int, float) and math.isfinite(value)
                iteration = record["iteration"] + 1
                if known and (not points[key] or points[key][-1][0] < iteration):
                    points[key].append((iteration, float(value)))
        found.append(RunCurves(run, dict(points)))
    return found, skipped


def charts(result: ExperimentResult, found: Sequence[RunCurves]) -> List[Chart]:
    """Return the charts for which a run has at least two points."""
    names = [v.name for v in result.variants]
    ret = []
    for name in CHARTS:
        curves = [(c.run, c.points[name]) for c in found if c.points.get(name)]
        if any(len(points) > 1 for _, points in curves):
            ret.append(_chart(name, curves, names))
    return ret


def _chart(name: str, curves: List[Tuple[RunResult, Points]], variants: List[str]) -> Chart:
    is_loss = name != "AP"
    most = max(20, min(_MAX_POINTS, _ALL_POINTS // len(curves)))
    x = scale_of((p[0] for _, points in curves for p in points), margin=0)
    start = x.low + 0.1 * (x.high - x.low) * is_loss  # a high loss at the start hides the rest
    y = scale_of((v for _, points in curves for i, v in points if i >= start), margin=_MARGIN)
    lines = []
    for i, variant in enumerate(variants):
        own = [(run, points) for run, points in curves if run.variant == variant]
        for run, points in own:
            title = f"{variant}, {run_title(run)}" + (" (no result)" if run.error else "")
            lines.append(Line(title, i, False, _coordinates(_thinned(points, most, is_loss), x, y)))
        mean = mean_curve([points for run, points in own if not run.error])
        if mean:
            title = f"{variant}, mean"
            lines.append(Line(title, i, True, _coordinates(_thinned(mean, most, is_loss), x, y)))
    title, note = CHARTS[name]
    lines.sort(key=lambda line: line.is_mean)  # means are drawn on top
    return Chart(title, note, lines, x, y, x.ticks(4), y.ticks(6))


def mean_curve(curves: Sequence[Points]) -> Points:
    """Return the mean at the iterations that all curves have; [] for fewer than two curves."""
    if len(curves) < 2:
        return []
    by_iteration = [dict(points) for points in curves]
    shared = set(by_iteration[0]).intersection(*by_iteration[1:])
    return [(i, fmean(values[i] for values in by_iteration)) for i in sorted(shared)]


def _thinned(points: Points, most: int, is_noisy: bool) -> Points:
    """Return at most about `most` points: means over some iterations, or every few points."""
    size = math.ceil(len(points) / most)
    groups: Iterable[Points] = (points[i : i + size] for i in range(0, len(points), size))
    return [(g[-1][0], fmean(v for _, v in g) if is_noisy else g[-1][1]) for g in groups]


def _coordinates(points: Points, x: Scale, y: Scale) -> str:
    places = [f"{_unit(x, i)},{round(_SIZE - _unit(y, v), 1)}" for i, v in points]
    return " ".join(places if len(places) > 1 else places * 2)  # a line of no length is a dot


def _unit(scale: Scale, value: float) -> float:
    return round(scale.at(value) * _SIZE / 100, 1)
