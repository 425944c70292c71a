"""Plots of which the template draws a row for each variant or class."""

from dataclasses import dataclass
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ..results import Effect, ExperimentResult, RunResult
from ..tables import difference_text, finished_runs, run_title, runs_without_result, spread_text
from .scales import Tick, scale_of


class ForestRow(NamedTuple):
    name: str
    text: str  # the difference and its interval
    kind: str  # "higher", "lower" or "unclear"; a class of experiment.css
    at: Optional[float]  # percent, as all places
    low: Optional[float]
    high: Optional[float]


@dataclass(frozen=True)
class Forest:
    rows: List[ForestRow]
    ticks: List[Tick]
    zero: float


class Dot(NamedTuple):
    at: float
    top: float  # percent of the height of the row; the same for the same seed and fold
    title: str


class DotRow(NamedTuple):
    name: str
    text: str  # mean and standard deviation
    is_baseline: bool
    dots: List[Dot]
    mean: Optional[float]


@dataclass(frozen=True)
class Dots:
    rows: List[DotRow]
    ticks: List[Tick]
    baseline: Optional[float]  # its mean


def kind_of(effect: Optional[Effect]) -> str:
    """Return "higher" or "lower" if the interval of an effect excludes 0, otherwise "unclear"."""
    if effect is None or effect.low is None or effect.high is None:
        return "unclear"
    return "higher" if effect.low > 0 else "lower" if effect.high < 0 else "unclear"


def forest(named: Iterable[Tuple[str, Effect]]) -> Forest:
    """Return a plot of differences with their intervals. Its axis contains 0."""
    effects = list(named)
    ends = [v for _, e in effects for v in (e.difference, e.low, e.high) if v is not None]
    scale = scale_of([0.0, *ends])

    def place(value: Optional[float]) -> Optional[float]:
        return None if value is None else scale.at(value)

    rows = [
        ForestRow(
            name,
            difference_text(effect),
            kind_of(effect),
            *map(place, (effect.difference, effect.low, effect.high)),
        )
        for name, effect in effects
    ]
    return Forest(rows, scale.ticks(signed=True), scale.at(0.0))


def dots(result: ExperimentResult, metric: str) -> Dots:
    """Return a plot of all values of a metric, a dot for each run."""
    titles = list(dict.fromkeys(map(run_title, result.runs)))
    known = [(r, v) for r in finished_runs(result) if (v := r.metrics.get(metric)) is not None]
    scale = scale_of(value for _, value in known)
    rows, baseline = [], None
    for variant in result.variants:
        own = [(run, value) for run, value in known if run.variant == variant.name]
        spread = variant.metrics.get(metric)
        mean = None if spread is None or spread.mean is None else scale.at(spread.mean)
        is_baseline = variant.name == result.baseline
        baseline = mean if is_baseline else baseline
        marks = [
            Dot(scale.at(value), _top(run, titles), f"{run_title(run)}: {value:.2f}")
            for run, value in own
        ]
        text = spread_text(spread)
        num_without = sum(run.variant == variant.name for run in runs_without_result(result))
        if num_without:
            text += f", {num_without} without a result"
        rows.append(DotRow(variant.name, text, is_baseline, marks, mean))
    return Dots(rows, scale.ticks(), baseline)


def _top(run: RunResult, titles: Sequence[str]) -> float:
    """Spread the runs over the height, so that equal values do not hide each other."""
    if len(titles) < 2:
        return 50.0
    return round(25 + 50 * titles.index(run_title(run)) / (len(titles) - 1), 1)
