import json
import logging

import pytest

from libra_d2.cli.main import main
from libra_d2.errors import UserError
from libra_d2.evaluation.coco_metrics import coco_metrics
from libra_d2.evaluation.file_evaluation import evaluate_file

from ..support.random_coco import random_content


@pytest.fixture
def files(tmp_path):
    content, results = random_content(3, masks=True)
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    return str(tmp_path / "results.json"), str(tmp_path / "annotations.json")


def contents(files):
    return [json.loads(open(path).read()) for path in files]


def by_image(results, content):
    """The JSON by image and the CSV of the same detections."""
    names = {c["id"]: c["name"] for c in content["categories"]}
    entries = {
        f"photos/{i['file_name']}": {
            "height": i["height"],
            "width": i["width"],
            "predictions": [
                {
                    "bbox": dict(zip(("x_min", "y_min", "width", "height"), r["bbox"])),
                    "class": {"category_id": r["category_id"], "name": names[r["category_id"]]},
                    "score": r["score"],
                }
                for r in results
                if r["image_id"] == i["id"]
            ],
        }
        for i in content["images"]
    }
    rows = ["file_name,height,width,x_min,y_min,box_width,box_height,label,category_id,class_name"]
    rows[0] += ",score"
    for name, entry in entries.items():
        for p in entry["predictions"]:
            of_class = p["class"]
            row = [name, entry["height"], entry["width"], *p["bbox"].values()]
            row += [0, of_class["category_id"], of_class["name"], p["score"]]
            rows.append(",".join(map(str, row)))
    return json.dumps(entries), "\n".join(rows)


def test_all_forms_of_a_file_have_the_same_numbers(files, tmp_path):
    results, content = contents(files)
    expected = coco_metrics(content, results).numbers
    assert 0.1 < expected["AP"] < 0.9
    as_json, as_csv = by_image(results, content)
    for name, text in (("by_image.json", as_json), ("by_image.csv", as_csv)):
        (tmp_path / name).write_text(text)
        numbers = evaluate_file(str(tmp_path / name), files[1]).numbers
        assert numbers == pytest.approx(expected, abs=1e-9, nan_ok=True), name
    assert evaluate_file(*files).numbers == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_command_prints_and_writes_the_numbers(files, tmp_path, capsys):
    output = tmp_path / "numbers.json"
    command = ["evaluate", "--predictions", files[0], "--annotations", files[1]]
    options = ["--max-detections", "300", "--backend", "faster-coco-eval", "--output", str(output)]
    assert main([*command, *options]) == 0
    table = capsys.readouterr().out
    assert "AR300" in table and "class 3" in table
    written = json.loads(output.read_text())["bbox"]
    results, content = contents(files)
    expected = coco_metrics(content, results, max_detections=300)
    assert written["AP"] == pytest.approx(expected.numbers["AP"], abs=1e-9)
    assert written["AR300"] == pytest.approx(expected.numbers["AR300"], abs=1e-9)
    assert [c["name"] for c in written["classes"]] == [f"class {i}" for i in range(4)]
    assert written["classes"][3]["AP"] is None


def test_predictions_of_other_images_are_named_and_left_out(files, tmp_path, caplog):
    results, content = contents(files)
    other = tmp_path / "other.json"
    first = {**results[0], "image_id": 999}
    other.write_text(json.dumps([*results, first]))
    for iou_type in ("bbox", "segm"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            metrics = evaluate_file(str(other), files[1], iou_type=iou_type)
        assert "predictions for 1 images" in caplog.text and ": 999" in caplog.text
        expected = coco_metrics(content, results, iou_type=iou_type).numbers
        assert metrics.numbers == pytest.approx(expected, abs=1e-9, nan_ok=True)
    other.write_text(json.dumps([first]))
    with pytest.raises(
        UserError,
        match=r"other\.json has no prediction for an image of .*first prediction is for '999'",
    ):
        evaluate_file(str(other), files[1])


def test_a_file_without_predictions_has_an_ap_of_0(files, tmp_path):
    for text in ("[]", "{}"):
        (tmp_path / "none.json").write_text(text)
        assert evaluate_file(str(tmp_path / "none.json"), files[1]).numbers["AP"] == 0


@pytest.mark.parametrize(
    "change,words",
    [
        (
            {"segmentation": [[0, 0, 5, 0, 5, 5]]},
            r"\[0\] must have a segmentation as compressed RLE",
        ),
        (
            {"segmentation": {"size": [5, 5], "counts": "0"}},
            r"the mask of \[0\] must have the size .*, got \[5, 5\]",
        ),
    ],
)
def test_masks_that_are_none_are_refused(files, tmp_path, change, words):
    results, _ = contents(files)
    (tmp_path / "bad.json").write_text(json.dumps([{**results[0], **change}]))
    with pytest.raises(UserError, match=words):
        evaluate_file(str(tmp_path / "bad.json"), files[1], iou_type="segm")


@pytest.mark.parametrize(
    "arguments,words",
    [
        ([], "exactly one of --model and --predictions must be given"),
        (
            ["--model", "a", "--predictions", "b"],
            "exactly one of --model and --predictions must be given",
        ),
        (["--predictions", "results.json"], "given with --annotations"),
        (["--model", "a", "--output", "b"], "can only be used with --predictions"),
        (["--predictions", "none.json", "--annotations", "none.json"], "none.json"),
        (["--model", "none"], "none does not exist"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    assert main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_predictions_of_few_of_the_images_are_named(files, tmp_path, caplog):
    results, content = contents(files)
    few = tmp_path / "few.json"
    first = results[0]["image_id"]
    few.write_text(json.dumps([r for r in results if r["image_id"] == first]))
    with caplog.at_level(logging.WARNING):
        evaluate_file(files[0], files[1])
        assert "count as missed" not in caplog.text
        evaluate_file(str(few), files[1])
    count = len({a["image_id"] for a in content["annotations"]})
    assert f"has detections in 1 of the {count} images of {files[1]} with objects" in caplog.text
