"""Choose the score threshold for drawing detections."""

import glob
import os
from typing import Tuple

from ..evaluation.analysis.files import read_analysis
from ..utils.messages import printable

DEFAULT = 0.5


def draw_threshold(run: str = "", dataset: str = "") -> Tuple[float, str]:
    """
    Return the threshold with the best F1 in the analysis of a run, or 0.5 without an analysis.

    Args:
        run: folder of a run, or "" if it is not known.
        dataset: data set whose analysis is used if there are several.

    Returns:
        The threshold, and a text that says where it comes from.

    Raises:
        UserError: the analysis cannot be read, or was written by another version.
    """
    if not run:
        return DEFAULT, "the default. Use --model RUN for the best one of its analysis"
    folder = os.path.join(glob.escape(run), "analysis")
    found = sorted(glob.glob(os.path.join(folder, "analysis.json")))
    if not found:
        one = glob.escape(dataset) if dataset else "*"
        found = sorted(glob.glob(os.path.join(folder, one, "analysis.json")))
    if len(found) > 1:
        source = f"the default, because {printable(run)} has analyses of {len(found)} data sets"
        return DEFAULT, source
    best = read_analysis(found[0]).overall.best_threshold if found else None
    if best is None:
        command = f"libra-d2 analyze --model {printable(run)}"
        return DEFAULT, f"the default. Run `{command}` to find the best one"
    return best, f"the threshold with the best F1 in {printable(found[0])}"


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
