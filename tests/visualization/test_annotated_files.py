"""Annotated copies: from which score, and what becomes of those that cannot be written."""

import json
import os
import shutil

import cv2
import numpy as np
from PIL import Image

from libra_d2.cli.main import main

from ..inference.small_detector import NAMES, blots, write_images
from ..support.best_thresholds import write_best


def entries():
    with open("predictions.json") as f:
        return json.load(f)


def test_infer_and_draw_take_the_threshold_of_the_analysis(model, here, capsys):
    """Otherwise the pictures of one run show other detections by each command."""
    write_images(here / "images", 1, size=(480, 640))
    shutil.copytree(model, "run")
    args = ["infer", "images", "--model", "run", "--draw"]
    pictures = {}

    def drawn(folder, *more):
        assert main([*args, folder, *more]) == 0
        pictures[folder] = np.asarray(Image.open(f"{folder}/0000.png"))
        return capsys.readouterr().err

    source = "of at least 0.5: the default, because run has no analysis. Run `libra-d2 analyze"
    assert source in drawn("plain")
    scores = [p["score"] for p in entries()["images/0000.png"]["predictions"]]
    assert min(scores) < 0.5
    write_best(here / "run/analysis", min(scores) + 1e-4, NAMES)
    err = drawn("best")
    assert "the thresholds with the best F1 in run/analysis/analysis.json" in err
    drawn("all", "--score-threshold", "0")
    assert not np.array_equal(pictures["best"], pictures["plain"])
    assert not np.array_equal(pictures["best"], pictures["all"])

    (here / "run/inference/set").mkdir(parents=True)
    shutil.copy("predictions.json", "run/inference/set")
    predictions = "run/inference/set/predictions.json"
    draw = ["draw", "--format", "png", "--predictions"]
    assert main(["infer", "images", "--model", "run"]) == 0  # with those that "all" changed
    shutil.copy("predictions.json", predictions)
    assert main([*draw, predictions, "--output", "by_place"]) == 0
    assert "the thresholds with the best F1 in" in capsys.readouterr().err
    assert main([*draw, "predictions.json", "--model", "run", "--output", "by_model"]) == 0
    for folder in ("by_place", "by_model"):
        assert np.array_equal(np.asarray(Image.open(f"{folder}/images/0000.png")), pictures["best"])
    assert main([*draw, "predictions.json", "--output", "alone"]) == 0
    assert "scores of at least 0.5" in capsys.readouterr().err
    assert np.array_equal(np.asarray(Image.open("alone/images/0000.png")), pictures["plain"])


def test_what_cannot_be_drawn_ends_nothing(model, here, capsys, monkeypatch):
    """A folder of the picture's name, a video that no encoder takes, and a picture that fails."""
    write_images(here / "images", 3)
    (here / "drawn/0001.png").mkdir(parents=True)
    (here / "drawn/0001.png/full").touch()
    writer = cv2.VideoWriter("fast.mp4", cv2.VideoWriter_fourcc(*"vp09"), 100000, (96, 64))
    for i in range(3):
        writer.write(np.ascontiguousarray(blots(i, (64, 96))))
    writer.release()
    shutil.copy("fast.mp4", "named.mp4")
    (here / "drawn/named.mp4").mkdir()
    inputs = ["images/0000.png", "images/0001.png", "fast.mp4", "named.mp4", "images/0002.png"]
    assert main(["infer", *inputs, "--model", model, "--draw", "drawn"]) == 1
    out, err = capsys.readouterr()
    assert "9 images: 9 done, 0 skipped" in out and "2 not drawn" in out
    lines = [line for line in err.splitlines() if line.startswith("not drawn")]
    assert [line.split(": ")[1] for line in lines] == ["drawn/0001.png", "drawn/named.mp4"]
    assert len(entries()) == 9
    names = ["0000.png", "0001.png", "0002.png", "fast.mp4", "named.mp4"]
    assert sorted(os.listdir("drawn")) == names


def test_names_of_odd_bytes_go_through_infer_and_draw(model, here, capsys):
    """Names that are no UTF-8 are written, read and drawn, and never printed raw."""
    image = write_images(here / "images", 1)[0]
    odd = os.fsencode(here / "images") + b"/\xff\x1b[31m.png"
    os.rename(image, odd)
    (here / "images/bad\u202e.png").write_bytes(b"no image")
    options = ["--draw", "drawn", "--csv", "t.csv", "--coco", "c.json"]
    assert main(["infer", "images", "--model", model, *options]) == 1
    assert os.fsencode("drawn") + b"/\xff\x1b[31m.png" in [
        os.path.join(b"drawn", n) for n in os.listdir(b"drawn")
    ]
    (key,) = entries()
    assert os.fsencode(key) == b"images/\xff\x1b[31m.png"
    assert main(["draw", "--predictions", "predictions.json", "--output", "again"]) == 0
    assert os.listdir(b"again/images") == [b"\xff\x1b[31m.jpg"]
    os.remove(odd)
    assert main(["draw", "--predictions", "predictions.json", "--output", "gone"]) == 2
    out, err = capsys.readouterr()
    assert "bad\\u202e.png" in err and "\\udcff\\x1b[31m.png" in err
    assert "\x1b" not in out + err and "\u202e" not in out + err


def test_a_read_only_folder_is_one_line(model, here, capsys, monkeypatch):
    write_images(here / "images", 2)

    def makedirs(path, exist_ok=True, makedirs=os.makedirs):
        if path == "drawn":
            raise PermissionError(13, "Permission denied", path)
        makedirs(path, exist_ok=exist_ok)

    monkeypatch.setattr(os, "makedirs", makedirs)
    assert main(["infer", "images", "--model", model, "--draw", "drawn"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("libra-d2 infer: drawn cannot be written: Permission denied")
