"""Which analysis gives the best score thresholds, and what is drawn without one."""

import json

import pytest

from libra_d2.errors import UserError
from libra_d2.evaluation.run_thresholds import (
    NoBestThresholdsError,
    best_of_run,
    run_of_predictions,
    thresholds_for_drawing,
)

from ..support.best_thresholds import write_best
from ..visualization.random_analysis import random_analysis


def drawn(run, dataset=""):
    return thresholds_for_drawing(lambda: best_of_run(str(run), dataset))


def test_which_analysis_counts(tmp_path):
    assert drawn("").overall == drawn(tmp_path).overall == 0.5
    write_best(tmp_path / "analysis/a", 0.3, {"cat": 0.2})
    assert drawn(tmp_path).of("cat") == 0.2 and drawn(tmp_path).of("unknown") == 0.3
    second = write_best(tmp_path / "analysis/b", None, {})
    assert drawn(tmp_path).overall == 0.5 and "2 data sets" in drawn(tmp_path).source
    assert drawn(tmp_path, "a").of("cat") == 0.2
    assert drawn(tmp_path, "b").overall == 0.5  # no detection finds an object
    for content in ({"version": 2}, {**random_analysis(), "overall": {}}):
        with open(second, "w") as f:
            json.dump(content, f)
        with pytest.raises(UserError, match=r"b/analysis\.json.*Run `libra-d2 analyze` again"):
            drawn(tmp_path, "b")
    write_best(tmp_path / "analysis", 0.7, {})  # of a run with one data set
    assert drawn(tmp_path).overall == 0.7


@pytest.mark.parametrize(
    "analyses, message",
    [
        ([], r"has no analysis\. Run `libra-d2 analyze --model .*` to find"),
        (["a"], r"analysis/a/analysis.json has no best score thresholds, as no detection finds"),
        (
            ["a", "b"],
            r"2 data sets\. Choose one with --score-threshold .*analysis/a/analysis\.json",
        ),
    ],
)
def test_the_reason_is_one_line_with_what_to_do(tmp_path, analyses, message):
    for name in analyses:
        write_best(tmp_path / "analysis" / name, None, {})
    with pytest.raises(NoBestThresholdsError, match=message) as e:
        best_of_run(str(tmp_path))
    assert "\n" not in str(e.value)


def test_the_run_of_predictions(tmp_path):
    inner = str(tmp_path / "inference/a/x.json")
    assert run_of_predictions(inner) == ("", "")
    (tmp_path / "config.yaml").touch()
    assert run_of_predictions(inner) == (str(tmp_path), "a")
