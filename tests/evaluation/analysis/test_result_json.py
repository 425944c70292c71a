import json
from dataclasses import replace

import pytest

from libra_d2.errors import UserError
from libra_d2.evaluation.analysis.detector_analysis import analyze
from libra_d2.evaluation.analysis.files import read_analysis, write_analysis
from libra_d2.evaluation.analysis.matched_detections import MatchedDetections
from libra_d2.evaluation.analysis.result_json import from_json, to_json
from libra_d2.evaluation.analysis.results import Analysis, RunComparison, number
from libra_d2.evaluation.analysis.run_comparison import compare

from ...support.small_analysis import small_case
from ..random_detections import random_dataset


@pytest.mark.parametrize("case", [small_case(), random_dataset(0)], ids=["small", "random"])
def test_what_is_read_equals_what_was_written(case, monkeypatch, tmp_path):
    analysis = analyze(*case)
    write_analysis(str(tmp_path), analysis)
    assert read_analysis(str(tmp_path / "analysis.json")) == analysis
    run = MatchedDetections.of(*case)
    other = MatchedDetections.of(case[0], case[1][::2])
    comparison = compare(run, other, samples=3)
    assert from_json(RunComparison, json.loads(to_json(comparison)), "x") == comparison
    monkeypatch.setattr("libra_d2.evaluation.analysis.detector_analysis.MAX_CLASSES", 1)
    part = analyze(*case)
    assert part.limits and part.confusion.largest_mix_ups
    assert from_json(Analysis, json.loads(to_json(part)), "x") == part


def test_limits_may_be_missing():
    """Files that were written from Python by older versions have none."""
    analysis = analyze(*small_case())
    content = json.loads(to_json(analysis))
    del content["limits"]
    assert from_json(Analysis, content, "x") == analysis


DETECTION = ("images", 0, "detections", 0)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("settings",), [], "settings must be an object, got []"),
        (("overall", "tp"), 1.5, "overall.tp must be an integer, got 1.5"),
        (("overall", "tp"), True, "overall.tp must be an integer, got True"),
        (("overall", "tp"), None, "overall.tp must be an integer, got None"),
        (("overall", "f1"), "x", "overall.f1 must be a number, got 'x'"),
        (("overall", "f1"), float("nan"), "overall.f1 must be a number, got nan"),
        (("classes",), {}, "classes must be a list, got {}"),
        (("classes", 1, "name"), 7, "classes[1].name must be a string, got 7"),
        (("curves",), [], "curves must be an object, got []"),
        (("curves", "cat", "score"), ["x"], "curves['cat'].score[0] must be a number, got 'x'"),
        (("images", 0, "objects", 0, "crowd"), 1, "objects[0].crowd must be true or false, got 1"),
        ((*DETECTION, "class"), None, "images[0].detections[0].class must be a string, got None"),
        ((*DETECTION, "bbox"), 3, "images[0].detections[0].bbox must be a list, got 3"),
    ],
)
def test_a_wrong_value_is_named(keys, value, message):
    content = json.loads(to_json(analyze(*small_case())))
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    with pytest.raises(UserError) as e:
        from_json(Analysis, content, "analysis.json")
    assert str(e.value).startswith("analysis.json: ") and message in str(e.value)
    assert str(e.value).endswith("Run `libra-d2 analyze` again")


@pytest.mark.parametrize("keys", [("tide",), ("overall", "best_f1"), (*DETECTION, "class")])
def test_a_missing_key_is_named(keys):
    content = json.loads(to_json(analyze(*small_case())))
    part = content
    for key in keys[:-1]:
        part = part[key]
    del part[keys[-1]]
    with pytest.raises(UserError, match=rf"{keys[-1]} is missing\. Run"):
        from_json(Analysis, content, "analysis.json")


@pytest.mark.parametrize("content", [{"version": 2}, {"version": None}, {}, [], None])
def test_a_file_of_another_version(content, tmp_path):
    version = content.get("version") if isinstance(content, dict) else None
    (tmp_path / "analysis.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"analysis\.json was .*format {version}, expected 1"):
        read_analysis(str(tmp_path / "analysis.json"))


def test_numbers():
    assert [number(v) for v in (1 / 3, float("nan"), float("inf"))] == [0.333333, None, None]
    analysis = analyze(*small_case())
    with pytest.raises(ValueError, match="JSON"):
        to_json(replace(analysis, overall=replace(analysis.overall, f1=float("nan"))))
