"""`libra-d2 evaluate` with an exported file: the numbers of its run."""

import json
import shutil
from pathlib import Path

import pytest

from libra_d2.cli.exported_evaluation import evaluate_exported
from libra_d2.cli.main import main
from libra_d2.cli.run_evaluation import evaluate_run
from libra_d2.inference.onnx_detector import OnnxDetector

from ..inference.small_detector import write_images
from ..support.detector_runs import NAMES

TWELVE = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


def coco(images, annotations=()):
    return {
        "images": [
            {"id": 5 * i, "file_name": path.name, "height": 120, "width": 160}
            for i, path in enumerate(images)
        ],
        "annotations": list(annotations),
        "categories": [{"id": 31 + i, "name": name} for i, name in enumerate(NAMES)],
    }


@pytest.fixture
def data(exported, here):
    """What the run finds, moved by up to 3 pixels: a detector of random weights finds no more."""
    images = write_images(here / "images", 4, (120, 160))
    Path("val.json").write_text(json.dumps(coco(images)))
    options = ["--coco", "found.json", "--annotations", "val.json", "--score-threshold", "0.01"]
    assert main(["infer", "images", "--model", exported[0], *options]) == 0
    objects = [
        {
            **{k: d[k] for k in ("image_id", "category_id")},
            "bbox": [v + i % 4 for v in d["bbox"]],
            "area": d["bbox"][2] * d["bbox"][3],
            "iscrowd": 0,
            "id": i + 1,
        }
        for i, d in enumerate(json.loads(Path("found.json").read_text())[::4])
    ]
    Path("val.json").write_text(json.dumps(coco(images, objects)))
    return ["DATASETS.TEST", "coco:val.json,images"]


def numbers(folder):
    return json.loads(Path(folder, "results.json").read_text())["bbox"]


def test_numbers_are_those_of_the_run(exported, data, here, monkeypatch, capsys):
    path = shutil.copy(exported[1], "mine.onnx")
    output = ["OUTPUT_DIR", str(here / "of_run")]
    (theirs,) = evaluate_run(exported[0], opts=[*data, *output], device="cpu").values()
    assert main(["evaluate", "--model", path, "--opts", *data]) == 0
    assert "results: evaluations/mine.onnx/inference/val_" in capsys.readouterr().out
    (ours,) = Path("evaluations/mine.onnx/inference").iterdir()
    expected, found = numbers(theirs), numbers(ours)
    assert 0.05 < expected["AP"] < expected["AR100"] < 1, "numbers that say nothing"
    for name in TWELVE:
        assert found[name] == pytest.approx(expected[name], abs=1e-3), name
    assert len(found["classes"]) == len(expected["classes"]) == len(NAMES)
    record = json.loads((ours / "record.json").read_text())
    assert record["num_images"] == 4 and record["config"]["score_threshold"] == 0.001
    assert record["weights"] == OnnxDetector(path).digest and "onnxruntime" in record["versions"]

    calls = []
    predict = OnnxDetector.predict
    monkeypatch.setattr(OnnxDetector, "predict", lambda *args: calls.append(1) or predict(*args))
    folders = evaluate_exported(path, opts=data, reuse=True)
    assert not calls and Path(*folders.values()) == ours and numbers(ours) == found
    with open(path, "ab") as f:
        f.write(b"\x72\x00")  # another file
    capsys.readouterr()
    evaluate_exported(path, opts=data, reuse=True)
    assert sum(calls) == 4 and "the weights have changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "DATASETS.TEST must name at least one data set, got ()"),
        (
            ["--opts", "TEST.NMS.TYPE", "linear"],
            "--opts TEST.NMS.TYPE cannot be used with mine.onnx: NMS and all settings of the model",
        ),
        (["--opts", "TEST.AUG.ENABLED", "True"], "--opts TEST.AUG.ENABLED cannot be used with"),
        (["--config-file", "a.yaml"], "--config-file cannot be used with mine.onnx"),
        (["--trust"], "--trust cannot be used with mine.onnx"),
        (["--device", "cuda:0"], "--device must be cpu for mine.onnx"),
        (["--opts", "DATASETS.TEST", "coco:no.json,images"], "no.json"),
        (["--opts", "DATASETS.TEST", "coco:other.json,images"], "'disk'"),
    ],
)
def test_mistakes_are_found_before_the_network_runs(exported, here, capsys, options, message):
    shutil.copy(exported[1], "mine.onnx")
    content = coco(write_images(here / "images", 1, (120, 160)))
    content["categories"] = [{"id": 1, "name": "bird"}]
    Path("other.json").write_text(json.dumps(content))
    assert main(["evaluate", "--model", "mine.onnx", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert not Path("evaluations/mine.onnx/inference").exists()
