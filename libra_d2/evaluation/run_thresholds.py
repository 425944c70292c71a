"""Find the best score thresholds of a run in its analysis, and those for drawing."""

import glob
import os
from typing import Callable, Tuple, Union

from ..errors import UserError
from ..predictions.score_thresholds import ScoreThresholds
from ..utils.arguments import BEST
from ..utils.messages import printable
from .analysis.best_thresholds import thresholds_in
from .analysis.files import read_analysis
from .analysis.results import Analysis

DRAW_DEFAULT = 0.5


class NoBestThresholdsError(UserError):
    """Says what to do so that there are best thresholds."""


def thresholds_for_drawing(find: Callable[[], ScoreThresholds]) -> ScoreThresholds:
    """
    Return the score thresholds of pictures if the user has not given one: the best ones, or 0.5
    for all classes if there are none.

    Args:
        find: returns the best thresholds or raises `NoBestThresholdsError`, such as
            :func:`best_of_run`.

    Raises:
        UserError: the analysis cannot be read, or was written by another version.
    """
    try:
        return find()
    except NoBestThresholdsError as e:
        return ScoreThresholds(DRAW_DEFAULT, source=f"the default, because {e}")


def best_of_run(run: str, dataset: str = "") -> ScoreThresholds:
    """
    Return the best score thresholds in the analysis of a run.

    Args:
        run: folder of a run, or "" if it is not known.
        dataset: data set whose analysis is used if there are several.

    Raises:
        NoBestThresholdsError: the run has no analysis, or several, or it gives no thresholds.
        UserError: the analysis cannot be read, or was written by another version.
    """
    return best_in_file(analysis_of_run(run, dataset))


def analysis_of_run(run: str, dataset: str = "") -> str:
    """
    Return the path of the `analysis.json` of a run. See :func:`best_of_run`.

    Raises:
        NoBestThresholdsError: the run has no analysis, or several.
    """
    if not run:
        raise NoBestThresholdsError(
            "the run is not known. Name it with --model, or an analysis.json with --score-threshold"
        )
    folder = os.path.join(glob.escape(run), "analysis")
    found = sorted(glob.glob(os.path.join(folder, "analysis.json")))
    if not found:
        one = glob.escape(dataset) if dataset else "*"
        found = sorted(glob.glob(os.path.join(folder, one, "analysis.json")))
    if len(found) > 1:
        raise NoBestThresholdsError(
            f"{printable(run)} has analyses of {len(found)} data sets. Choose one with "
            f"--score-threshold {printable(found[0])}"
        )
    if not found:
        raise NoBestThresholdsError(
            f"{printable(run)} has no analysis. Run `libra-d2 analyze --model {printable(run)}` to "
            "find the best score thresholds"
        )
    return found[0]


def best_in_file(path: str) -> ScoreThresholds:
    """
    Return the best score thresholds in an `analysis.json`.

    Raises:
        NoBestThresholdsError: the analysis gives no thresholds.
        UserError: the file cannot be read, or was written by another version.
    """
    return best_in_analysis(read_analysis(path), path)


def best_in_analysis(analysis: Analysis, path: str) -> ScoreThresholds:
    """
    Return the best score thresholds of an analysis.

    Args:
        path: of the analysis, for messages.

    Raises:
        NoBestThresholdsError: there are none.
    """
    best = thresholds_in(analysis)
    if best is None:
        raise NoBestThresholdsError(
            f"{printable(path)} has no best score thresholds, as no detection finds an object. "
            "Train the detector longer, or give a number with --score-threshold"
        )
    source = f"the thresholds with the best F1 in {printable(path)}"
    return ScoreThresholds(best.overall, best.classes, source)


def given_thresholds(
    value: Union[float, str], find: Callable[[], ScoreThresholds]
) -> ScoreThresholds:
    """
    Return the thresholds that a user has given with `--score-threshold`.

    Args:
        value: a number in [0, 1]; "best"; or the path of an `analysis.json`, whose best
            thresholds are taken.
        find: returns the best thresholds, for "best".

    Raises:
        UserError: the number is out of range, or there are no best thresholds.
    """
    if isinstance(value, str):
        return find() if value == BEST else best_in_file(value)
    if not 0 <= value <= 1:
        raise UserError(f"--score-threshold must be in [0, 1], got {value}")
    return ScoreThresholds(float(value), source="as given")


def run_of_predictions(path: str) -> Tuple[str, str]:
    """
    Return the folder of the run, and the name of the data set, that predictions belong to.

    Predictions of a run are in `RUN/inference/DATASET/FILE`. For other files, both are "".
    """
    folder = os.path.dirname(os.path.abspath(path))
    run = os.path.dirname(os.path.dirname(folder))
    is_run = os.path.basename(os.path.dirname(folder)) == "inference"
    if is_run and os.path.isfile(os.path.join(run, "config.yaml")):
        return run, os.path.basename(folder)
    return "", ""
