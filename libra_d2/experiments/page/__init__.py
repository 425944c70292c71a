"""Write the results of an experiment as a single HTML file that needs no server and no network."""

import os
import re
from typing import Any, Dict, List, Sequence

from ...utils.messages import printable
from ...visualization.page_tables import NOTHING, Cell, Column, Table
from ...visualization.pages import (
    page_resource,
    page_scripts,
    page_template,
    save_page,
    script_policy,
)
from ..results import Comparison, Effect, ExperimentResult
from ..tables import NOTHING as DASH
from ..tables import (
    TextTable,
    class_names,
    classes_table,
    costs_table,
    data_lines,
    differences_table,
    finished_runs,
    runs_table,
    runs_without_result,
    shown_metrics,
    variants_table,
)
from .curves import MAX_RUNS, charts, read_curves
from .plots import dots, forest, kind_of
from .run_rows import run_rows

MAX_CLASSES = 300  # of the table of classes
MAX_PLOTTED_CLASSES = 30  # for each variant
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def write_page(path: str, result: ExperimentResult) -> None:
    """
    Write the page of an experiment.

    Args:
        path: HTML file to write, in the folder of the experiment. The curves of the runs are read
            from this folder, and links lead to the reports in it.

    Raises:
        UserError: Jinja2 is not installed, or the file cannot be written.
    """
    template = page_template(__name__, "experiment.html", "Pages of experiments")
    save_page(template.render(_content(os.path.dirname(path), result)), path)


def _content(folder: str, result: ExperimentResult) -> Dict[str, Any]:
    """Return the variables of experiment.html, which escapes all but styles and scripts."""
    scripts = page_scripts(__name__, "experiment.js")
    curves, skipped = read_curves(folder, result.runs[:MAX_RUNS])
    names = class_names(result)
    shown_classes = _most_changed(result, names, MAX_CLASSES)
    return {
        "policy": script_policy(scripts),
        "style": page_resource("libra_d2.visualization.report", "report.css")
        + page_resource(__name__, "experiment.css"),
        "scripts": scripts,
        "result": result,
        "title": printable(result.name) or "Experiment",
        "cards": _cards(result),
        "data_lines": data_lines(result),
        "statements": [_statement(c) for c in result.comparisons],
        "failed": runs_without_result(result),
        "variants": _page_table(variants_table(result), "variants-table"),
        "costs": _page_table(costs_table(result), "costs-table"),
        "settings": [(v.name, " ".join(v.overrides) or "the base config") for v in result.variants],
        "metrics": [_metric(result, metric) for metric in shown_metrics(result)],
        "charts": charts(result, curves),
        "hues": _hues(result),
        "skipped": skipped,
        "num_without_curves": max(0, len(result.runs) - MAX_RUNS),
        "classes": _page_table(classes_table(result, shown_classes), "class-table"),
        "num_classes": len(names),
        "num_shown": len(shown_classes),
        "class_forests": [_class_forest(c) for c in result.comparisons if c.classes],
        "runs": run_rows(folder, result),
    }


def _cards(result: ExperimentResult) -> List[Sequence[str]]:
    runs = f"{len(finished_runs(result))} of {len(result.runs)}"
    cards = [("Variants", str(len(result.variants))), ("Seeds", str(len(result.seeds)))]
    cards += [("Folds", str(result.folds))] if result.folds else []
    return [*cards, ("Finished runs", runs)]


def _statement(comparison: Comparison) -> Dict[str, str]:
    of_ap = next((e for e in comparison.metrics if e.metric == "AP"), None)
    return {
        "variant": comparison.variant,
        "text": comparison.statement,
        "kind": kind_of(of_ap),
    }


def _metric(result: ExperimentResult, metric: str) -> Dict[str, Any]:
    """Return what is shown while a metric is selected."""
    effects = [(c.variant, e) for c in result.comparisons for e in c.metrics if e.metric == metric]
    return {
        "name": metric,
        "forest": forest(effects),
        "dots": dots(result, metric),
        "differences": _page_table(differences_table(result, [metric]), f"differences-{metric}"),
        "runs": _page_table(runs_table(result, metric), f"runs-{metric}"),
    }


def _most_changed(result: ExperimentResult, names: List[str], number: int) -> List[str]:
    """Return the classes with the largest differences of any variant, in their own order."""
    if len(names) <= number:
        return names
    largest = dict.fromkeys(names, 0.0)
    for effect in (e for c in result.comparisons for e in c.classes):
        change = abs(effect.difference or 0.0)
        largest[effect.metric] = max(largest.get(effect.metric, 0.0), change)
    kept = set(sorted(names, key=lambda name: -largest[name])[:number])
    return [name for name in names if name in kept]


def _class_forest(comparison: Comparison) -> Dict[str, Any]:
    def change(effect: Effect) -> float:
        return effect.difference or 0.0

    known = [effect for effect in comparison.classes if effect.difference is not None]
    kept = sorted(known, key=lambda effect: -abs(change(effect)))[:MAX_PLOTTED_CLASSES]
    kept.sort(key=change, reverse=True)
    return {
        "variant": comparison.variant,
        "forest": forest((effect.metric, effect) for effect in kept),
        "num_left_out": len(known) - len(kept),
    }


def _hues(result: ExperimentResult) -> List[int]:
    """Return the numbers of the colors of the variants; 0 is the baseline's."""
    others = [v.name for v in result.variants if v.name != result.baseline]
    return [
        0 if v.name == result.baseline else 1 + others.index(v.name) % 6 for v in result.variants
    ]


def _page_table(table: TextTable, name: str) -> Table:
    """Turn a table of text into one of a page, which sorts numbers by their value."""
    forms = ["text" if i < table.num_names else "count" for i in range(len(table.header))]
    columns = [Column(title, form, title) for title, form in zip(table.header, forms)]
    rows = [[_cell(text, form) for text, form in zip(row, forms)] for row in table.rows]
    return Table(table.title, columns, rows, name, headed=False)


def _cell(text: str, form: str) -> Cell:
    if form == "text":
        return Cell(text, form, text, text)
    value = _NUMBER.search(text)
    return Cell(NOTHING if text == DASH else text, form, value[0] if value else "", "")
