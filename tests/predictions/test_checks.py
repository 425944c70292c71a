"""Predictions of other programs: what does not fit is named, and nothing is silently corrected."""

import copy
import json

import numpy as np
import pytest

from libra_d2.cli.main import main
from libra_d2.errors import UserError
from libra_d2.predictions.checks import read_fitting_predictions

SIZE = (160, 120)


def data_set():
    """Twelve images with three objects each, of classes with the ids 1, 2 and 3."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(1, 13):
        images.append(
            {"id": i, "file_name": f"{(7 * i) % 13 + 100:05}.jpg", "width": 160, "height": 120}
        )
        for k in range(3):
            x, y = rng.uniform(5, 25, 2)
            box = [float(x + 45 * k), float(y + 25 * k), *rng.uniform(18, 30, 2).tolist()]
            category = int(rng.integers(1, 4))
            annotations.append(
                {"id": len(annotations), "image_id": i, "category_id": category, "bbox": box}
            )
    categories = [{"id": k, "name": n} for k, n in enumerate(("apple", "pear", "plum"), 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


CONTENT = data_set()
RESULTS = [
    {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9}
    for a in CONTENT["annotations"]
]
NAMES = {i["id"]: i["file_name"] for i in CONTENT["images"]}


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def centre(box):
    return [box[0] + box[2] / 2, box[1] + box[3] / 2, *box[2:]]


def shares(box):
    return [v / side for v, side in zip(box, SIZE * 2)]


def changed(**changes):
    """The results, each with these keys changed by functions of its own values."""
    results = copy.deepcopy(RESULTS)
    for r in results:
        r.update({key: change(r[key]) for key, change in changes.items()})
    return results


def read(tmp_path, results, content=CONTENT):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(results))
    return read_fitting_predictions(str(path), content, "truth.json")


@pytest.mark.parametrize(
    "results, causes",
    [
        (changed(bbox=corners), ["(x_min, y_min, x_max, y_max), not"]),
        (changed(bbox=centre), ["boxes are (x_center, y_center, width, height), not"]),
        (changed(bbox=shares), ["are relative to the image's width"]),
        (changed(bbox=lambda b: shares(corners(b))), ["x_max, y_max) relative to"]),
        (
            changed(bbox=lambda b: shares(centre(b))),
            ["(x_center, y_center, width, height) relative to"],
        ),
        (changed(image_id=lambda i: i - 1), ["image ids are 1 smaller"]),
        (changed(image_id=lambda i: i + 1), ["image ids are 1 larger"]),
        (changed(image_id=lambda i: int(NAMES[i][:-4])), ["the numbers in the file names"]),
        (changed(category_id=lambda k: k - 1), ["category ids are 1 smaller"]),
        (changed(category_id=lambda k: k + 1), ["category ids are 1 larger"]),
        ([r for r in changed(category_id=lambda k: k - 1) if r["category_id"]], ["1 smaller"]),
        (
            changed(image_id=lambda i: i - 1, bbox=corners),
            ["image ids are 1 smaller", "(x_min, y_min, x_max, y_max)"],
        ),
        (changed(score=lambda s: 100 * s), ["score must be in [0, 1], got 90. If", "percent"]),
        (changed(score=lambda s: -s), ["score must be in [0, 1], got -0.9"]),
    ],
)
def test_what_does_not_fit_is_refused_with_its_cause(tmp_path, results, causes):
    with pytest.raises(UserError) as error:
        read(tmp_path, results)
    for cause in causes:
        assert cause in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "results, note",
    [
        (RESULTS, ""),
        (changed(image_id=str), "written as strings"),
        (changed(image_id=lambda i: NAMES[i][:-4]), "file names"),
        (changed(image_id=lambda i: NAMES[i]), "file names"),
        (changed(category_id=lambda k: ("apple", "pear", "plum")[k - 1]), "class names"),
    ],
)
def test_unambiguous_ids_are_taken_and_said(tmp_path, caplog, results, note):
    taken, unknown = read(tmp_path, results)
    assert not unknown and [(r["image_id"], r["category_id"]) for r in taken] == [
        (r["image_id"], r["category_id"]) for r in RESULTS
    ]
    assert note in caplog.text and bool(caplog.text) == bool(note)


def test_category_ids_with_gaps_as_positions(tmp_path):
    content = copy.deepcopy(CONTENT)
    ids = {1: 5, 2: 17, 3: 40}
    for entry, key in [(c, "id") for c in content["categories"]] + [
        (a, "category_id") for a in content["annotations"]
    ]:
        entry[key] = ids[entry[key]]
    with pytest.raises(UserError, match="positions in the list of classes, from 0 on"):
        read(tmp_path, changed(category_id=lambda k: k - 1), content)
    with pytest.raises(UserError, match="positions in the list of classes, from 1 on"):
        read(tmp_path, RESULTS, content)


def test_two_sources_that_disagree_are_refused(tmp_path):
    """An image id of one image beside the file name of another."""
    results = copy.deepcopy(RESULTS)
    for r in results:
        r["file_name"] = NAMES[r["image_id"] % 12 + 1]
    with pytest.raises(UserError, match="but has the file_name"):
        read(tmp_path, results)
    content = copy.deepcopy(CONTENT)
    content["images"][4]["file_name"] = "1.jpg"  # "1": the id of another image, or this file
    with pytest.raises(UserError, match="image_id '1' fits several images"):
        read(tmp_path, changed(image_id=str), content)


def test_bad_detectors_are_no_other_reading(tmp_path):
    """Random boxes, and detections of one class alone, are evaluated as they are."""
    rng = np.random.default_rng(1)
    noise = changed(bbox=lambda _: [*rng.uniform(0, 90, 2).tolist(), 25.0, 25.0])
    assert len(read(tmp_path, noise)[0]) == len(noise)
    few = [r for r in RESULTS if r["category_id"] == 2]
    assert len(read(tmp_path, few)[0]) == len(few)
    assert read(tmp_path, [])[0] == []


@pytest.mark.parametrize("command", ["evaluate", "analyze", "draw"])
def test_every_command_that_reads_predictions_refuses_them(tmp_path, capsys, command):
    (tmp_path / "p.json").write_text(json.dumps(changed(bbox=corners)))
    (tmp_path / "truth.json").write_text(json.dumps(CONTENT))
    files = [
        "--predictions",
        str(tmp_path / "p.json"),
        "--annotations",
        str(tmp_path / "truth.json"),
    ]
    output = {"evaluate": "n.json"}.get(command, "out")
    assert main([command, *files, "--output", str(tmp_path / output)]) == 2
    assert "x_max, y_max" in capsys.readouterr().err
    assert not (tmp_path / output).exists()
