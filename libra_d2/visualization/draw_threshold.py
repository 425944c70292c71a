"""The score from which detections are drawn."""

import glob
import os
from typing import Optional, Tuple

from ..utils.json_files import read_json
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
        UserError: the analysis cannot be read.
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
    best = _best_threshold(found[0]) if found else None
    if best is None:
        return DEFAULT, f"the default; libra-d2 analyze --model {printable(run)} finds the best one"
    return best, f"the best F1 in {printable(found[0])}"


def _best_threshold(path: str) -> Optional[float]:
    analysis = read_json(path, what="analysis")
    overall = analysis.get("overall") if isinstance(analysis, dict) else None
    best = overall.get("best_threshold") if isinstance(overall, dict) else None
    if isinstance(best, bool) or not isinstance(best, (int, float)) or not 0 <= best <= 1:
        return None
    return float(best)


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
