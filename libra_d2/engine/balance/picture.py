"""Draw a picture of how balanced training is."""

import functools
import math
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...utils.files import replacing
from . import measures as measures
from .captions import caption

# All candidates, or before BFP; the sampled ones, or after BFP.
GREY, COLOUR = "#a6a6a6", "#0b6fb8"

History = List[Dict[str, float]]


def save_balance_picture(
    last: Dict[str, Any], history: History, loss_name: str, beta: float, picture: str
) -> None:
    """
    Draw the last measurement and its course over the run, with one panel for each kind.

    Args:
        last: result of :meth:`BalanceProbe.measurement`, with its `iteration` added.
        history: for each measurement, its `iteration` and its numbers by name.
        loss_name: name of the box loss in use.
        beta: beta of the smooth L1 loss with which it is compared. Larger errors are hard.
        picture: PNG file to write.
    """
    with replacing(picture) as partial:
        balance_figure(last, history, loss_name, beta).savefig(partial, format="png")


def balance_figure(last: Dict[str, Any], history: History, loss_name: str, beta: float) -> Figure:
    """Return the figure, with one panel of two axes for each kind in `last`."""
    panels: List[Tuple[str, Callable]] = [
        ("negatives", _negatives),
        ("positives", _positives),
        ("gradient", functools.partial(_gradient, loss_name, beta)),
        ("levels", _levels),
    ]
    panels = [(kind, draw) for kind, draw in panels if kind in last]
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(15, 4.7 * rows + 0.4), dpi=100, layout="constrained")
    figure.suptitle(
        f"Balance of training: at iteration {last['iteration']} (left) and over the run (right)",
        fontsize=13,
    )
    parts = figure.subfigures(rows, 2, squeeze=False, wspace=0.03, hspace=0.03).flatten()
    for (kind, draw), part in zip(panels, parts):
        now, course = part.subplots(1, 2, width_ratios=(5, 4))
        title = draw(now, course, last[kind], history)
        now.set_title(" ", fontsize="small")  # room for the legend
        part.suptitle(title, fontsize=11, weight="bold")
        part.supxlabel(caption(kind, last[kind]), fontsize=11)
        for axes in (now, course):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.3)
            axes.set_axisbelow(True)
            bottom = 1 if kind == "levels" and axes is course else 0  # a ratio is never below 1
            height = axes.dataLim.ymax - bottom
            axes.set_ylim(bottom, bottom + (1.08 * height if 0 < height < math.inf else 1))
        course.set_xlabel("iteration")
        course.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


# Each function draws two axes and returns a title with the main numbers.


def _negatives(now: Axes, course: Axes, last: Dict, history: History) -> str:
    edges = last["all"]["edges"]
    _bars(now, edges[:-1], _shares(last["all"]), _shares(last["sampled"]))
    now.set_xticks(np.arange(len(edges))[::2] - 0.5, [f"{x:.2g}" for x in edges[::2]])
    _legend(now, "all negatives", "sampled")
    now.set(xlabel="IoU with the closest object", ylabel="fraction of the negatives")
    _course(course, history, "hard_negatives/all", "hard_negatives/sampled")
    course.set(ylabel=f"fraction with IoU ≥ {measures.HARD_IOU:g}")
    _percent(now, course)
    return (
        f"Hard negatives (IoU ≥ {measures.HARD_IOU:g}): {_share(last['all']['hard'])} of all "
        f"negatives, {_share(last['sampled']['hard'])} of the sampled ones"
    )


def _positives(now: Axes, course: Axes, last: Dict, history: History) -> str:
    starts = (0, *measures.POSITIVES_EDGES)
    labels = [
        str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in zip(starts, starts[1:] + (math.inf,))
    ]
    labels[-1] = f"{starts[-1]}+"
    _bars(now, labels, _shares(last["all"]), _shares(last["sampled"]))
    means = [last[k]["mean"] for k in ("all", "sampled")]
    _legend(now, f"all, mean {means[0]:.1f}", f"sampled, mean {means[1]:.1f}")
    now.set(xlabel="positives per object", ylabel="fraction of the objects")
    _percent(now)
    _course(course, history, "positives_unevenness/all", "positives_unevenness/sampled")
    course.set(ylabel="unevenness (std / mean per image)")
    values = [_number(last[k]["unevenness"]) for k in ("all", "sampled")]
    return f"Positives per object: unevenness {values[0]} for all, {values[1]} for the sampled ones"


def _gradient(
    loss_name: str, beta: float, now: Axes, course: Axes, last: Dict, history: History
) -> str:
    def easy_and_hard(x):
        return [x, 1 - x]

    kinds = [f"easy: error below {beta:g}", "hard"]
    _bars(now, kinds, easy_and_hard(last["smooth_l1"]), easy_and_hard(last["in_use"]))
    for x, height in enumerate(easy_and_hard(last["samples"])):
        now.hlines(height, x - 0.42, x + 0.42, "black", linestyles="dotted")
    now.set(ylabel="fraction of the gradient")
    _course(course, history, "easy_gradient/smooth_l1", "easy_gradient/in_use")
    _line(course, history, "easy_gradient/samples", "black", linewidth=1.5, linestyle="dotted")
    course.set(ylabel="fraction from easy samples")
    smooth_l1 = smooth_l1_name(beta)
    _legend(now, f"with {smooth_l1}", f"with {loss_name} (used)", "samples (coordinates)")
    _percent(now, course)
    return (
        f"Gradient from easy samples: {_share(last['smooth_l1'])} with smooth L1, "
        f"{_share(last['in_use'])} with {loss_name}"
    )


def _levels(now: Axes, course: Axes, last: Dict, history: History) -> str:
    before, after = last["before"], last["after"]
    _bars(now, last["names"], before, after)
    now.set(xlabel="level", ylabel="activation (root mean square)")
    _course(course, history, "level_spread/before", "level_spread/after")
    course.set(ylabel="strongest / weakest level")
    if not after:
        _legend(now, "FPN (there is no BFP)")
        return f"Levels: ratio of the strongest to the weakest is {measures.spread(before):.1f}"
    _legend(now, "before BFP", "after BFP")
    return (
        f"Levels: ratio of the strongest to the weakest is {measures.spread(before):.1f} before, "
        f"{measures.spread(after):.1f} after BFP"
    )


def smooth_l1_name(beta: float) -> str:
    return f"smooth L1 (beta {beta:g})" if beta > 0 else "L1"


def _shares(kind: Dict) -> List[float]:
    total = max(sum(kind["counts"]), 1)
    return [count / total for count in kind["counts"]]


def _share(x: float) -> str:
    return "none" if math.isnan(x) else f"{x:.0%}"


def _number(x: float) -> str:
    return "none" if math.isnan(x) else f"{x:.2f}"


def _bars(axes: Axes, labels: Sequence, grey: List[float], colour: List[float]) -> None:
    """Draw gray and colored bars side by side, or only gray ones if `colour` is empty."""
    x = np.arange(len(labels))
    axes.bar(x - 0.2 if colour else x, np.nan_to_num(grey, nan=0, posinf=0), 0.4, color=GREY)
    if colour:
        axes.bar(x + 0.2, np.nan_to_num(colour, nan=0, posinf=0), 0.4, color=COLOUR)
    axes.set_xticks(x, labels, fontsize="small")


def _course(axes: Axes, history: History, grey: str, colour: str) -> None:
    _line(axes, history, grey, GREY, linewidth=4)  # visible even if both lines are the same
    _line(axes, history, colour, COLOUR, linewidth=2)


def _line(axes: Axes, history: History, name: str, colour: str, **style) -> None:
    points = [(x["iteration"], x[name]) for x in history if name in x]
    if points:
        marker = "o" if len(points) < 30 else ""
        axes.plot(*zip(*points), color=colour, marker=marker, markersize=5, **style)


def _legend(axes: Axes, *labels: str) -> None:
    """Add a legend in the order gray, color, black above the bars, where it hides none of them."""
    handles = [
        Patch(color=GREY),
        Patch(color=COLOUR),
        Line2D([], [], color="black", linestyle="dotted"),
    ]
    legend = axes.legend(
        handles[: len(labels)],
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(labels),
        frameon=False,
        fontsize="small",
        borderaxespad=0,
    )
    legend.set_in_layout(False)  # it may be wider than its axes


def _percent(*axes: Axes) -> None:
    for x in axes:
        x.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
