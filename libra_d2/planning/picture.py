"""Plot the objects of a training set with the anchors and limits of a plan."""

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..config.augmentations import RESIZING, parse_augmentations
from ..config.detectors import is_retinanet
from ..data.checks.anchors import anchor_levels, anchor_shapes, strides_of, uses_anchors
from ..utils.files import make_folder_of, replacing
from .training_set import TrainingSet

GRAY, BLUE, ORANGE = "#a6a6a6", "#0b6fb8", "#d9480f"


def save_plan_picture(data: TrainingSet, base: CfgNode, planned: CfgNode, path: str) -> None:
    """Write :func:`plan_figure` as a PNG."""
    make_folder_of(path)
    with replacing(path) as partial:
        plan_figure(data, base, planned).savefig(partial, format="png")


def plan_figure(data: TrainingSet, base: CfgNode, planned: CfgNode) -> Figure:
    """
    Plot the objects of a training set together with the settings of the base config and the plan.

    The left and the middle panel show the sizes of the objects in the network's input, with the
    anchors of the base config and of the plan. The right panel is a histogram of the number of
    objects per image, with the limits of both configs.
    """
    figure = Figure(figsize=(16, 5.4), dpi=100, layout="constrained")
    before, after, counts = figure.subplots(1, 3)
    _draw_sizes(before, data, base, "Base config")
    _draw_sizes(after, data, planned, "Plan")
    after.sharex(before)
    after.sharey(before)
    _draw_counts(counts, data, base, planned)
    return figure


def _draw_sizes(ax: Axes, data: TrainingSet, cfg: CfgNode, title: str) -> None:
    shapes = np.maximum(data.resized_shapes(cfg), 0.5)
    ax.hexbin(
        shapes[:, 0],
        shapes[:, 1],
        xscale="log",
        yscale="log",
        gridsize=40,
        bins="log",
        mincnt=1,
        cmap="Blues",
        linewidths=0.2,
    )
    if uses_anchors(cfg):
        levels, anchors = anchor_levels(cfg), anchor_shapes(cfg)
        strides = strides_of(cfg)
        for level in np.unique(levels):
            here = anchors[levels == level]
            stride = strides[level % len(strides)]
            ax.plot(
                here[:, 0],
                here[:, 1],
                "+",
                color=ORANGE,
                alpha=0.4 + 0.6 * (level + 1) / len(strides),
                markersize=9,
                markeredgewidth=1.6,
                label=f"anchors every {stride:.0f} pixels",
            )
        ax.legend(fontsize="small", loc="upper left")
    ax.set_title(f"{title}: {len(shapes)} objects, input {_input_size(cfg)}")
    ax.set_xlabel("width in the network's input (pixels)")
    ax.set_ylabel("height in the network's input (pixels)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(base=2))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.grid(alpha=0.25)


def _draw_counts(ax: Axes, data: TrainingSet, base: CfgNode, planned: CfgNode) -> None:
    counts = data.objects_per_image
    bins = np.unique(np.linspace(0, counts.max() + 1, 40).astype(int))
    ax.hist(counts, bins=bins.tolist(), color=GRAY)
    for cfg, color, name in ((base, BLUE, "base"), (planned, ORANGE, "plan")):
        for key, style in (("detections", "-"), ("positives", "--")):
            limit = _limit(cfg, key)
            if limit is not None and limit <= 2 * counts.max() + 10:
                label = f"{key} of the {name}: {limit}"
                ax.axvline(limit, color=color, linestyle=style, label=label)
    ax.set_title(f"{data.num_images} images with up to {counts.max()} objects")
    ax.set_xlabel("objects in an image")
    ax.set_ylabel("images")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small")


def _limit(cfg: CfgNode, key: str) -> Any:
    if key == "detections":
        limit = cfg.TEST.DETECTIONS_PER_IMAGE
        return None if limit < 0 else limit
    heads = cfg.MODEL.ROI_HEADS
    return None if is_retinanet(cfg) else int(heads.BATCH_SIZE_PER_IMAGE * heads.POSITIVE_FRACTION)


def _input_size(cfg: CfgNode) -> str:
    if any(cfg.INPUT.FIXED_SIZE):
        return f"{cfg.INPUT.FIXED_SIZE[1]} x {cfg.INPUT.FIXED_SIZE[0]}"
    sizes = sorted(set(cfg.INPUT.MIN_SIZE_TRAIN))
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    if any(entry.name in RESIZING for entry in parse_augmentations(cfg.INPUT.AUGMENTATIONS)):
        return "of INPUT.AUGMENTATIONS"
    return f"{size} (crops)" if cfg.INPUT.CROP.ENABLED else size
