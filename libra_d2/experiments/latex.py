"""A table of the results of an experiment for a paper, in LaTeX with booktabs."""

import re
from typing import Dict, List, Optional

from ..utils.messages import printable
from .results import Effect, ExperimentResult
from .tables import NOTHING, difference_text, shown_metrics, spread_text

_DIGITS = 1  # as papers give AP
# In the OT1 encoding, which is LaTeX's default, < > | are other characters. -- is a dash.
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "-": "-{}",
    "[": "{[}",  # after the end of a row, it would begin an argument
    "*": "{*}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}
_SPECIAL = re.compile("[" + re.escape("".join(_ESCAPES)) + "]")
# COCO's metrics as papers write them.
_HEADS = {"AP50": "AP$_{50}$", "AP75": "AP$_{75}$", "APs": "AP$_S$", "APm": "AP$_M$"}
_HEADS.update(AP="AP", APl="AP$_L$")


def latex_text(text: str) -> str:
    r"""
    Escape characters that have a meaning in LaTeX.

    Example:
        >>> latex_text("no_bfp & 50%")
        'no\\_bfp \\& 50\\%'
    """
    escaped = _SPECIAL.sub(lambda match: _ESCAPES[match[0]], printable(text))
    return re.sub("-{}(?!-)", "-", escaped)  # only hyphens before hyphens need it


def latex_table(result: ExperimentResult) -> str:
    """Return a `table*` with a row for each variant, which needs `\\usepackage{booktabs}`."""
    metrics = shown_metrics(result)
    effects = {c.variant: {e.metric: e for e in c.metrics} for c in result.comparisons}
    rows = []
    for variant in result.variants:
        spreads = [_math(spread_text(variant.metrics.get(m), _DIGITS, r" \pm ")) for m in metrics]
        rows.append(
            [latex_text(variant.name), *spreads, _difference(effects.get(variant.name, {}))]
        )
    heads = ["Variant", *(_HEADS[m] for m in metrics), r"$\Delta$AP [95\,\% CI]"]
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs}.",
            r"\begin{table*}",
            r"  \centering",
            rf"  \caption{{{_caption(result)}}}",
            r"  \label{tab:experiment}",
            rf"  \begin{{tabular}}{{l{'c' * (len(heads) - 1)}}}",
            r"    \toprule",
            _row(heads),
            r"    \midrule",
            *map(_row, rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _row(cells: List[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _math(text: str) -> str:
    return "--" if text == NOTHING else f"${text}$"


def _difference(effects: Dict[str, Effect]) -> str:
    """An en dash for the baseline."""
    effect: Optional[Effect] = effects.get("AP")
    return _math(difference_text(effect, _DIGITS).replace(" [", r"\;["))


def _caption(result: ExperimentResult) -> str:
    runs = f"seeds {', '.join(map(str, result.seeds))}" if result.seeds else "no seeds"
    if len(result.seeds) == 1:
        runs = runs.replace("seeds", "seed")
    folds = f" and {result.folds} folds" if result.folds else ""
    baseline, method = latex_text(result.baseline), latex_text(result.method.rstrip("."))
    return (
        f"AP in points: mean and standard deviation over the runs ({runs}{folds}), and the "
        rf"difference from {baseline} with its 95\,\% confidence interval. {method}."
    )
