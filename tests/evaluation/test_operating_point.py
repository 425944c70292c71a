"""Precision, recall and F1 at score thresholds, and `libra-d2 evaluate --score-threshold`."""

import json

import pytest

from libra_d2.cli.main import main
from libra_d2.evaluation.operating_point import operating_point
from libra_d2.predictions.score_thresholds import ScoreThresholds

from ..support.best_thresholds import write_best
from ..support.small_analysis import CAT, DOG, dataset


def case():
    """A cat found with 0.9 and a false one with 0.8; a dog found with 0.3, a false one with 0.2."""
    far = [400.0, 300.0, 50.0, 50.0]
    return dataset(
        [(1, 7, CAT), (1, 9, DOG)],
        [(1, 7, CAT, 0.9), (1, 7, far, 0.8), (1, 9, DOG, 0.3), (1, 9, far, 0.2)],
    )


def test_each_class_has_its_own_threshold():
    point = operating_point(*case(), ScoreThresholds(0.5, {"cat": 0.85, "dog": 0.3}, "here"))
    cat, dog = point.classes
    assert (cat.threshold, cat.tp, cat.fp, cat.fn) == (0.85, 1, 0, 0)
    assert (dog.threshold, dog.tp, dog.fp, dog.fn) == (0.3, 1, 0, 0), "a score equal to it counts"
    assert (point.overall.threshold, point.overall.f1) == (None, 1)
    assert "(here), at an IoU of 0.5 or more" in point.table()


def test_one_threshold_for_all():
    point = operating_point(*case(), ScoreThresholds(0.5))
    cat, dog = point.classes
    assert (cat.precision, cat.recall) == (0.5, 1)
    assert (dog.precision, dog.recall, dog.f1) == (None, 0, 0), "of no detections"
    assert (point.overall.threshold, point.overall.tp, point.overall.fp) == (0.5, 1, 1)


def test_classes_without_a_threshold_are_named(caplog):
    point = operating_point(*case(), ScoreThresholds(0.3, {"cat": 0.85}))
    assert "There is no score threshold for dog. That of all classes, 0.3" in caplog.text
    assert point.classes[1].threshold == 0.3
    caplog.clear()
    operating_point(*case(), ScoreThresholds(0.3))
    assert caplog.text == "", "one number is for all classes"


def test_without_objects_and_detections():
    content, _ = dataset([], [])
    point = operating_point(content, [], ScoreThresholds(0.5))
    assert point.overall.recall is None and point.overall.num_objects == 0
    assert "| all " in point.table()


@pytest.fixture
def files(here):
    content, results = case()
    (here / "truth.json").write_text(json.dumps(content))
    folder = here / "run/inference/set"
    folder.mkdir(parents=True)
    (folder / "coco_instances_results.json").write_text(json.dumps(results))
    (here / "run/config.yaml").touch()
    return ["evaluate", "--predictions", str(folder / "coco_instances_results.json")] + [
        *("--annotations", "truth.json", "--output", "metrics.json", "--backend", "pycocotools")
    ]


def metrics():
    with open("metrics.json") as f:
        return json.load(f)


def test_the_command(files, here, capsys):
    assert main(files) == 0
    plain = metrics()
    assert plain.keys() == {"bbox"} and "From the score" not in capsys.readouterr().out

    assert main([*files, "--score-threshold", "best"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"has no analysis. Run `libra-d2 analyze --model {here}/run`" in error

    path = write_best(here / "run/analysis", 0.5, {"cat": 0.85, "dog": 0.3})
    for value in ("best", path):
        assert main([*files, "--score-threshold", value]) == 0
        assert metrics()["bbox"] == plain["bbox"], "the threshold changes COCO's metrics"
        assert metrics()["at_score_thresholds"]["overall"]["f1"] == 1
        assert "| cat " in capsys.readouterr().out
    assert main([*files, "--score-threshold", "0.5"]) == 0
    assert metrics()["at_score_thresholds"]["overall"]["fp"] == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (["--score-threshold", "1.5"], "--score-threshold must be in [0, 1], got 1.5"),
        (["--score-threshold", "nan"], "--score-threshold must be in [0, 1], got nan"),
        (["--score-threshold", "none.json"], "none.json"),
        (["--score-threshold", "0.5", "--iou-type", "segm"], "only be used with --iou-type bbox"),
    ],
)
def test_mistakes(files, capsys, options, message):
    assert main([*files, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_word_that_is_no_threshold(files, capsys):
    with pytest.raises(SystemExit):
        main([*files, "--score-threshold", "bets"])
    assert "must be a number in [0, 1], best, or the path of an" in capsys.readouterr().err
