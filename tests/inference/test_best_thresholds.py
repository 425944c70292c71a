"""The best score threshold of each class in `infer`, `draw`, `Predictor` and `export`."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import libra_d2
from libra_d2.cli.main import main
from libra_d2.errors import UserError
from libra_d2.export.agreement import ExportReport
from libra_d2.inference import trained_detector
from libra_d2.inference.onnx_detector import OnnxDetector
from libra_d2.inference.trained_detector import load_detector
from libra_d2.predictions.detections import Detections
from libra_d2.predictions.saved_predictions import weights_hash

from ..support.best_thresholds import write_best
from .small_detector import NAMES, blots, write_images

NO_FUSE = {"run": ["--no-fuse"]}  # as Predictor, and faster to start


def found_by(*args):
    assert main(["infer", *map(str, args), *NO_FUSE.get(args[2], [])]) == 0
    with open("predictions.json") as f:
        return {k: e["predictions"] for k, e in json.load(f).items()}


@pytest.fixture(scope="module")
def detector(model, tmp_path_factory):
    """That of the folder `run`, loaded once."""
    folder = tmp_path_factory.mktemp("loaded")
    shutil.copytree(model, folder / "run")
    before = os.getcwd()
    os.chdir(folder)
    try:
        return load_detector("run", device="cpu")
    finally:
        os.chdir(before)


@pytest.fixture
def run(detector, here, monkeypatch):
    """Images, what the run finds in them, and a threshold of each class within that."""
    monkeypatch.setattr(trained_detector, "load_detector", lambda *args, **kwargs: detector)
    write_images(here / "images", 3)
    found = found_by("images", "--model", "run")
    thresholds = {}
    for i, name in enumerate(NAMES):
        scores = [p["score"] for e in found.values() for p in e if p["class"]["name"] == name]
        thresholds[name] = sorted(scores)[len(scores) * (i + 1) // 5] if scores else 0.5
    return found, thresholds


def above(found, thresholds):
    return {
        key: [p for p in entry if p["score"] >= thresholds[p["class"]["name"]]]
        for key, entry in found.items()
    }


def test_infer_and_predictor_keep_what_the_analysis_counts(run, here, capsys):
    """The detection whose score equals the threshold is kept: F1 was computed with it."""
    found, thresholds = run
    expected = above(found, thresholds)
    assert 0 < sum(map(len, expected.values())) < sum(map(len, found.values()))
    assert main(["infer", "images", "--model", "run", "--score-threshold", "best"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "libra-d2 infer: run has no analysis. Run `libra-d2 analyze --model run` to find the best "
        "score thresholds\n"
    )
    path = write_best("run/analysis", 0.9, thresholds)
    args = ["images", "--model", "run", "--score-threshold"]
    for value in ("best", shutil.copy(path, "other.json")):
        assert found_by(*args, value) == expected
        assert "keeping detections with scores of at least" in capsys.readouterr().err
    predictor = libra_d2.Predictor("run", score_threshold="best")
    assert predictor.class_thresholds == tuple(thresholds[name] for name in NAMES)
    assert predictor.score_threshold == max(0.05, min(thresholds.values()))
    for i, entry in enumerate(expected.values()):
        instances = predictor(blots(i)[:, :, ::-1])
        assert list(instances.class_names) == [p["class"]["name"] for p in entry]
    assert libra_d2.Predictor("run").class_thresholds is None


def test_pictures_show_what_is_kept(run, capsys):
    _, thresholds = run
    write_best("run/analysis", 0.9, thresholds)
    pictures = {}
    for folder, options in {"default": [], "best": ["--score-threshold", "best"]}.items():
        found_by("images", "--model", "run", "--draw", folder, *options)
        pictures[folder] = np.asarray(Image.open(f"{folder}/0000.png"))
    assert np.array_equal(pictures["default"], pictures["best"])
    found_by("images", "--model", "run")
    draw = ["draw", "--predictions", "predictions.json", "--model", "run", "--format", "png"]
    for options in ([], ["--score-threshold", "best"]):
        assert main([*draw, "--output", "drawn", *options]) == 0
        assert np.array_equal(np.asarray(Image.open("drawn/images/0000.png")), pictures["best"])
    capsys.readouterr()
    assert (
        main(["draw", "--annotations", "x.json", "--output", "o", "--score-threshold", "best"]) == 2
    )
    assert "--score-threshold best can only be used with --predictions" in capsys.readouterr().err


def test_a_resumed_run_needs_the_same_thresholds(run, capsys):
    _, thresholds = run
    write_best("run/analysis", 0.9, thresholds)
    args = ["images", "--model", "run", "--score-threshold", "best"]
    before = found_by(*args)
    assert found_by(*args, "--resume") == before
    write_best("run/analysis", 0.9, {**thresholds, "cat": 0.99})
    assert main(["infer", *args, "--no-fuse", "--resume"]) == 2
    assert "thresholds must be" in capsys.readouterr().err


def test_slices_are_merged_before_the_thresholds(run):
    found = found_by("images", "--model", "run", "--slice", 40)
    thresholds = dict.fromkeys(
        NAMES, float(np.median([p["score"] for p in found["images/0000.png"]]))
    )
    write_best("run/analysis", 0.9, thresholds)
    args = ["images", "--model", "run", "--slice", 40, "--score-threshold", "best"]
    assert found_by(*args) == above(found, thresholds)
    predictor = libra_d2.Predictor("run", slice_size=40, score_threshold="best")
    instances = predictor("images/0000.png")
    assert len(instances) == len(above(found, thresholds)["images/0000.png"])


def test_thresholds_of_other_weights_and_classes_are_reported(run, detector, caplog):
    digest = weights_hash(detector.model)

    def warnings():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            predictor = libra_d2.Predictor("run", score_threshold="best")
        return predictor.class_thresholds, caplog.text

    write_best("run/analysis", 0.9, NAMES, weights=digest)
    assert warnings() == ((0.9,) * 3, "")
    write_best("run/analysis", 0.9, NAMES, weights="other")
    assert "were found for other weights of this run" in warnings()[1]
    write_best("run/analysis", 0.9, {"cat": 0.8, "cow": 0.7})
    thresholds, text = warnings()
    assert (
        thresholds == (0.8, 0.9, 0.9)
        and "no score threshold for dog, owl. That of all classes, 0.9" in text
    )
    write_best("run/analysis", 0.9, {"cat": 0.01, "dog": 0.3, "owl": 0.3})
    assert "Detections of cat are returned from 0.05 on" in warnings()[1]
    write_best("run/analysis", 0.9, ["cow", "hen"])
    with pytest.raises(UserError, match="must be those of the detector's classes cat, dog, owl"):
        warnings()


@pytest.mark.parametrize("value", [[0.2, 0.5], 0.5])
def test_above_one_threshold_or_one_of_each_class(value):
    found = Detections(9, 9, [[0.0, 0.0, 1.0, 1.0]] * 4, [0.6, 0.5, 0.3, 0.2], [0, 1, 1, 0])
    assert found.above(value).scores == ([0.6, 0.5, 0.2] if value != 0.5 else [0.6, 0.5])


def test_exported_files_have_the_thresholds_of_their_run(exported, here, monkeypatch, capsys):
    everything = found_by_file(here, exported[1])
    without = ["infer", "images", "--model", exported[1], "--score-threshold", "best"]
    capsys.readouterr()
    assert main(without) == 2
    assert "mine.onnx has no best score thresholds. Run `libra-d2 a" in capsys.readouterr().err

    shutil.copytree(exported[0], "run")
    names = OnnxDetector(exported[1]).class_names
    scores = [p["score"] for p in everything["images/0000.png"]]
    thresholds = dict(zip(names, np.quantile(scores, [0.2, 0.5, 0.8]).tolist()))
    write_best("run/analysis", 0.9, thresholds)
    export = ["export", "--model", "run", "--image", "images/0000.png", "--output", "with.onnx"]
    assert main(export) == 0
    assert "Best score thresholds inside: " in capsys.readouterr().out
    shutil.rmtree("run/analysis")
    args = ["images", "--model", "with.onnx", "--score-threshold", "best", "--draw", "drawn"]
    assert found_by(*args) == above(everything, thresholds)
    assert "the best thresholds in with.onnx" in capsys.readouterr().err
    for command in ("draw --output pictures", "prelabel --format coco --output labels.json"):
        args = "--predictions predictions.json --model with.onnx --score-threshold best"
        assert main([*command.split(), *args.split()]) == 0
        assert "the best thresholds in with.onnx" in capsys.readouterr().err
    predictor = libra_d2.Predictor("with.onnx", score_threshold="best")
    assert predictor.class_thresholds == tuple(thresholds.values())

    monkeypatch.setattr("libra_d2.export.export_detector", lambda *a, **kw: ExportReport())
    assert main(export) == 0
    assert "No best score thresholds inside: run has no analysis" in capsys.readouterr().out


def found_by_file(here, path):
    write_images(here / "images", 2, (96, 128))
    return found_by("images", "--model", path)
