"""Read the finished runs of an experiment, and compare its variants."""

import os
from dataclasses import replace
from datetime import datetime
from typing import Any, Dict, List, Optional

import numpy as np

from ..config import load_cfg
from ..data.datasets.coco_format import read_coco
from ..errors import UserError
from ..evaluation.analysis.average_precision import AveragePrecision, mean_or_nan
from ..evaluation.analysis.matched_detections import MatchedDetections
from ..evaluation.analysis.results import number
from ..evaluation.coco_metrics import largest_number
from ..evaluation.evaluated_sets import EvaluatedSet, evaluated_sets
from ..evaluation.file_evaluation import read_results
from ..predictions.matching import AREA_RANGES, match_detections
from ..utils.json_files import read_json
from ..utils.messages import one_line, printable
from ..utils.progress import progress
from ..version import __version__
from .design import Design, Run
from .imbalance import find_imbalances
from .results import METRICS, ExperimentResult, RunResult, VariantResult
from .saved_costs import read_costs
from .state import error_of, last_ap
from .statistics import METHOD, Measured, RunKey, compare_variants, spread

# The variance of a difference is estimated from them with a relative standard error of 10 %, which
# the degrees of freedom of the interval take into account.
NUM_DRAWS = 200
_TOLERANCE = 0.01  # AP points between predictions and metrics.json, which rounds nothing


def read_experiment(design: Design, trust: bool = False) -> ExperimentResult:
    """
    Measure the finished runs of an experiment, and compare its variants with the baseline.

    Runs that are missing, have failed or cannot be read are listed with their error and left out.

    Args:
        trust: whether the configs of the runs may import the Python modules in their `IMPORTS`.
    """
    reader = _Reader(design, trust)
    runs = [reader.read(run) for run in progress(design.runs(), "Reading runs", unit="run")]
    costs = read_costs(design)
    variants = [
        VariantResult(
            name=variant.name,
            overrides=list(variant.overrides),
            metrics={m: spread([r.metrics[m] for r in own]) for m in METRICS},
            classes={c: spread([r.classes[c] for r in own]) for c in reader.classes},
            cost=costs.get(variant.name),
        )
        for variant in design.variants
        for own in [[r for r in runs if r.variant == variant.name and not r.error]]
    ]
    comparisons = compare_variants(
        reader.measured,
        design.baseline,
        reader.classes,
        {fold: len(images) for fold, images in reader.images.items()},
        num_planned=len(design.seeds) * max(design.folds, 1),
    )
    return ExperimentResult(
        name=os.path.basename(os.path.abspath(design.output)),
        baseline=design.baseline,
        command="",
        train=design.train,
        test=design.test or f"each of {design.folds} folds of the training set in turn",
        seeds=list(design.seeds),
        folds=design.folds,
        method=METHOD,
        variants=variants,
        runs=runs,
        comparisons=comparisons,
        imbalances=find_imbalances(design, runs, comparisons),
        libra_version=__version__,
    )


class _Reader:
    """
    Reads runs one after the other, so that the detections of only one are in memory.

    Attributes:
        measured: measured runs of each variant.
        images: ids of the test images of each fold.
        classes: names of the classes, which are the same in all runs.
    """

    def __init__(self, design: Design, trust: bool):
        self.design, self.trust = design, trust
        self.measured: Dict[str, Dict[RunKey, Measured]] = {v.name: {} for v in design.variants}
        self.images: Dict[int, List[Any]] = {}
        self.classes: List[str] = []

    def read(self, run: Run) -> RunResult:
        result = RunResult(
            variant=run.variant,
            seed=run.seed,
            fold=run.fold,
            folder=run.folder,
            error=error_of(self.design, run),
            metrics=dict.fromkeys(METRICS),
            classes={},
            seconds=None,
        )
        if result.error:
            return result
        try:
            measured = self._measure(run)
        except UserError as e:
            return replace(result, error=one_line(e))
        self.measured[run.variant][run.seed, run.fold] = measured
        values = [number(value) for value in measured.values]
        return replace(
            result,
            metrics=dict(zip(METRICS, values)),
            classes=dict(zip(self.classes, values[len(METRICS) :])),
            seconds=seconds_of(self.design.path(run.folder)),
        )

    def _measure(self, run: Run) -> Measured:
        folder = self.design.path(run.folder)
        cfg = load_cfg(os.path.join(folder, "config.yaml"), trust=self.trust, purpose="analyze")
        of, *others = evaluated_sets(cfg, folder)
        if others:
            names = ", ".join([of.dataset, *(other.dataset for other in others)])
            raise UserError(f"DATASETS.TEST must name one test set, got {names}. Choose one")
        matched = read_matched(of)
        self._check_same_data(run, of, matched)
        measures = _Measures(matched)
        values = measures.measure(np.ones(len(matched.data.images)))
        _check_final(of.predictions, values[0], last_ap(folder))
        weights = draws(len(matched.data.images), run.fold)
        return Measured(values, np.stack([measures.measure(w) for w in weights]))

    def _check_same_data(self, run: Run, of: EvaluatedSet, matched: MatchedDetections) -> None:
        """Raise an error if the classes differ from those of other runs, or the images do."""
        images = [image["id"] for image in matched.data.images]
        classes = [category["name"] for category in matched.data.categories]
        for what, own, known in (
            ("images", images, self.images.get(run.fold, images)),
            ("classes", classes, self.classes or classes),
        ):
            if own != known:
                raise UserError(
                    f"the {what} of {of.annotations} differ from those of the runs before it, so "
                    "they cannot be compared. Train it again with the data of the others"
                )
        self.images[run.fold], self.classes = images, classes


def read_matched(of: EvaluatedSet) -> MatchedDetections:
    """
    Read the detections of a run, and match them with the objects.

    Raises:
        UserError: a file is missing or wrong.
    """
    truth = read_coco(of.annotations)
    results = read_results(of.predictions, of.annotations, truth)
    limit = of.max_detections if of.max_detections >= 0 else largest_number(results)
    return MatchedDetections.of(truth, results, max_detections=limit)


class _Measures:
    """Measures a run on weighted images: the metrics, then the AP of each class, in points."""

    def __init__(self, matched: MatchedDetections):
        data, overlaps = matched.data, matched.overlaps
        of_sizes = [
            match_detections(data, overlaps, area_range=AREA_RANGES[area])
            for area in ("small", "medium", "large")
        ]
        self.averages = [AveragePrecision(data, m) for m in (matched.matches, *of_sizes)]

    def measure(self, weights: np.ndarray) -> np.ndarray:
        """
        Args:
            weights: (I,) numbers of copies of each image.

        Returns:
            (6 + K,), NaN where not defined.
        """
        ap, *of_sizes = (average.ap(weights) for average in self.averages)
        metrics = [mean_or_nan(part) for part in (ap, ap[0], ap[5], *of_sizes)]
        return 100 * np.concatenate([metrics, ap.mean(0)])


def draws(num_images: int, fold: int) -> np.ndarray:
    """
    Draw as many images as there are, with replacement, `NUM_DRAWS` times.

    Args:
        fold: each fold has its own draws, which are the same for all runs.

    Returns:
        (B, I) numbers of copies of each image.
    """
    rng = np.random.default_rng(fold)
    return np.stack(
        [
            np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
            for _ in range(NUM_DRAWS)
        ]
    ).astype(np.float64)


def seconds_of(folder: str) -> Optional[float]:
    """
    Return how long a finished run took, from its start until the name of its last checkpoint was
    written, after the last evaluation; None if it was interrupted, or there is no record of it.
    """
    try:
        (start,) = read_json(os.path.join(folder, "run.json"))
        begin = datetime.fromisoformat(start["start_time"]).timestamp()
        seconds = os.path.getmtime(os.path.join(folder, "last_checkpoint")) - begin
    except (UserError, OSError, ValueError, TypeError, KeyError):
        return None
    return round(seconds, 1) if seconds >= 0 else None


def _check_final(predictions: str, ap: float, at_end: Optional[float]) -> None:
    """Raise an error if the predictions are not those of the evaluation at the end of training."""
    if at_end is not None and abs(ap - at_end) > _TOLERANCE:
        raise UserError(
            f"{printable(predictions)} gives AP {ap:.2f}, but the training ended with AP "
            f"{at_end:.2f}. The run was evaluated again with other weights or settings: evaluate "
            "model_final.pth with the settings of the run"
        )
