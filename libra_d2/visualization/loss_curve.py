"""Draw the loss curves of a run from its metrics.json."""

import numpy as np
from matplotlib.figure import Figure

from ..utils.files import replacing
from ..utils.metrics_file import read_metrics


def save_loss_curve(metrics_file: str, picture: str) -> bool:
    """
    Draw the losses and the learning rate over the iterations.

    Args:
        metrics_file: `metrics.json` of a run, with one JSON object per line.
        picture: PNG file to write.

    Returns:
        Whether the picture was written. It is not if the file contains no losses.
    """
    records = [r for r in read_metrics(metrics_file) if "total_loss" in r]
    if not records:
        return False
    iterations = [r["iteration"] for r in records]
    names = sorted({k for r in records for k in r if k.startswith("loss_")})

    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(iterations, [r["total_loss"] for r in records], "k", linewidth=2, label="total_loss")
    for name in names:
        axes.plot(iterations, [r.get(name, np.nan) for r in records], label=name)
    axes.set(xlabel="iteration", ylabel="loss (median of 20 iterations)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    rate = axes.twinx()
    rate.plot(iterations, [r.get("lr", np.nan) for r in records], ":", color="grey", label="lr")
    rate.set(ylabel="learning rate")
    rate.set_ylim(bottom=0)
    curves = [*axes.get_lines(), *rate.get_lines()]
    labels = [str(curve.get_label()) for curve in curves]
    axes.legend(curves, labels, loc="upper right", fontsize="small")
    with replacing(picture) as partial:
        figure.savefig(partial, format="png")
    return True
