import numpy as np
import pytest

from libra_d2.errors import UserError
from libra_d2.evaluation.analysis.matched_detections import MatchedDetections
from libra_d2.evaluation.analysis.result_json import to_json
from libra_d2.evaluation.analysis.results import Counts, Difference, ImageChange
from libra_d2.evaluation.analysis.run_comparison import compare, two_sided_p
from libra_d2.evaluation.coco_metrics import coco_metrics

from ...support.pycocotools_ap import by_pycocotools
from ...support.small_analysis import CAT, DOG, dataset, small_case
from ..random_detections import random_dataset


def metrics(comparison):
    return {row.name: row for row in comparison.metrics}


def test_a_run_is_no_better_than_itself():
    run = MatchedDetections.of(*random_dataset(0))
    comparison = compare(run, run, samples=50)
    for row in comparison.metrics:
        assert row.difference == row.low == row.high == 0 and row.p_value == 1
    assert comparison.images == []
    assert comparison.samples == 50 and comparison.confidence == 0.95


def test_clearly_better_clearly_said():
    content, results = random_dataset(0, num_images=60)
    perfect = [{**a, "score": 0.9} for a in content["annotations"] if not a["iscrowd"]]
    a, b = MatchedDetections.of(content, results), MatchedDetections.of(content, perfect)
    comparison = compare(a, b, samples=200, names=("old", "new"), seed=1)
    assert (comparison.a, comparison.b) == ("old", "new")
    precision, _ = by_pycocotools(content, results)
    precision = precision[:, :, :, 0, 2]
    for name, row in metrics(comparison).items():
        assert row.b == 1 and row.difference == pytest.approx(1 - row.a, abs=1e-6)
        assert 0 < row.low < row.difference < row.high < 1
        assert row.p_value == pytest.approx(2 / 201, abs=1e-6), name
    assert metrics(comparison)["AP"].a == pytest.approx(precision.mean(), abs=1e-6)
    assert [row.a for row in comparison.classes] == pytest.approx(precision.mean((0, 1)), abs=1e-6)
    assert type(comparison.classes[0]) is Difference, "a p-value of every class is not given"
    assert comparison == compare(a, b, samples=200, names=("old", "new"), seed=1)
    assert comparison != compare(a, b, samples=200, names=("old", "new"), seed=2)


def test_interval_of_a_known_distribution():
    """
    100 images of one object each, of which b finds 30 more than a: the difference in recall of a
    sample is a mean of 100 draws, with a standard deviation of sqrt(0.3 * 0.7 / 100).
    """
    objects = [(i, 7, CAT) for i in range(1, 101)]
    content, weak = dataset(objects, [(i, 7, CAT, 0.9) for i in range(1, 41)], num_images=100)
    _, strong = dataset(objects, [(i, 7, CAT, 0.9) for i in range(1, 71)], num_images=100)
    a, b = (MatchedDetections.of(content, r) for r in (weak, strong))
    row = metrics(compare(a, b, samples=2000))["recall"]
    deviation = np.sqrt(0.3 * 0.7 / 100)
    assert (row.a, row.b, row.difference) == (0.4, 0.7, 0.3)
    assert row.low == pytest.approx(0.3 - 1.96 * deviation, abs=0.02)
    assert row.high == pytest.approx(0.3 + 1.96 * deviation, abs=0.02)


def test_changed_images():
    content, results = small_case()
    better = [*results, {"image_id": 2, "category_id": 9, "bbox": [0, 0, 50, 50], "score": 0.8}]
    a, b = MatchedDetections.of(content, results), MatchedDetections.of(content, better)
    comparison = compare(a, b, samples=5, score_threshold=0.5)
    assert comparison.images == [
        ImageChange(
            image_id=2,
            file_name="2.jpg",
            a=Counts(tp=0, fp=0, fn=1),
            b=Counts(tp=1, fp=0, fn=0),
            change=1.0,
        )
    ]


@pytest.mark.parametrize(
    "case",
    [
        dataset([], []),
        dataset([(1, 7, CAT)], []),
        dataset([], [(1, 7, DOG, 0.5)]),
        dataset([(1, 7, CAT, {"iscrowd": 1})], [(1, 7, CAT, 0.5)]),
    ],
)
def test_odd_data_is_without_nan(case):
    run = MatchedDetections.of(*case)
    to_json(compare(run, run, samples=3))


def test_p_value_by_hand():
    assert two_sided_p(np.array([0.1] * 98 + [-0.1])) == pytest.approx(2 * 2 / 100)
    assert two_sided_p(np.zeros(99)) == 1


def test_no_samples():
    run = MatchedDetections.of(*small_case())
    with pytest.raises(UserError, match="samples must be at least 1, got 0"):
        compare(run, run, samples=0)


def test_progress_of_matching_and_of_the_bootstrap_is_shown(capsys, monkeypatch):
    monkeypatch.setattr("libra_d2.utils.progress.DELAY", 0)
    content, results = random_dataset(0)
    run = MatchedDetections.of(content, results)
    compare(run, run, samples=5)
    coco_metrics(content, results, backend="pycocotools")
    shown = capsys.readouterr().err
    assert "Comparing: 100%" in shown and "5/5" in shown
    assert shown.count("Matching detections: 100%") == 2
    assert f"{30 * 3 * 5}/{30 * 3 * 5}" in shown, "overlaps, and matching in 4 ranges of sizes"
    monkeypatch.undo()
    compare(run, run, samples=5)
    assert not capsys.readouterr().err, "what takes less than two seconds shows nothing"
