"""
Say which imbalances the data and the training of the baseline have, which component of Libra R-CNN
is made against each, and what the experiment has shown about it.

Each rule is a function that takes measurements and returns one `Imbalance`, or None if its
measurement is missing. Its docstring gives the thresholds and where they come from. They were not
fitted to results of experiments: the levels say how much there is to balance, not how much AP a
component will add.

Source: Pang et al., "Libra R-CNN: Towards Balanced Learning for Object Detection", CVPR 2019,
https://arxiv.org/abs/1904.02701; called "the paper" below.
"""

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import UserError
from ..utils.json_files import read_json
from ..utils.metrics_file import read_metrics
from .design import Design
from .results import Comparison, Imbalance, RunResult


@dataclass(frozen=True)
class Measurements:
    """What is known about a training set and the training of the baseline."""

    num_images: int = 0
    classes: Dict[str, int] = field(default_factory=dict)  # name -> number of objects
    # Percentiles 5 and 95 of the square root of the objects' areas, in pixels.
    sides: Optional[Tuple[float, float]] = None
    # Means of the scalars `balance/*` over the steps that were measured, without that prefix.
    balance: Dict[str, float] = field(default_factory=dict)


def find_imbalances(
    design: Design, runs: Sequence[RunResult], comparisons: Sequence[Comparison]
) -> List[Imbalance]:
    """
    Judge the imbalances from the files of the baseline's finished runs. What these have not
    measured is left out.

    The outcome of a component is that of the variant with its name, "sampling", "bfp" or "loss", as
    in the ablation of the components.
    """
    folders = [design.path(r.folder) for r in runs if r.variant == design.baseline and not r.error]
    measured = measurements(folders)
    found = [imbalance for rule in RULES for imbalance in [rule(measured)] if imbalance]
    statements = {c.variant: c.statement for c in comparisons}
    return [replace(i, outcome=statements.get(i.component, "")) for i in found]


def hard_negatives(of: Measurements) -> Optional[Imbalance]:
    """
    Rule: the share of hard negatives (IoU of at least 0.05 with an object) among those that the
    baseline samples is low if it is at least 60 %, and high below 30 %.

    Source: section 3.1 of the paper, where over 60 % of the negatives that are hard to classify
    have such an IoU, but only 30 % of a random sample.
    """
    share = of.balance.get("hard_negatives/sampled")
    if share is None:
        return None
    level = "high" if share < 0.3 else "medium" if share < 0.6 else "low"
    available = of.balance.get("hard_negatives/all")
    rest = "" if available is None else f", and {available:.0%} of all negatives"
    return Imbalance(
        name="hard negatives",
        measured=f"{share:.0%} of the sampled negatives overlap an object (IoU >= 0.05){rest}.",
        level=level,
        component="sampling",
        expectation=_expectation(
            level,
            "IoU-balanced sampling",
            "samples more negatives that overlap an object, which should avoid false detections "
            "beside objects",
        ),
        outcome="",
    )


def objects_per_image(of: Measurements) -> Optional[Imbalance]:
    """
    Rule: the number of objects per image is low below 2, since a single object needs no balance,
    and high from 7.

    Source: the train2017 set of COCO, on which the paper measured its gain, has 7.3 objects per
    image (860,001 objects in 118,287 images). RetinaNet has no sampling and therefore no such
    imbalance.
    """
    if not of.num_images or (of.balance and "hard_negatives/all" not in of.balance):
        return None
    mean = sum(of.classes.values()) / of.num_images
    level = "low" if mean < 2 else "medium" if mean < 7 else "high"
    uneven = of.balance.get("positives_unevenness/sampled")
    rest = (
        ""
        if uneven is None
        else f" The number of positives per object varies by {uneven:.0%} of its mean in an image."
    )
    return Imbalance(
        name="objects per image",
        measured=f"{mean:.1f} objects per image.{rest}",
        level=level,
        component="sampling",
        expectation=_expectation(
            level,
            "Instance-balanced sampling",
            "samples about as many positives of each object in an image, which should help objects "
            "with few proposals",
        ),
        outcome="",
    )


def scale_spread(of: Measurements) -> Optional[Imbalance]:
    """
    Rule: the ratio of the 95th to the 5th percentile of the objects' sides (square root of the
    area) is low below 2, and high from 8.

    Source: the levels of a feature pyramid differ by a factor of 2 (Lin et al., "Feature Pyramid
    Networks for Object Detection", 2017, equation 1), so a ratio below 2 needs one or two levels,
    and 8 is the ratio between the finest and the coarsest of the levels p2 to p5 of its box head.
    """
    if of.sides is None or not of.sides[0] > 0:
        return None
    small, large = of.sides
    ratio = large / small
    level = "low" if ratio < 2 else "medium" if ratio < 8 else "high"
    spread = of.balance.get("level_spread/before")
    rest = (
        ""
        if spread is None
        else f" The strongest level of the feature pyramid is {spread:.1f} times the weakest."
    )
    return Imbalance(
        name="scale spread",
        measured=f"90 % of the objects have a side from {small:.0f} to {large:.0f} pixels, a ratio "
        f"of {ratio:.1f}.{rest}",
        level=level,
        component="bfp",
        expectation=_expectation(
            level,
            "BFP",
            "gives each level of the feature pyramid the features of all others, which should help "
            "objects of all sizes",
        ),
        outcome="",
    )


def outlier_gradients(of: Measurements) -> Optional[Imbalance]:
    """
    Rule: the mean gradient of an inlier (box error below beta of the Balanced L1 loss) divided by
    that of an outlier is low from 0.65, half way to 1, where both are equal; it is high up to 0.3.

    Source: section 3.3 of the paper, where an inlier contributes 30 % of an outlier's gradient.
    """
    gradient, samples = (of.balance.get(f"easy_gradient/{k}") for k in ("in_use", "samples"))
    if gradient is None or samples is None or not 0 < samples < 1 or not gradient < 1:
        return None
    ratio = (gradient / samples) / ((1 - gradient) / (1 - samples))
    level = "high" if ratio <= 0.3 else "medium" if ratio < 0.65 else "low"
    return Imbalance(
        name="outlier gradients",
        measured=f"{samples:.0%} of the box coordinates are inliers, and contribute {gradient:.0%} "
        f"of the gradient of the box loss; an inlier contributes {ratio:.2f} times as much as an "
        "outlier.",
        level=level,
        component="loss",
        expectation=_expectation(
            level,
            "Balanced L1 loss",
            "gives inliers a larger share of the gradient, which should make boxes more accurate "
            "(AP75)",
        ),
        outcome="",
    )


def class_imbalance(of: Measurements) -> Optional[Imbalance]:
    """
    Rule: the number of objects of the rarest class, divided by that of the median class, is low
    from 1/4, and high below 1/16.

    Source: `libra-d2 plan` counts classes as rare below 1/4, but by images instead of objects.
    Repeat-factor sampling (Gupta et al., "LVIS", 2019, section 5) with the median as its threshold
    draws images of a class twice as often at 1/4 and four times as often at 1/16.
    """
    counts = {name: n for name, n in of.classes.items() if n > 0}
    if len(counts) < 2:
        return None
    rarest = min(counts, key=lambda name: counts[name])
    ratio = counts[rarest] / float(np.median(list(counts.values())))
    level = "high" if ratio < 1 / 16 else "medium" if ratio < 1 / 4 else "low"
    advice = (
        ""
        if level == "low"
        else " Repeat-factor sampling draws images of rare classes more often: set "
        "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler, as `libra-d2 plan` does."
    )
    return Imbalance(
        name="class imbalance",
        measured=f"The rarest class, {rarest}, has {counts[rarest]} objects, {ratio:.2f} times as "
        "many as the median class.",
        level=level,
        component="",
        expectation=f"No component of Libra R-CNN is made against it.{advice}",
        outcome="",
    )


def _expectation(level: str, component: str, effect: str) -> str:
    if level == "low":
        return f"{component} is not expected to change much, as there is little to balance."
    much = "much" if level == "high" else "something"
    return f"{component} may help, as there is {much} to balance: it {effect}."


RULES: Tuple[Callable[[Measurements], Optional[Imbalance]], ...] = (
    hard_negatives,
    objects_per_image,
    scale_spread,
    outlier_gradients,
    class_imbalance,
)


def measurements(folders: Sequence[str]) -> Measurements:
    """
    Read the measurements of runs.

    Args:
        folders: of finished runs with the same settings. The data are those of the first; the
            scalars are averaged over all.
    """
    values: Dict[str, List[float]] = {}
    for folder in folders:
        for name, value in _balance_scalars(os.path.join(folder, "metrics.json")):
            values.setdefault(name, []).append(value)
    balance = {name: float(np.mean(own)) for name, own in values.items()}
    return replace(_of_data(folders[0]) if folders else Measurements(), balance=balance)


def _of_data(folder: str) -> Measurements:
    """Read the training set's part of the report on the data, which a run writes at its start."""
    try:
        report = read_json(os.path.join(folder, "data_check.json"))
        sets = [d for d in report["datasets"] if d["split"] == "train"]
        classes: Dict[str, int] = {}
        for name, count in (item for d in sets for item in d["classes"].items()):
            classes[name] = classes.get(name, 0) + int(count)
        return Measurements(
            num_images=sum(int(d["figures"]["images"]) for d in sets),
            classes=classes,
            # Percentiles of several sets cannot be joined.
            sides=_sides(sets[0]["details"]) if len(sets) == 1 else None,
        )
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return Measurements()  # DATASETS.CHECK was off


def _sides(details: Dict[str, Any]) -> Optional[Tuple[float, float]]:
    percentiles = details.get("sqrt_area_percentiles")
    return None if percentiles is None else (float(percentiles["5"]), float(percentiles["95"]))


def _balance_scalars(path: str) -> List[Tuple[str, float]]:
    """Read the scalars `balance/*` of all measured steps, without that prefix."""
    try:
        records = read_metrics(path)
    except OSError:
        return []
    return [
        (name.removeprefix("balance/"), float(value))
        for record in records
        for name, value in record.items()
        if name.startswith("balance/") and isinstance(value, (int, float)) and math.isfinite(value)
    ]
