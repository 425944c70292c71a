"""The work of `libra-d2 analyze`: read predictions and annotations, write the analysis."""

import filecmp
import logging
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from ..data.checks.config_limits import limits_of_coco
from ..data.datasets.coco_format import read_coco
from ..engine import load_cfg
from ..errors import UserError
from ..evaluation.analysis.detector_analysis import analyze_matched
from ..evaluation.analysis.files import (
    REPORT,
    analysis_files,
    analysis_table,
    comparison_table,
    write_analysis,
    write_comparison,
)
from ..evaluation.analysis.matched_detections import MatchedDetections
from ..evaluation.analysis.results import Analysis
from ..evaluation.analysis.run_comparison import compare
from ..evaluation.coco_metrics import largest_number, uncounted
from ..evaluation.evaluated_sets import evaluated_sets
from ..evaluation.file_evaluation import read_results
from ..predictions.saved_predictions import weights_of
from ..utils.extras import import_extra
from ..utils.files import check_outputs, make_folder_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What to analyze and how. `compare_with` and `compare_name` are "" without a second run."""

    predictions: str
    annotations: str
    output: str
    images: str = ""
    name: str = ""
    score_threshold: Optional[float] = None
    iou_threshold: float = 0.5
    max_detections: int = 100  # negative: all
    limits: Tuple[str, ...] = ()  # limits that the config sets to the results, a sentence each
    compare_with: str = ""
    compare_name: str = ""
    samples: int = 1000
    seed: int = 0
    report: bool = True
    allow_outside: bool = False


def run_analysis(task: Task) -> str:
    """
    Write `analysis.json`, the CSV files and `report.html`; for two runs, also `compare.json` and
    `compare.csv`.

    Returns:
        The results as tables to print.

    Raises:
        UserError: a file or a setting is invalid.
    """
    if task.score_threshold is not None and not 0 <= task.score_threshold <= 1:
        raise UserError(f"the score threshold must be in [0, 1], got {task.score_threshold}")
    if task.images and not os.path.isdir(task.images):
        raise UserError(f"image folder {task.images} does not exist")
    check_outputs(
        {"--output": analysis_files(task.output, compared=bool(task.compare_with))},
        {
            "--predictions": task.predictions,
            "--annotations": task.annotations,
            "--compare": task.compare_with,
        },
    )
    write_report = _report_writer() if task.report else None
    truth = read_coco(task.annotations)
    name = task.name or _stem(task.predictions)
    matched, analysis = _analyze(task, truth, task.predictions, name)
    parts = [analysis_table(analysis)]
    other = comparison = None
    if task.compare_with:
        other_name = task.compare_name or _stem(task.compare_with)
        second, other = _analyze(task, truth, task.compare_with, other_name)
        comparison = compare(
            matched,
            second,
            names=(name, other_name),
            score_threshold=task.score_threshold,
            samples=task.samples,
            seed=task.seed,
        )
        parts.append(comparison_table(comparison))
    report = os.path.join(task.output, REPORT)
    make_folder_of(report)
    write_analysis(task.output, analysis)
    if comparison:
        write_comparison(task.output, comparison)
    if write_report:
        write_report(
            report,
            analysis,
            other=other,
            comparison=comparison,
            allow_outside=task.allow_outside,
        )
    return "\n\n".join(parts)


def tasks_of_run(folder: str, output: str = "", trust: bool = False) -> List[Task]:
    """
    Return one task per test set of a run, for the predictions of the run's last evaluation.

    Args:
        folder: folder of the run.
        output: folder to write to, by default `analysis` in the run's folder. If there are several
            test sets, each has a subfolder.
        trust: whether the run's config may import the Python modules in its `IMPORTS`.

    Raises:
        UserError: the run, its data or its predictions do not exist.
    """
    config = os.path.join(folder, "config.yaml")
    if not os.path.isfile(config):
        raise UserError(f"{config} does not exist, so {folder} is not the folder of a run")
    cfg = load_cfg(config, trust=trust, purpose="analyze")
    sets = evaluated_sets(cfg, folder)
    ret = []
    output = output or os.path.join(folder, "analysis")
    for of in sets:
        ret.append(
            Task(
                of.predictions,
                of.annotations,
                os.path.join(output, of.dataset) if len(sets) > 1 else output,
                images=of.images,
                name=f"{os.path.basename(os.path.abspath(folder))}, {of.dataset}",
                max_detections=of.max_detections,
                limits=tuple(
                    f.line() for f in limits_of_coco(read_coco(of.annotations), cfg, of.dataset)
                ),
            )
        )
    return ret


def predictions_of_run(folder: str, annotations: str, trust: bool = False) -> str:
    """
    Return the predictions of a run's last evaluation on the test set with these annotations.

    Raises:
        UserError: the run has no such test set, or was not evaluated.
    """
    tasks = tasks_of_run(folder, trust=trust)
    for task in tasks:
        if os.path.realpath(task.annotations) == os.path.realpath(annotations):
            return task.predictions
    for task in tasks:
        if filecmp.cmp(task.annotations, annotations, shallow=False):
            return task.predictions
    theirs = ", ".join(task.annotations for task in tasks)
    raise UserError(
        f"--compare must be a run that was evaluated on {annotations}, but {folder} was evaluated "
        f"on {theirs}. Evaluate both runs on the same test set"
    )


def _analyze(
    task: Task, truth: Dict[str, Any], predictions: str, name: str
) -> Tuple[MatchedDetections, Analysis]:
    results = read_results(predictions, task.annotations, truth)
    limit = task.max_detections if task.max_detections >= 0 else largest_number(results)
    beyond = uncounted(results, limit)
    if beyond:
        logger.warning(f"{predictions}: {beyond}")
    matched = MatchedDetections.of(
        truth, results, iou_threshold=task.iou_threshold, max_detections=limit
    )
    analysis = analyze_matched(
        matched,
        task.score_threshold,
        limit,
        predictions_path=predictions,
        annotations_path=task.annotations,
        images_folder=task.images,
        name=name,
        weights=weights_of(predictions),
        limits=[*task.limits, *([beyond] if beyond else [])],
    )
    return matched, analysis


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _report_writer():
    try:
        for package in ("plotly", "jinja2"):
            import_extra(package, "report", "HTML reports")
    except UserError as e:
        logger.warning(f"report.html is not written: {e}")
        return None
    from ..visualization.report import write_report

    return write_report
