"""`libra-d2 infer` with an exported file: its results, the journal, and refused options."""

import csv
import json
import os
import shutil

import pytest

from libra_d2 import Predictor
from libra_d2.cli.main import main
from libra_d2.errors import UserError
from libra_d2.inference.infer import InferOptions, infer
from libra_d2.inference.onnx_detector import OnnxDetector

from .small_detector import write_images


def run(model, *args):
    return main(["infer", *map(str, args), "--model", model])


def read(path):
    with open(path) as f:
        return json.load(f)


def test_files_are_those_of_the_run(exported, here, capsys):
    write_images(here / "images", 4)
    write_images(here / "images/more", 2, (90, 31))
    (here / "images/0004.png").write_bytes(b"no image")
    options = ["images", "--recursive", "--classes", "disk", "triangle", "--top-k", 20]
    options += ["--score-threshold", 0.35]
    for model, name in zip(exported, ("run", "file")):
        outputs = ["--output", f"{name}.json", "--coco", f"{name}.coco", "--csv", f"{name}.csv"]
        assert run(model, *options, *outputs, "--draw", name) == 1
        assert "skipped images/0004.png: not an image of a supp" in capsys.readouterr().err
    theirs, ours = read("run.json"), read("file.json")
    assert list(theirs) == list(ours) and len(ours) == 6
    count = 0
    for key, entry in theirs.items():
        assert {k: ours[key][k] for k in ("height", "width")} == {
            k: entry[k] for k in ("height", "width")
        }
        assert len(entry["predictions"]) == len(ours[key]["predictions"]) <= 20
        for a, b in zip(entry["predictions"], ours[key]["predictions"]):
            count += 1
            assert a["class"] == b["class"] and b["class"]["name"] != "square"
            assert b["bbox"] == pytest.approx(a["bbox"], rel=0, abs=1e-2)
            assert b["score"] == pytest.approx(a["score"], rel=0, abs=1e-5) and b["score"] > 0.35
    assert count > 20, "too few detections to compare"
    found, expected = read("file.coco"), read("run.coco")
    for a, b in zip(expected, found):
        assert a.keys() == b.keys() and b["bbox"] == pytest.approx(a["bbox"], rel=0, abs=1e-2)
        assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
    with open("file.csv", newline="") as a, open("run.csv", newline="") as b:
        assert len(list(csv.reader(a))) == len(list(csv.reader(b))) == count + 1
    assert len(found) == len(expected) == count
    assert sorted(os.listdir("file")) == sorted(os.listdir("run"))


def test_slices_of_large_images(exported, here):
    """The limits of the file hold for each slice, as those of a run do."""
    write_images(here / "images", 1, (100, 150))
    for model, name in zip(exported, ("run.json", "file.json")):
        assert run(model, "images", "--slice", 80, "--output", name) == 0
    (a,), (b,) = read("run.json").values(), read("file.json").values()
    scores = [[p["score"] for p in of["predictions"]] for of in (a, b)]
    assert scores[1] == pytest.approx(scores[0], rel=0, abs=1e-5) and len(scores[0]) > 30
    found = Predictor(exported[1], slice_size=80)(here / "images/0000.png")
    assert found.scores.tolist() == pytest.approx(scores[1], rel=0, abs=1e-6)


def test_an_interrupted_run_goes_on(exported, here, capsys):
    path = shutil.copy(exported[1], "mine.onnx")
    write_images(here / "images", 3)
    assert run(path, "images") == 0
    whole = (here / "predictions.json").read_bytes()
    journal = (here / "predictions.json.journal").read_bytes()
    (here / "predictions.json.journal").write_bytes(journal[: len(journal) // 2])
    assert run(path, "images", "--resume") == 0
    assert "by an earlier run)" in capsys.readouterr().out
    assert (here / "predictions.json").read_bytes() == whole
    to_resume = "to resume the run of predictions.json.journal"
    for options, name in (
        (["--score-threshold", 0.3], "score_threshold"),
        (["--top-k", 3], "top_k"),
    ):
        assert run(path, "images", "--resume", *options) == 2
        assert f"{name} must be " in capsys.readouterr().err
    with open(path, "ab") as f:
        f.write(b"\x72\x00")  # an empty message of metadata: another file, but the same network
    assert run(path, "images", "--resume") == 2
    error = capsys.readouterr().err
    assert "weights must be '" in error and to_resume in error
    assert run(exported[0], "images", "--resume") == 2
    assert "weights must be '" in capsys.readouterr().err
    assert (here / "predictions.json").read_bytes() == whole


REFUSED = {
    "--nms-threshold 0.5": "--nms-threshold cannot be used with mine.onnx: NMS is inside the file",
    "--nms hard": "--nms cannot be used with mine.onnx: NMS is inside the file",
    "--config-file a.yaml": "--config-file cannot be used with mine.onnx: all settings of the mod",
    "--trust": "--trust cannot be used with mine.onnx",
    "--no-fuse": "--no-fuse cannot be used with mine.onnx: ONNX Runtime fuses batch norms by",
    "--amp": "--amp cannot be used with mine.onnx: the precision is inside the file",
    "--batch-size 2": "--batch-size must be 1 for mine.onnx, which takes one image at a time",
    "--device cuda": "--device must be cpu for mine.onnx",
    "--score-threshold 0": "--score-threshold must be at least 0.001, the threshold inside mine.on",
    "--top-k 31": "--top-k must be at most 30, the number of detections per image inside mine.onnx",
    "--top-k 0": "--top-k must be at least 1, got 0",
    "--classes bird": "--classes must be among ['disk', 'square', 'triangle'], got 'bird'",
    "--output mine.onnx": "--output mine.onnx would replace the input mine.onnx",
    "--opts TEST.AUG.ENABLED True": "--opts cannot be used with mine.onnx: all settings of the mo",
}


def test_options_that_do_not_fit_a_file(exported, here, capsys):
    shutil.copy(exported[1], "mine.onnx")
    write_images(here / "images", 1)
    before = sorted(os.listdir())
    for options, message in REFUSED.items():
        assert main(["infer", "images", "--model", "mine.onnx", *options.split()]) == 2, options
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, options
    assert sorted(os.listdir()) == before, "something was written"
    assert run("mine.onnx", "images", "--batch-size", 1, "--device", "cpu") == 0


def test_in_python_and_without_memory(exported, here, monkeypatch, capsys):
    write_images(here / "images", 2)
    write_images(here / "large", 1, (90, 90))
    detector = OnnxDetector(exported[1])
    find = detector.find

    def fails(session, record, names):
        if record["height"] == 90:
            raise MemoryError
        return find(session, record, names)

    monkeypatch.setattr(detector, "find", fails)
    summary = infer(detector, ["large", "images"], InferOptions(workers=2))
    assert summary.num_done == 2 and summary.num_detections > 10
    assert "skipped large/0000.png: there is not enough memory" in capsys.readouterr().err
    with pytest.raises(UserError, match="--no-fuse cannot be used"):
        infer(detector, ["images"], InferOptions(fuse=False))
