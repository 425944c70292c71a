"""`libra-d2 prelabel`: from images or predictions to annotations, with a threshold per class."""

import json
import shutil

import pytest

from libra_d2.cli.main import main

from ..inference.small_detector import IDS, NAMES, write_images
from ..support.best_thresholds import write_best


def written(path="out.json"):
    with open(path) as f:
        return json.load(f)


def prelabel(*args):
    return main(["prelabel", *map(str, args), "--output", "out.json"])


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    """Images, predictions of them, and COCO results with the list of the images."""
    folder = tmp_path_factory.mktemp("found")
    images = write_images(folder / "images", 3)
    options = ["--output", folder / "found.json", "--coco", folder / "coco.json"]
    assert main(["infer", str(folder / "images"), "--model", model, *map(str, options)]) == 0
    listed = {
        "images": [
            {"id": i, "file_name": path.name, "width": 80, "height": 60}
            for i, path in enumerate(images, start=1)
        ],
        "categories": [{"id": i, "name": n} for n, i in zip(NAMES, IDS)],
        "annotations": [],
    }
    (folder / "images.json").write_text(json.dumps(listed))
    return folder


def test_the_same_from_a_model_from_predictions_and_from_coco_results(model, found, here, capsys):
    common = ["--format", "coco", "--score-threshold", "0.2"]
    assert prelabel(found / "images", "--model", model, *common) == 0
    out, err = capsys.readouterr()
    assert "boxes with scores of at least 0.2: as given" in err
    assert "DATASETS.TRAIN coco:out.json,FOLDER" in out
    expected = written()
    assert len(expected["annotations"]) > 5
    assert [c["id"] for c in expected["categories"]] == list(IDS)
    assert prelabel("--predictions", found / "found.json", *common) == 0
    of_file = written()
    assert of_file["annotations"] == expected["annotations"]
    assert {c["name"] for c in of_file["categories"]} <= set(NAMES)
    coco = ["--predictions", found / "coco.json", "--annotations", found / "images.json"]
    assert prelabel(*coco, "--images", found / "images", *common) == 0
    assert written()["images"] == expected["images"]
    assert len(written()["annotations"]) == len(expected["annotations"])


def test_images_that_cannot_be_read(model, found, here, capsys):
    (here / "bad.png").write_text("no image")
    args = ["bad.png", "--model", model, "--format", "coco"]
    assert prelabel(*args) == 2
    assert "none of the images can be read" in capsys.readouterr().err
    assert prelabel(found / "images/0000.png", *args) == 1
    assert "skipped bad.png: " in capsys.readouterr().err
    assert [i["file_name"].rpartition("/")[2] for i in written()["images"]] == ["0000.png"]


def test_thresholds(found, here, capsys):
    """Without an option, those of the run, as for pictures."""
    predictions = [p for e in written(found / "found.json").values() for p in e["predictions"]]

    def number(**thresholds):
        least = [thresholds.get(p["class"]["name"], 0.5) for p in predictions]
        return sum(p["score"] >= low for p, low in zip(predictions, least))

    args = ["--predictions", found / "found.json", "--format", "coco"]
    assert prelabel(*args) == 0
    assert len(written()["annotations"]) == number()
    scores = sorted(p["score"] for p in predictions)
    low, high = scores[3], scores[-3]
    run = here / "run"
    write_best(run / "analysis", high, {"cat": low, "dog": high, "owl": high})
    for options in ([], ["--score-threshold", "best"]):
        assert prelabel(*args, "--model", run, *options) == 0
        assert len(written()["annotations"]) == number(cat=low, dog=high, owl=high)
    own = ["--class-threshold", f"owl={low}", "cat=1"]
    assert prelabel(*args, "--model", run, *own) == 0
    assert len(written()["annotations"]) == number(cat=1, dog=high, owl=low)
    assert "and --class-threshold" in capsys.readouterr().err
    shutil.rmtree(run / "analysis")
    assert prelabel(*args, "--model", run, "--score-threshold", "best") == 2
    assert "has no analysis. Run `libra-d2 analyze --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "either images or --predictions must be given"),
        (["a.jpg", "--predictions", "x.json"], "either images or --predictions must be given"),
        (["a.jpg"], "images need the detector to find objects with, given with --model"),
        (["a.jpg", "--model", "run", "--images", "x"], "can only be used with --predictions"),
        (["--predictions", "p.json", "--trust"], "can only be used with images"),
        (["--predictions", "p.json", "--image-prefix", "x"], "only be used with --format label-st"),
        (["--predictions", "p.json", "--no-images"], "only be used with --format voc or yolo"),
        (["--predictions", "p.json"], "p.json"),
        (
            ["--predictions", "f.json", "--class-threshold", "cat"],
            "must be CLASS=T with T in [0, 1]",
        ),
        (["--predictions", "f.json", "--class-threshold", "cat=2"], "got 'cat=2'"),
        (["--predictions", "f.json", "--class-threshold", "cow=0.2"], "must name one of ["),
        (["--predictions", "f.json", "--classes", "cow"], "--classes must be among"),
    ],
)
def test_mistakes_are_one_line(found, here, capsys, arguments, message):
    shutil.copy(found / "found.json", "f.json")
    assert prelabel(*arguments, "--format", "coco") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("libra-d2 prelabel: ") and message in error
