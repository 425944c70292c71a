"""The score from which detections are drawn."""

import glob
import os
from typing import Tuple

from ..evaluation.analysis.files import read_analysis
from ..utils.messages import printable

DEFAULT = 0.5


def draw_threshold(run: str = "", dataset: str = "") -> Tuple[float, str]:
    """
    Args:
        run: folder of a run, or "" if it is not known.
        dataset: whose analysis counts if there are several.

    Returns:
        The threshold of the best F1 in the run's analysis if there is one, else 0.5; and where it
        is from, in words.

    Raises:
        UserError: the analysis cannot be read, or was written by another version.
    """
    if not run:
        return DEFAULT, "the default; --model RUN takes the best one of the run's analysis"
    folder = os.path.join(glob.escape(run), "analysis")
    found = sorted(glob.glob(os.path.join(folder, "analysis.json")))
    if not found:
        one = glob.escape(dataset) if dataset else "*"
        found = sorted(glob.glob(os.path.join(folder, one, "analysis.json")))
    if len(found) > 1:
        return DEFAULT, f"the default, as {printable(run)} has analyses of {len(found)} data sets"
    best = read_analysis(found[0]).overall.best_threshold if found else None
    if best is None:
        return DEFAULT, f"the default; libra-d2 analyze --model {printable(run)} finds the best one"
    return best, f"the best F1 in {printable(found[0])}"


def run_of_predictions(path: str) -> Tuple[str, str]:
    """
    The run's folder and the name of the data set, of `RUN/inference/DATASET/FILE`; "" and "" for
    predictions that do not lie in a run.
    """
    folder = os.path.dirname(os.path.abspath(path))
    run = os.path.dirname(os.path.dirname(folder))
    is_run = os.path.basename(os.path.dirname(folder)) == "inference"
    if is_run and os.path.isfile(os.path.join(run, "config.yaml")):
        return run, os.path.basename(folder)
    return "", ""
