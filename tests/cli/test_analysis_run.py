import csv
import json
import os
import sys
from types import ModuleType

import pytest
from PIL import Image

from libra_d2.cli import analysis_run
from libra_d2.cli.main import main
from libra_d2.engine import load_cfg
from libra_d2.evaluation.analysis.result_json import to_json
from libra_d2.predictions.matching import AREA_RANGES

from ..evaluation.random_detections import random_dataset
from ..support.coco_files import write_dataset


@pytest.fixture
def files(tmp_path):
    content, results = random_dataset(0, num_images=12)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "run.json").write_text(json.dumps(results))
    return tmp_path


def analyze(folder, *args, predictions="run.json"):
    return main(
        [
            *("analyze", "--predictions", str(folder / predictions)),
            *("--annotations", str(folder / "truth.json"), "--output", str(folder / "out")),
            *("--samples", "20", "--no-report", *args),
        ]
    )


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def written(value):
    return "" if value is None else str(value)


def test_files_hold_the_same_numbers(files, capsys):
    assert analyze(files, "--name", "mine") == 0
    out = files / "out"
    analysis = json.loads((out / "analysis.json").read_text())
    assert analysis["settings"]["name"] == "mine"
    assert analysis["settings"]["predictions"] == str(files / "run.json")
    for name, entries in (("classes", analysis["classes"]), ("images", analysis["images"])):
        table = rows(out / f"{name}.csv")
        assert len(table) == len(entries)
        for row, entry in zip(table, entries):
            assert row == {k: written(entry[k]) for k in row}
            assert len(row) >= 9
    tide = analysis["tide"]
    costs = {row["name"]: (row["count"], row["AP_cost"]) for row in rows(out / "errors.csv")}
    assert costs == {
        e["name"]: (written(e.get("count")), written(e["AP_cost"]))
        for e in tide["errors"] + tide["special"]
    }
    confusion = rows(out / "confusion.csv")
    assert [r["truth"] for r in confusion] == analysis["confusion"]["names"]
    assert [int(r["background"]) for r in confusion] == [
        row[-1] for row in analysis["confusion"]["matrix"]
    ]
    curves = [r for r in rows(out / "curves.csv") if r["class"] == "class 1"]
    assert [float(r["score"]) for r in curves] == analysis["curves"]["class 1"]["score"]
    assert not (out / "compare.json").exists() and not (out / "report.html").exists()
    shown = capsys.readouterr().out
    for word in ("class 1", "best threshold", "localisation", "worst images", str(out)):
        assert word in shown
    assert f"{100 * analysis['coco']['AP']:.2f}" in shown


def test_comparison(files, capsys):
    results = json.loads((files / "run.json").read_text())
    (files / "other.json").write_text(json.dumps(results[::2]))
    assert analyze(files, "--compare", str(files / "other.json"), "--compare-name", "half") == 0
    comparison = json.loads((files / "out/compare.json").read_text())
    assert (comparison["a"], comparison["b"], comparison["samples"]) == ("run", "half", 20)
    table = rows(files / "out/compare.csv")
    assert [r["kind"] for r in table] == ["metric"] * 6 + ["AP of class"] * 3
    assert table[0]["difference"] == str(comparison["metrics"][0]["difference"])
    assert "95 % intervals of 20 samples" in capsys.readouterr().out


def test_one_image_less_is_an_image_without_detections(files, caplog):
    results = json.loads((files / "run.json").read_text())
    first = results[0]["image_id"]
    other = [{**r, "image_id": 777} if r["image_id"] == first else r for r in results]
    (files / "run.json").write_text(json.dumps(other))
    assert analyze(files) == 0
    assert "predictions for 1 images" in caplog.text and "777" in caplog.text
    images = json.loads((files / "out/analysis.json").read_text())["images"]
    assert [i["detections"] for i in images if i["image_id"] == first] == [[]]


def test_no_detections_at_all(files, capsys):
    (files / "run.json").write_text("[]")
    assert analyze(files) == 0
    assert "missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--score-threshold", "50"], "the score threshold must be in [0, 1], got 50.0"),
        (["--iou-threshold", "0"], "IoU threshold must be in (0.1, 1], got 0.0"),
        (["--images", "/nowhere"], "image folder /nowhere does not exist"),
        (["--compare", "/nowhere.json"], "/nowhere.json does not exist"),
    ],
)
def test_mistakes_are_one_line(files, capsys, args, message):
    assert analyze(files, *args) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not (files / "out").exists()


def test_predictions_of_other_data(files, capsys):
    results = json.loads((files / "run.json").read_text())
    for changed, message in (
        ({"image_id": 999}, "has no prediction for an image of"),
        ({"category_id": 999}, "999"),
        ({"score": 3}, "score must be in [0, 1], got 3"),
    ):
        (files / "bad.json").write_text(json.dumps([{**r, **changed} for r in results]))
        assert analyze(files, predictions="bad.json") == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--predictions", "x.json"], "--predictions needs --annotations and --output"),
        (
            ["--model", "x", "--annotations", "y"],
            "--annotations can only be used with --predictions",
        ),
        (["--model", "/nowhere"], "/nowhere/config.yaml does not exist"),
    ],
)
def test_incomplete_commands(capsys, args, message):
    assert main(["analyze", *args]) == 2
    assert message in capsys.readouterr().err


def _write_config(run, json_file, images):
    data = ["DATASETS.TEST", f"coco:{json_file},{images}"]
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml", [*data, "OUTPUT_DIR", str(run)])
    run.mkdir()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 2
    (run / "config.yaml").write_text(cfg.dump())


def test_a_run(tmp_path, capsys):
    """Of a run, its folder is enough."""
    json_file, images = write_dataset(tmp_path)
    run = tmp_path / "run"
    _write_config(run, json_file, images)
    assert main(["analyze", "--model", str(run), "--no-report"]) == 2
    error = capsys.readouterr().err
    assert "coco_instances_results.json does not exist. Evaluate the run first" in error
    (task,) = _tasks_with_results(run, error)
    assert task.images == images
    assert main(["analyze", "--model", str(run), "--no-report"]) == 0
    analysis = json.loads((run / "analysis/analysis.json").read_text())
    assert analysis["coco"]["AP"] == 1 and analysis["settings"]["name"].startswith("run, coco_")
    assert analysis["images"][0]["path"] == f"{images}/1.jpg"


def test_a_run_is_compared_by_its_folder(tmp_path, capsys):
    """As well as by the file of its predictions; only on the same annotations."""
    json_file, images = write_dataset(tmp_path / "data")
    other_file, _ = write_dataset(tmp_path / "other", num_images=2)
    for name in ("one", "two"):
        run = tmp_path / name
        _write_config(run, json_file, images)
        assert main(["analyze", "--model", str(run), "--no-report"]) == 2
        (task,) = _tasks_with_results(run, capsys.readouterr().err)
    options = ["--no-report", "--samples", "20", "--compare", str(tmp_path / "two")]
    assert main(["analyze", "--model", str(tmp_path / "one"), *options]) == 0
    comparison = json.loads((tmp_path / "one/analysis/compare.json").read_text())
    assert comparison["b"] == "two" and comparison["metrics"][0]["difference"] == 0
    predictions = ["analyze", "--predictions", task.predictions, "--output", str(tmp_path / "out")]
    assert main([*predictions, "--annotations", json_file, *options]) == 0
    capsys.readouterr()
    assert main([*predictions, "--annotations", other_file, *options]) == 2
    assert "Evaluate both runs on the same test set" in capsys.readouterr().err


def _tasks_with_results(run, error):
    path = run / error.split(f"{run}/")[1].split(" ")[0]
    path.parent.mkdir(parents=True)
    found = {"category_id": 10, "bbox": [10, 10, 20, 20], "score": 0.9}
    path.write_text(json.dumps([{"image_id": i, **found} for i in (1, 2, 3)]))
    return analysis_run.tasks_of_run(str(run))


def test_report_gets_both_runs(files, monkeypatch):
    calls = []
    report = ModuleType("libra_d2.visualization.report")
    report.write_report = lambda *args, **kwargs: calls.append((args, kwargs))
    monkeypatch.setitem(sys.modules, "libra_d2.visualization.report", report)
    task = analysis_run.Task(
        *(str(files / n) for n in ("run.json", "truth.json", "out")),
        compare_with=str(files / "run.json"),
        compare_name="again",
        samples=3,
    )
    analysis_run.run_analysis(task)
    ((path, analysis), others) = calls[0]
    assert path == str(files / "out/report.html")
    assert to_json(analysis) == (files / "out/analysis.json").read_text()
    assert others["other"].settings.name == "again"
    assert others["comparison"].b == "again"


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_without_its_packages_all_but_the_report(files, monkeypatch, caplog, package):
    monkeypatch.setitem(sys.modules, package, None)
    task = analysis_run.Task(*(str(files / n) for n in ("run.json", "truth.json", "out")))
    analysis_run.run_analysis(task)
    assert f"report.html is not written: HTML reports need {package}" in caplog.text
    assert (files / "out/analysis.json").exists()


def test_sizes_are_cocos():
    from pycocotools.cocoeval import Params

    params = Params("bbox")
    ours = {name: list(limits) for name, limits in AREA_RANGES.items()}
    assert ours == dict(zip(params.areaRngLbl, params.areaRng))


def test_names_of_odd_bytes_and_control_characters(tmp_path, capsys):
    """They get into every file and the report, and are never printed raw."""
    names = [b"\xff.png", b"a\x1b.png"]
    (tmp_path / "images").mkdir()
    for i, name in enumerate(names):
        path = os.fsencode(tmp_path / "images") + b"/" + name
        Image.new("RGB", (60, 40), (90 * i, 9, 9)).save(tmp_path / "x.png")
        os.rename(tmp_path / "x.png", path)
    box = {"category_id": 1, "bbox": [5, 5, 20, 20]}
    content = {
        "images": [
            {"id": i, "file_name": os.fsdecode(name), "width": 60, "height": 40}
            for i, name in enumerate(names, 1)
        ],
        "annotations": [{"id": i, "image_id": i, **box, "area": 400} for i in (1, 2)],
        "categories": [{"id": 1, "name": "c\x1b[31m\u202e"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "run.json").write_text(
        json.dumps([{"image_id": i, **box, "score": 0.9} for i in (1, 2)])
    )
    options = ["--annotations", str(tmp_path / "truth.json"), "--images", str(tmp_path / "images")]
    command = ["--predictions", str(tmp_path / "run.json"), *options, "--output"]
    assert main(["analyze", *command, str(tmp_path / "out")]) == 0
    report = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert report.count("data:image/jpeg") == 2
    assert "\\udcff.png" in (tmp_path / "out/images.csv").read_text(encoding="utf-8")
    assert main(["draw", *command, str(tmp_path / "drawn")]) == 0
    assert len(os.listdir(tmp_path / "drawn")) == 2
    out, err = capsys.readouterr()
    assert "c\\x1b[31m\\u202e" in out
    assert "\x1b" not in out + err and "\u202e" not in out + err
