"""`libra-d2 slice`: what it prints, and its answers to mistakes."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from libra_d2.cli.main import main
from libra_d2.config import load_cfg
from libra_d2.data.datasets.setup import class_names, setup_datasets

from ..support.coco_files import write_dataset
from ..support.project import ROOT


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "my data", boxes=[(2, 2, 10, 12), (20, 5, 38, 20)])
    return "coco:my data/coco.json,my data/images"


SMALL = ["--size", "32", "--overlap", "0.3"]


def test_says_what_it_did_and_what_to_give_to_training(data, capsys):
    assert main(["slice", data, "--output", "out", *SMALL]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "3 images: 18 slices of 32 pixels that overlap by 30%\n" in out
    assert re.search(r"class cat +3 +18 +3 +0\n", out) and "crowd" not in out
    assert re.search(r"class dog +0 +0 +0 +0\n", out)
    (train,) = (shlex.split(line) for line in out.splitlines() if "DATASETS." in line)
    assert train == ["DATASETS.TRAIN", "coco:out/annotations.json,out/images"]
    cfg = load_cfg(str(ROOT / "configs/libra_mobilenet_v2.yaml"), train)
    setup_datasets(cfg, num_classes_given=False)
    assert class_names(cfg) == ("cat", "dog")


def test_predictions_are_mapped_back(data, capsys):
    everything = ["--empty", "1", "--min-visible", "0"]
    assert main(["slice", data, "--output", "out", *SMALL, *everything]) == 0
    slices = "coco:out/annotations.json,out/images"
    annotations = json.loads(Path("out/annotations.json").read_text())["annotations"]
    results = [{"score": 0.9, **a} for a in annotations]
    Path("found.json").write_text(json.dumps(results))
    capsys.readouterr()
    assert main(["slice", slices, "--merge", "found.json", "--output", "merged.json"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("detections merged into 6\nmerged.json\n") and err == ""
    assert "18 slices of 3 images" in out
    # The file is one of predictions on the original data set.
    command = "evaluate --predictions merged.json --annotations"
    assert main([*command.split(), "my data/coco.json", "--output", "metrics.json"]) == 0


def test_what_is_missing_is_said(data, capsys):
    Path("my data/images/2.jpg").write_bytes(b"")
    options = ["--empty", "0", "--min-visible", "1"]
    assert main(["slice", data, "--output", "out", *SMALL, *options]) == 1
    assert "images that are skipped: 1, the first is " in capsys.readouterr().err
    Path("found.json").write_text("[]")
    slices = "coco:out/annotations.json,out/images"
    assert main(["slice", slices, "--merge", "found.json", "--output", "merged.json"]) == 0
    lacks = "2 images lack slices, in which nothing can be found. Cut them with --empty 1"
    assert lacks in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--size", "0"], "--size must be at least 32 pixels, got 0"),
        (["--overlap", "1"], "--overlap must be in [0, 0.9], got 1"),
        (["--overlap", "-0.2"], "--overlap must be in [0, 0.9], got -0.2"),
        (["--min-visible", "2"], "--min-visible must be in [0, 1], got 2"),
        (["--empty", "-1"], "--empty must be in [0, 1], got -1"),
        (["--seed", "-1"], "--seed must be from 0 to"),
        (["--output", "my data/images"], "must be a new or an empty folder, but "),
        (["--output", "my data"], "must be a new or an empty folder, but "),
        (["--output", "my data/coco.json"], "must be a folder, got the file "),
        (["--merge", "no.json", "--size", "64"], "--merge cannot be combined with --size"),
        (["--merge", "no.json", "--output", "x.json"], "must be a data set that `libra-d2 slice`"),
    ],
)
def test_a_users_mistake_is_one_line(data, tmp_path, capsys, options, message):
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert main(["slice", data, "--output", "out", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("libra-d2 slice: ") and error.count("\n") == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("content", ["none", "no images"])
def test_a_set_without_images_is_refused(data, capsys, content):
    for name in os.listdir("my data/images"):
        os.remove(f"my data/images/{name}")
    message = "none of the 3 images exists"
    if content == "no images":
        Path("my data/coco.json").write_text(
            json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]})
        )
        message = "coco.json has no images"
    assert main(["slice", data, "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not Path("out").exists()
