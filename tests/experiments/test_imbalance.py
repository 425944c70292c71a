"""Each rule finds the level that its docstring gives, and says nothing without its measurement."""

import json

import pytest

from libra_d2.experiments.design import Design, Variant
from libra_d2.experiments.imbalance import (
    RULES,
    Measurements,
    class_imbalance,
    find_imbalances,
    hard_negatives,
    measurements,
    objects_per_image,
    outlier_gradients,
    scale_spread,
)
from libra_d2.experiments.results import Comparison, RunResult


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_said_without_measurements(rule):
    assert rule(Measurements()) is None


@pytest.mark.parametrize("share, level", [(0.29, "high"), (0.3, "medium"), (0.6, "low")])
def test_hard_negatives(share, level):
    balance = {"hard_negatives/sampled": share, "hard_negatives/all": 0.1}
    found = hard_negatives(Measurements(balance=balance))
    assert (found.level, found.component) == (level, "sampling")
    assert f"{share:.0%} of the sampled negatives" in found.measured
    assert "10% of all negatives" in found.measured
    assert ("not expected" in found.expectation) == (level == "low")


@pytest.mark.parametrize("objects, level", [(19, "low"), (20, "medium"), (70, "high")])
def test_objects_per_image(objects, level):
    found = objects_per_image(Measurements(num_images=10, classes={"a": objects - 3, "b": 3}))
    assert (found.level, found.component) == (level, "sampling")
    assert f"{objects / 10:.1f} objects per image." in found.measured


def test_a_detector_that_does_not_sample_has_no_use_for_balanced_sampling():
    of = Measurements(10, {"a": 70}, balance={"level_spread/before": 2.0})
    assert objects_per_image(of) is None


@pytest.mark.parametrize("large, level", [(19, "low"), (20, "medium"), (80, "high")])
def test_scale_spread(large, level):
    found = scale_spread(Measurements(sides=(10, large), balance={"level_spread/before": 3.0}))
    assert (found.level, found.component) == (level, "bfp")
    assert f"from 10 to {large} pixels, a ratio of {large / 10:.1f}." in found.measured
    assert "The strongest level of the feature pyramid is 3.0 times the weakest." in found.measured


@pytest.mark.parametrize(
    "gradient, level",
    [
        (0.3 / 1.3, "high"),  # an inlier contributes 0.3 of an outlier's gradient
        (0.4 / 1.4, "medium"),
        (0.7 / 1.7, "low"),
    ],
)
def test_outlier_gradients(gradient, level):
    balance = {"easy_gradient/in_use": gradient, "easy_gradient/samples": 0.5}
    found = outlier_gradients(Measurements(balance=balance))
    assert (found.level, found.component) == (level, "loss")


@pytest.mark.parametrize("samples, gradient", [(1.0, 1.0), (0.0, 0.0), (0.5, 1.0)])
def test_without_inliers_or_outliers_there_is_nothing_to_compare(samples, gradient):
    balance = {"easy_gradient/in_use": gradient, "easy_gradient/samples": samples}
    assert outlier_gradients(Measurements(balance=balance)) is None


@pytest.mark.parametrize("rare, level", [(25, "low"), (24, "medium"), (6, "high")])
def test_class_imbalance(rare, level):
    found = class_imbalance(Measurements(classes={"a": 100, "b": rare, "c": 300, "none": 0}))
    assert (found.level, found.component) == (level, "")
    assert f"The rarest class, b, has {rare} objects" in found.measured
    assert "No component of Libra R-CNN" in found.expectation
    assert ("Repeat-factor sampling" in found.expectation) == (level != "low")


def test_one_class_is_not_imbalanced():
    assert class_imbalance(Measurements(classes={"a": 100})) is None


def write_run(folder, metrics, datasets=None):
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("\n".join(metrics))
    if datasets is not None:
        (folder / "data_check.json").write_text(json.dumps({"datasets": datasets}))
    return str(folder)


def checked(split, images, classes, sides=(10.0, 50.0)):
    """A data set in the report on the data."""
    percentiles = dict(zip(("5", "95"), sides))
    return {
        "split": split,
        "figures": {"images": images},
        "classes": classes,
        "details": {"sqrt_area_percentiles": percentiles},
    }


def test_measurements_are_averaged_over_steps_and_runs(tmp_path):
    sets = [checked("train", 10, {"a": 30}), checked("test", 5, {"a": 7})]
    first = write_run(
        tmp_path / "1",
        [
            '{"iteration": 49, "balance/hard_negatives/all": 0.1}',
            '{"iteration": 60, "total_loss": 1}',
            '{"iteration": 99, "balance/hard_negatives/all": 0.3}',
            '{"iteration": 149, "balance/hard_negatives/all": NaN}',
            '{"iteration": 199, "balance/ha',
        ],
        sets,
    )
    second = write_run(tmp_path / "2", ['{"iteration": 49, "balance/hard_negatives/all": 0.8}'])
    of = measurements([first, second])
    assert (of.num_images, of.classes, of.sides) == (10, {"a": 30}, (10.0, 50.0))
    assert of.balance == pytest.approx({"hard_negatives/all": 0.4})


def test_several_training_sets(tmp_path):
    sets = [checked("train", 10, {"a": 30}), checked("train", 5, {"a": 7, "b": 1})]
    of = measurements([write_run(tmp_path / "1", [], sets)])
    assert (of.num_images, of.classes, of.sides) == (15, {"a": 37, "b": 1}, None)


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"datasets": [{"split": "train"}]}', "{"])
def test_reports_that_do_not_help(content, tmp_path):
    folder = write_run(tmp_path / "1", [])
    if content is not None:
        (tmp_path / "1" / "data_check.json").write_text(content)
    assert measurements([folder]) == Measurements()


def test_outcomes_are_those_of_the_variants_with_the_components_names(tmp_path):
    write_run(tmp_path / "runs/base/seed1", [], [checked("train", 10, {"a": 70, "b": 3})])
    names = ("base", "bfp", "sampling")
    design = Design(
        base="c.yaml",
        variants=tuple(Variant(name, ()) for name in names),
        baseline="base",
        seeds=(1, 2),
        train="coco:a.json,a",
        test="coco:b.json,b",
        folds=0,
        group="",
        plan=False,
        output=str(tmp_path),
        overrides=(),
    )
    runs = [
        RunResult("base", 1, 0, "runs/base/seed1", "", {}, {}, None),
        RunResult("base", 2, 0, "runs/base/seed2", "failed", {}, {}, None),
    ]
    comparisons = [Comparison("bfp", [], [], 1, "BFP: no difference.")]
    found = {i.name: i.outcome for i in find_imbalances(design, runs, comparisons)}
    assert found == {
        "objects per image": "",
        "scale spread": "BFP: no difference.",
        "class imbalance": "",
    }
    assert find_imbalances(design, runs[1:], comparisons) == []
