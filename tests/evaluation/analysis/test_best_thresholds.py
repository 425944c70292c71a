"""The score threshold of each class."""

import json
from dataclasses import replace

import numpy as np
import pytest

from libra_d2.evaluation.analysis.best_thresholds import (
    MIN_OBJECTS,
    best_thresholds,
    threshold_notes,
    thresholds_in,
)
from libra_d2.evaluation.analysis.detector_analysis import analyze
from libra_d2.evaluation.analysis.result_json import from_json, to_json
from libra_d2.evaluation.analysis.results import Analysis
from libra_d2.evaluation.operating_point import operating_point
from libra_d2.predictions.score_thresholds import ScoreThresholds

from ...support.small_analysis import dataset
from ..random_detections import random_dataset


def box(i):
    return [20.0 * i, 0.0, 10.0, 10.0]


def many(num_dogs=MIN_OBJECTS):
    """
    Twelve cats, the first ten found with 0.9 to 0.45, and false cats from 0.4 on. `num_dogs` dogs
    are found with 0.2, as well as one false dog with 0.1.
    """
    cats = [(1, 7, box(i)) for i in range(12)]
    dogs = [(2, 9, box(i)) for i in range(num_dogs)]
    found = [(1, 7, box(i), 0.9 - 0.05 * i) for i in range(10)]
    found += [(2, 7, [20.0 * i, 300.0, 10.0, 10.0], 0.4 - 0.01 * i) for i in range(9)]
    found += [(2, 9, box(i), 0.2) for i in range(num_dogs)] + [(1, 9, box(30), 0.1)]
    return dataset(cats + dogs, found, num_images=2)


def test_by_hand():
    best = analyze(*many()).best_thresholds
    assert best.classes == {"cat": 0.45, "dog": 0.2} and best.overall == 0.2
    assert best.from_overall == {}


def test_a_class_with_few_objects_has_the_overall_one():
    """Its own would be 0.2, from too few objects to tell."""
    analysis = analyze(*many(MIN_OBJECTS - 1))
    best = analysis.best_thresholds
    assert analysis.classes[1].best_threshold == 0.2
    assert best.classes == {"cat": 0.45, "dog": best.overall}
    assert best.from_overall == {"dog": f"it has {MIN_OBJECTS - 1} objects, fewer than 10"}
    notes = threshold_notes(analysis)
    assert len(notes) == 2 and notes[1].startswith(
        f"For dog, they use {best.overall:.3f}, the best"
    )


def test_a_class_that_is_never_found_has_the_overall_one():
    content, results = many()
    results = [r for r in results if r["category_id"] == 7]
    best = analyze(content, results).best_thresholds
    assert best.classes == {"cat": 0.45, "dog": 0.45}
    assert best.from_overall == {"dog": "none of its 10 objects is found"}


def test_nothing_found_gives_no_thresholds():
    content, _ = many()
    for results in ([], [{"image_id": 2, "category_id": 7, "bbox": box(20), "score": 0.5}]):
        analysis = analyze(content, results)
        assert analysis.best_thresholds is None and thresholds_in(analysis) is None
        assert threshold_notes(analysis) == []
        assert "best_thresholds" not in json.loads(to_json(analysis))


def test_an_analysis_of_an_older_version_gives_the_same():
    analysis = analyze(*many(3))
    content = json.loads(to_json(analysis))
    assert content.pop("best_thresholds")
    old = from_json(Analysis, content, "analysis.json")
    assert old.best_thresholds is None and thresholds_in(old) == analysis.best_thresholds


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("iou", [0.5, 0.7])
def test_no_other_score_is_better(seed, iou):
    """Of all scores of a class, the chosen one has the best F1; also after rounding."""
    content, results = random_dataset(seed, num_images=20, num_classes=2)
    analysis = analyze(content, results, iou_threshold=iou)
    own = best_thresholds(
        analysis.overall, [replace(c, num_objects=MIN_OBJECTS) for c in analysis.classes]
    )

    def f1(name, threshold):
        at = operating_point(content, results, ScoreThresholds(threshold), iou_threshold=iou)
        return next(c.f1 for c in at.classes if c.name == name)

    ids = {c["name"]: c["id"] for c in content["categories"]}
    for name, chosen in own.classes.items():
        scores = [r["score"] for r in results if r["category_id"] == ids[name]]
        some = np.random.default_rng(seed).choice(scores, 15)
        assert f1(name, chosen) >= max(f1(name, s) for s in some) > 0
