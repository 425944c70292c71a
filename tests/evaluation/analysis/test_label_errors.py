"""Probable errors of labels: planted ones are found, and right labels are not suspected."""

import copy
import json

import numpy as np
import pytest

from libra_d2.cli.main import main
from libra_d2.evaluation.analysis.detector_analysis import analyze
from libra_d2.evaluation.analysis.label_errors import isotonic
from libra_d2.evaluation.analysis.result_json import from_json, to_json
from libra_d2.evaluation.analysis.results import Analysis

NUM_IMAGES = 20


def place(i):
    """Nine objects an image, 100 pixels apart, 60 large."""
    return [20.0 + 100 * (i % 3), 20.0 + 100 * (i // 3), 60.0, 60.0]


def right_labels():
    annotations = [
        {"id": f"a{9 * n + i}", "image_id": n, "category_id": 5 + i % 2, "bbox": place(i)}
        for n in range(NUM_IMAGES)
        for i in range(9)
    ]
    return {
        "images": [
            {"id": n, "file_name": f"{n:02}.jpg", "width": 320, "height": 320}
            for n in range(NUM_IMAGES)
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
        "annotations": annotations,
    }


def detections(truth, seed=0):
    """Those of a good detector: boxes a pixel or two off, scores from 0.8 on, some false ones."""
    rng = np.random.default_rng(seed)
    found = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": (np.array(a["bbox"]) + rng.uniform(-2, 2, 4)).tolist(),
            "score": float(rng.uniform(0.8, 1)),
        }
        for a in truth["annotations"]
    ]
    found += [
        {"image_id": n, "category_id": 5, "bbox": [0.0, 0.0, 15.0, 15.0], "score": 0.3}
        for n in range(NUM_IMAGES)
    ]
    return found


@pytest.fixture
def planted():
    """The labels with an error of each kind in an image of its own, and the detections."""
    truth = right_labels()
    results = detections(truth)
    truth = copy.deepcopy(truth)
    by_id = {a["id"]: a for a in truth["annotations"]}
    by_id["a40"]["category_id"] = 6  # image 4, a cat
    by_id["a58"]["bbox"][0] += 25  # image 6: IoU 0.41
    by_id["a77"]["bbox"][2] = 40  # image 8: IoU 0.67
    truth["annotations"].remove(by_id["a94"])  # image 10
    return truth, results


def test_the_planted_errors_come_first(planted):
    errors = analyze(*planted).label_errors
    assert {(e.kind, e.annotation_id, e.file_name) for e in errors[:4]} == {
        ("wrong class", "a40", "04.jpg"),
        ("badly placed", "a58", "06.jpg"),
        ("badly placed", "a77", "08.jpg"),
        ("missing label", None, "10.jpg"),
    }
    suspicions = [e.suspicion for e in errors]
    assert suspicions == sorted(suspicions, reverse=True) and 0 < suspicions[-1] <= 1
    by_kind = {e.kind: e for e in reversed(errors[:4])}
    wrong, missing = by_kind["wrong class"], by_kind["missing label"]
    assert (wrong.class_name, wrong.detected_class, wrong.bbox) == ("dog", "cat", place(4))
    assert missing.class_name is None and missing.bbox is None and missing.score >= 0.8
    assert missing.detected_bbox == pytest.approx(place(94 % 9), abs=3)
    assert by_kind["badly placed"].class_name == by_kind["badly placed"].detected_class


def test_images_are_ranked_by_what_there_is_to_correct(planted):
    truth, results = planted
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] != 15]
    first = analyze(truth, results).images_to_check[0]
    assert (first.file_name, first.missing_labels) == ("15.jpg", 9), "an image without labels"
    assert first.expected_corrections > 1


@pytest.mark.parametrize("seed", range(3))
def test_right_labels_are_hardly_suspected(seed):
    truth = right_labels()
    errors = analyze(truth, detections(truth, seed)).label_errors
    assert all(e.suspicion < 0.1 for e in errors)
    assert {e.kind for e in errors} <= {"badly placed"}


def test_what_is_no_error():
    """A crowd, a second detection of an object, and a surer detection of the labelled class."""
    truth = right_labels()
    truth["annotations"].append(
        {"id": "crowd", "image_id": 0, "category_id": 5, "bbox": [0, 0, 320, 320], "iscrowd": 1}
    )
    results = detections(truth)[:-1]
    more = [
        {"image_id": 0, "category_id": 5, "bbox": [150.0, 150.0, 20.0, 20.0], "score": 0.95},
        {"image_id": 1, "category_id": 5, "bbox": place(0), "score": 0.79},
        {"image_id": 2, "category_id": 6, "bbox": place(0), "score": 0.79},
    ]
    before, after = (analyze(truth, r).label_errors for r in (results, results + more))
    assert len(after) == len(before)


def test_without_detections_and_without_objects():
    truth = right_labels()
    assert analyze(truth, []).label_errors == [] == analyze(truth, []).images_to_check
    truth["annotations"] = []
    assert analyze(truth, detections(right_labels())).label_errors == []


def test_the_files(planted, here):
    truth, results = planted
    for name, content in (("truth", truth), ("found", results)):
        (here / f"{name}.json").write_text(json.dumps(content))
    command = "analyze --predictions found.json --annotations truth.json --output out --no-report"
    assert main(command.split()) == 0
    head, *rows = (here / "out/label_errors.csv").read_text().splitlines()
    analysis = analyze(truth, results)
    assert len(rows) == len(analysis.label_errors)
    wrong = next(dict(zip(head.split(","), r.split(","))) for r in rows if "wrong class" in r)
    assert (wrong["annotation_id"], wrong["class_name"], wrong["x"]) == ("a40", "dog", "120.0")
    assert len((here / "out/to_check.csv").read_text().splitlines()) > 4
    content = json.loads(to_json(analysis))
    assert from_json(Analysis, content, "x").label_errors == analysis.label_errors
    del content["label_errors"], content["images_to_check"]
    assert from_json(Analysis, content, "x").label_errors == [], "of an older version"


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_fit_falls_and_is_the_closest(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2, 30).astype(float)
    fit = isotonic(values)
    assert (np.diff(fit) <= 1e-12).all() and len(fit) == 30

    def cost(f):
        return ((f - values) ** 2).sum() + (f[0] - 0.5) ** 2  # with the value before the first

    for _ in range(20):
        other = -np.sort(-np.clip(fit + rng.normal(0, 0.1, 30), 0, 1))
        assert cost(fit) <= cost(other) + 1e-9
    assert isotonic(np.zeros(0)).tolist() == []
