"""An `analysis.json` with score thresholds that a test chooses."""

import json
from pathlib import Path

from ..visualization.random_analysis import random_analysis


def write_best(folder, overall, classes, weights=None) -> str:
    """Write the analysis into a folder. `classes` are thresholds by name, or names."""
    content = random_analysis()
    content["overall"]["best_threshold"] = overall
    if overall is None:
        content["best_thresholds"] = None
    else:
        if not isinstance(classes, dict):
            classes = dict.fromkeys(classes, overall)
        best = {"overall": overall, "classes": classes, "from_overall": {}}
        content["best_thresholds"] = best
    if weights:
        content["settings"]["weights"] = weights
    path = Path(folder, "analysis.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)
