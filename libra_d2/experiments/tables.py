"""Tables of the results of an experiment as text, for all formats in which they are written."""

from dataclasses import dataclass
from typing import Iterable, List, Optional, Sequence

from .results import METRICS, Effect, ExperimentResult, RunResult, Spread, VariantResult

NOTHING = "-"  # a value that is not defined


@dataclass(frozen=True)
class TextTable:
    """
    Attributes:
        num_names: the number of columns at the left that hold names. They are aligned to the left,
            and the others, which hold numbers, to the right.
    """

    title: str
    header: List[str]
    rows: List[List[str]]
    num_names: int = 1


def number(value: Optional[float], form: str = ".2f") -> str:
    return NOTHING if value is None else format(value, form)


def spread_text(spread: Optional[Spread], digits: int = 2, plus_minus: str = " \u00b1 ") -> str:
    """Return mean and standard deviation, such as "38.20 ± 0.41"; the mean alone for one run."""
    if spread is None or spread.mean is None:
        return NOTHING
    parts = [spread.mean] if spread.std is None else [spread.mean, spread.std]
    return plus_minus.join(f"{v:.{digits}f}" for v in parts)


def interval_text(effect: Effect, digits: int = 2) -> str:
    if effect.low is None or effect.high is None:
        return NOTHING
    return f"[{effect.low:+.{digits}f}, {effect.high:+.{digits}f}]"


def difference_text(effect: Optional[Effect], digits: int = 2) -> str:
    """Return a difference with its interval, such as "+1.20 [+0.31, +2.09]"."""
    if effect is None or effect.difference is None:
        return NOTHING
    difference = f"{effect.difference:+.{digits}f}"
    interval = interval_text(effect, digits)
    return difference if interval == NOTHING else f"{difference} {interval}"


def p_text(value: Optional[float]) -> str:
    return "<0.001" if value is not None and value < 0.001 else number(value, ".3f")


def shown_metrics(result: ExperimentResult) -> List[str]:
    """Return the metrics that are defined for a variant; without small objects, APs is not."""
    spreads = [variant.metrics for variant in result.variants]
    return [m for m in METRICS if any(m in s and s[m].mean is not None for s in spreads)]


def class_names(result: ExperimentResult) -> List[str]:
    """Return the names of all classes, in the order in which they first occur."""
    found = (variant.classes for variant in result.variants)
    return list(dict.fromkeys(name for classes in found for name in classes))


def finished_runs(result: ExperimentResult, variant: str = "") -> List[RunResult]:
    """Return the runs that have a result, of a variant or of all."""
    return [r for r in result.runs if not r.error and variant in ("", r.variant)]


def runs_without_result(result: ExperimentResult) -> List[RunResult]:
    return [run for run in result.runs if run.error]


def run_title(run: RunResult) -> str:
    """Return the seed and the fold of a run."""
    return f"seed {run.seed}, fold {run.fold}" if run.fold else f"seed {run.seed}"


def data_lines(result: ExperimentResult) -> List[str]:
    """Say what the variants were trained and evaluated on, and how often."""
    seeds = ", ".join(map(str, result.seeds))
    folds = f"; folds: {result.folds}" if result.folds else ""
    lines = [f"Training data: {result.train}"]
    lines += [f"Test data: {result.test}"] if result.test else []
    return [*lines, f"Seeds: {seeds}{folds}", f"Baseline: {result.baseline}"]


def variants_table(result: ExperimentResult) -> TextTable:
    metrics = shown_metrics(result)
    rows = []
    for variant in result.variants:
        spreads = [spread_text(variant.metrics.get(m)) for m in metrics]
        rows.append([variant.name, *spreads, _num_runs(result, variant)])
    title = "Variants: mean and standard deviation over the runs"
    return TextTable(title, ["Variant", *metrics, "Runs"], rows)


def _num_runs(result: ExperimentResult, variant: VariantResult) -> str:
    finished = len(finished_runs(result, variant.name))
    planned = sum(run.variant == variant.name for run in result.runs)
    return str(planned) if finished == planned else f"{finished} of {planned}"


def runs_table(result: ExperimentResult, metric: str = "AP") -> TextTable:
    """Return a metric of every run, with a row for each variant and a column for each seed."""
    titles = list(dict.fromkeys(map(run_title, result.runs)))
    values = {(r.variant, run_title(r)): r for r in result.runs}
    rows = []
    for variant in result.variants:
        cells = [_run_text(values.get((variant.name, title)), metric) for title in titles]
        rows.append([variant.name, *cells])
    header = ["Variant", *(title.capitalize() for title in titles)]
    return TextTable(f"{metric} of every run", header, rows)


def _run_text(run: Optional[RunResult], metric: str) -> str:
    if run is not None and run.error:
        return "no result"
    return number(run.metrics.get(metric) if run else None)


def differences_table(result: ExperimentResult, metrics: Sequence[str] = ()) -> TextTable:
    """Return the differences from the baseline in some metrics; by default, in all."""
    wanted = metrics or shown_metrics(result)
    rows = [
        [comparison.variant, effect.metric, *effect_cells(effect), str(comparison.num_pairs)]
        for comparison in result.comparisons
        for effect in comparison.metrics
        if effect.metric in wanted
    ]
    header = [
        *("Variant", "Metric", "Difference", "95 % interval", "Probability better"),
        *("p", "p adjusted", "Seeds needed", "Pairs"),
    ]
    return TextTable(f"Differences from {result.baseline}, in points", header, rows, num_names=2)


def effect_cells(effect: Effect) -> List[str]:
    """Return the columns of :func:`differences_table` from "Difference" to "Seeds needed"."""
    return [
        number(effect.difference, "+.2f"),
        interval_text(effect),
        number(effect.superiority),
        p_text(effect.p_value),
        p_text(effect.p_adjusted),
        number(effect.seeds_needed, "d"),
    ]


def classes_table(result: ExperimentResult, names: Optional[Iterable[str]] = None) -> TextTable:
    """Return the AP of classes, of the baseline and as differences from it; by default, of all."""
    baseline = next((v.classes for v in result.variants if v.name == result.baseline), {})
    effects = [{e.metric: e for e in c.classes} for c in result.comparisons]
    rows = []
    for name in class_names(result) if names is None else names:
        differences = [difference_text(of_variant.get(name)) for of_variant in effects]
        rows.append([name, spread_text(baseline.get(name)), *differences])
    header = ["Class", result.baseline, *(c.variant for c in result.comparisons)]
    return TextTable(f"AP of each class, and differences from {result.baseline}", header, rows)


def costs_table(result: ExperimentResult) -> TextTable:
    """Return a table without rows if the costs of no variant were measured."""
    rows = []
    for variant in result.variants:
        if variant.cost:
            cost = variant.cost
            row = [
                number(cost.parameters / 1e6),
                number(cost.gflops, ".1f"),
                number(_milliseconds(cost.step_seconds), ".1f"),
                number(_milliseconds(cost.inference_seconds), ".1f"),
                number(cost.peak_memory_mb, ".0f"),
            ]
            rows.append([variant.name, *row])
    header = [
        *("Variant", "Parameters, M", "GFLOPs", "Training step, ms", "Inference, ms"),
        "Peak memory, MB",
    ]
    return TextTable("Costs", header, rows)


def _milliseconds(seconds: Optional[float]) -> Optional[float]:
    return None if seconds is None else 1000 * seconds


def imbalances_table(result: ExperimentResult) -> TextTable:
    rows = [
        [i.name, i.level, i.measured, i.component or NOTHING, i.expectation, i.outcome or NOTHING]
        for i in result.imbalances
    ]
    header = ["Imbalance", "Level", "Measured", "Component", "Expectation", "Outcome"]
    return TextTable("Imbalances", header, rows, num_names=len(header))


def failures_table(result: ExperimentResult) -> TextTable:
    rows = [[r.variant, run_title(r), r.folder, r.error] for r in runs_without_result(result)]
    header = ["Variant", "Run", "Folder", "Reason"]
    return TextTable("Runs without a result", header, rows, num_names=len(header))
