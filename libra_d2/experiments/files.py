"""Write the results of an experiment in all formats, and read them back."""

import json
import logging
import os
import re
from typing import Any, Callable, Iterable, List

from tabulate import tabulate

from ..errors import UserError
from ..utils.csv_files import write_csv
from ..utils.dataclass_json import WrongValueError, from_json, json_fields
from ..utils.extras import import_extra
from ..utils.files import make_folder_of, write_text
from ..utils.json_files import read_json
from ..utils.messages import printable, printable_lines
from .latex import latex_table
from .page import write_page
from .results import FORMAT, METRICS, ExperimentResult
from .tables import (
    TextTable,
    class_names,
    classes_table,
    costs_table,
    data_lines,
    differences_table,
    failures_table,
    imbalances_table,
    runs_table,
    variants_table,
)

logger = logging.getLogger(__name__)

RESULT, MARKDOWN, PAGE = "experiment.json", "experiment.md", "experiment.html"
RUNS, EFFECTS, LATEX = "experiment.csv", "experiment_effects.csv", "experiment.tex"
FILES = (RESULT, MARKDOWN, RUNS, EFFECTS, LATEX, PAGE)
EFFECT_COLUMNS = "difference low high superiority p_value p_adjusted seeds_needed".split()
SHOWN_CLASSES = 40  # in experiment.md


def write_experiment(folder: str, result: ExperimentResult) -> None:
    """
    Write `FILES` into the folder of an experiment. The page is left out with a warning if Jinja2 is
    not installed.

    Args:
        folder: it is created if it does not exist. The page shows the curves of the runs in it.

    Raises:
        UserError: a file cannot be written.
        ValueError: a number of the result is NaN or infinite.
    """
    content = json.dumps(result, default=json_fields, allow_nan=False, indent=1)
    make_folder_of(os.path.join(folder, RESULT))
    write_text(os.path.join(folder, RESULT), content + "\n")
    write_text(os.path.join(folder, MARKDOWN), markdown(result))
    write_text(os.path.join(folder, LATEX), latex_table(result))
    _write_runs(os.path.join(folder, RUNS), result)
    _write_effects(os.path.join(folder, EFFECTS), result)
    try:
        import_extra("jinja2", "report", "Pages of experiments")
    except UserError as e:
        logger.warning(f"{PAGE} is not written: {e}")
        return
    write_page(os.path.join(folder, PAGE), result)


def read_result(path: str) -> ExperimentResult:
    """
    Read an `experiment.json`.

    Raises:
        UserError: the file cannot be read, is of another format, or is damaged.
    """
    content = read_json(path, what="result of an experiment")
    found = content.get("format") if isinstance(content, dict) else None
    if type(found) is not int or found != FORMAT:
        raise UserError(
            f"the format of {printable(path)} must be {FORMAT}, got "
            f"{printable(repr(found)[:80])}. Run `libra-d2 experiment` of this version to write "
            "the results again; finished runs are not trained again"
        )
    try:
        return from_json(ExperimentResult, content)
    except WrongValueError as e:
        raise UserError(
            f"{printable(path)}: {e}. Run `libra-d2 experiment` to write the results again"
        ) from None


def result_table(result: ExperimentResult) -> str:
    """Return the results as text for a terminal."""
    parts = [f"{c.variant}: {c.statement}" for c in result.comparisons]
    parts += _tables([variants_table(result), differences_table(result, ["AP"])], printable)
    parts += _tables([costs_table(result)], printable)
    for i in result.imbalances:
        outcome = f" Outcome: {i.outcome}" if i.outcome else ""
        parts.append(f"{i.name} ({i.level}): {i.measured} Expected: {i.expectation}{outcome}")
    parts += [f"{r.folder} has no result: {r.error}" for r in result.runs if r.error]
    return "\n\n".join(map(printable_lines, parts))


def markdown(result: ExperimentResult) -> str:
    """Return the content of `experiment.md`."""
    names = class_names(result)
    tables = [
        *(variants_table(result), runs_table(result), differences_table(result)),
        *(costs_table(result), imbalances_table(result), failures_table(result)),
        classes_table(result, names[:SHOWN_CLASSES]),
    ]
    parts = [f"# {markdown_text(result.name)}"]
    parts += [
        f"**{markdown_text(c.variant)}**: {markdown_text(c.statement)}" for c in result.comparisons
    ]
    parts.append("\n".join(f"- {markdown_text(line)}" for line in data_lines(result)))
    parts += _tables(tables, markdown_text, heading="## ")
    if len(names) > SHOWN_CLASSES:
        parts.append(f"{len(names) - SHOWN_CLASSES} more classes are in `{EFFECTS}`.")
    parts += ["## Method", markdown_text(result.method)]
    if result.command:
        parts.append("\n".join(f"    {line}" for line in printable(result.command).split("\n")))
    parts.append(f"libra_d2 {markdown_text(result.libra_version)}".strip())
    return "\n\n".join(parts) + "\n"


_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def markdown_text(text: str) -> str:
    r"""
    Escape characters that have a meaning in Markdown or HTML.

    Example:
        >>> print(markdown_text("no_bfp | <b>"))
        no_bfp \| \<b\>
    """
    return _MARKDOWN.sub(lambda match: "\\" + match[0], printable(text))


def _tables(
    tables: Iterable[TextTable], escaped: Callable[[str], str], heading: str = ""
) -> List[str]:
    """Format the tables that have rows. Numbers are not escaped."""
    ret = []
    for table in tables:
        if table.rows:
            n = table.num_names
            rows = [[*map(escaped, row[:n]), *row[n:]] for row in table.rows]
            header = [escaped(cell) for cell in table.header]
            sides = ["left" if i < table.num_names else "right" for i in range(len(header))]
            text = tabulate(rows, header, "pipe", colalign=sides, disable_numparse=True)
            ret.append(f"{heading}{escaped(table.title)}\n\n{text}")
    return ret


def _write_runs(path: str, result: ExperimentResult) -> None:
    classes = class_names(result)
    header = ["variant", "seed", "fold", "folder", "error", "seconds", *METRICS]
    rows: List[List[Any]] = [[*header, *(f"AP-{name}" for name in classes)]]
    for run in result.runs:
        values = [run.metrics.get(m) for m in METRICS] + [run.classes.get(c) for c in classes]
        rows.append([*(getattr(run, key) for key in header[:6]), *values])
    write_csv(path, rows)


def _write_effects(path: str, result: ExperimentResult) -> None:
    rows: List[List[Any]] = [["variant", "kind", "name", *EFFECT_COLUMNS, "num_pairs"]]
    for c in result.comparisons:
        for kind, effects in (("metric", c.metrics), ("AP of class", c.classes)):
            for effect in effects:
                values = [getattr(effect, column) for column in EFFECT_COLUMNS]
                rows.append([c.variant, kind, effect.metric, *values, c.num_pairs])
    write_csv(path, rows)
