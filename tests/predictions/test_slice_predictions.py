"""Perfect predictions on slices become the objects of the images again."""

import json
from pathlib import Path

import numpy as np
import pytest

from libra_d2.data.slicing.coco_slices import SliceOptions, slice_dataset
from libra_d2.errors import UserError
from libra_d2.predictions.slice_predictions import merge_file

from ..support.coco_files import write_dataset

BOXES = [(2, 2, 10, 12), (20, 5, 38, 20), (30, 30, 8, 8)]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Slices of 32 pixels of two images of 60x40, and perfect predictions on them."""
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path, boxes=BOXES, num_images=2)
    slice_dataset("coco:coco.json,images", "out", SliceOptions(32, 0.3, min_visible=0, empty=1))
    write(
        [
            {"score": 0.5 + 0.5 * a["visible"], **{k: a[k] for k in KEYS}}
            for a in read("out/annotations.json")["annotations"]
        ]
    )
    return "coco:out/annotations.json,out/images"


KEYS = ("image_id", "category_id", "bbox")


def read(path):
    return json.loads(Path(path).read_text())


def write(content, path="found.json"):
    Path(path).write_text(json.dumps(content))


def test_objects_are_found_once_in_their_images(data):
    summary = merge_file(data, "found.json", "new/merged.json")
    results = read("new/merged.json")
    assert summary.num_detections == len(results) == 6 and summary.num_images == 2
    assert summary.num_before == len(read("found.json")) > 6 and summary.num_slices == 12
    for image_id in (1, 2):
        found = sorted(r["bbox"] for r in results if r["image_id"] == image_id)
        assert np.allclose(found, sorted(map(list, BOXES)))
    assert {r["category_id"] for r in results} == {10}
    assert not (summary.notes or summary.unknown or summary.incomplete)


def test_predictions_by_image_are_read_too(data):
    image = read("out/annotations.json")["images"][1]
    box = {"x_min": 1, "y_min": 2, "width": 8, "height": 9}
    one = {"bbox": box, "class": {"category_id": 20, "name": "dog"}, "score": 0.25}
    entry = {"height": image["height"], "width": image["width"], "predictions": [one]}
    other = {"height": 9, "width": 9, "predictions": []}
    write({f"somewhere/{image['file_name']}": entry, "no.png": other})
    summary = merge_file(data, "found.json", "merged.json")
    x, y = image["offset"]
    assert read("merged.json") == [
        {"image_id": 1, "category_id": 20, "bbox": [x + 1, y + 2, 8, 9], "score": 0.25}
    ]
    assert summary.unknown == ["no.png"]


def test_missing_slices_are_reported(data):
    content = read("out/annotations.json")
    content["images"] = content["images"][1:]
    content["annotations"] = []
    write(content, "out/annotations.json")
    write([])
    summary = merge_file(data, "found.json", "merged.json")
    assert summary.incomplete == ["1.jpg"] and read("merged.json") == []


@pytest.mark.parametrize(
    "key, value, why",
    [
        ("offset", None, r"images\[1\] lacks \['offset'\]"),
        ("offset", [1], r"images\[1\] has the offset \[1\] instead of two numbers"),
        ("offset", [1, "2"], "instead of two numbers"),
        ("source_id", [3], r"source_id \[3\] instead of a number or text"),
        ("source_width", "x", "source_width 'x' instead of a number of pixels"),
    ],
)
def test_a_data_set_without_places_is_refused(data, key, value, why):
    content = read("out/annotations.json")
    content["images"][1][key] = value
    if value is None:
        del content["images"][1][key]
    write(content, "out/annotations.json")
    with pytest.raises(UserError, match=f"that `libra-d2 slice` wrote, but .*{why}"):
        merge_file(data, "found.json", "merged.json")
    assert not Path("merged.json").exists()


@pytest.mark.parametrize("output", ["found.json", "out/annotations.json"])
def test_inputs_are_not_replaced(data, output):
    before = Path(output).read_bytes()
    with pytest.raises(UserError, match="would replace"):
        merge_file(data, "found.json", output)
    assert Path(output).read_bytes() == before
