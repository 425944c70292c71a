import csv
import json
import random

import numpy as np
import pytest

from libra_d2.errors import UserError
from libra_d2.predictions.reading import (
    CSV_COLUMNS,
    ImagePredictions,
    read_predictions,
    to_coco_results,
)

IMAGES = [{"id": 7, "file_name": "a.jpg"}, {"id": "x", "file_name": "sub/b.jpg"}]
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 10, "name": "猫"}, {"id": 0, "name": "zero"}]
NAMES = {c["id"]: c["name"] for c in CATEGORIES}


def write(tmp_path, content, name="p.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def random_results(seed):
    """In the order in which a file is read: by image, best first, some scores equal."""
    rng = random.Random(seed)
    results = []
    for image in rng.sample(IMAGES, rng.randint(0, 2)):
        scores = sorted((rng.randint(0, 20) / 20 for _ in range(rng.randint(1, 9))), reverse=True)
        for score in scores:
            bbox = [rng.uniform(-9, 640), rng.uniform(-9, 480), rng.uniform(0, 99), rng.random()]
            category = rng.choice(CATEGORIES)["id"]
            results.append(
                {"image_id": image["id"], "category_id": category, "bbox": bbox, "score": score}
            )
    return results


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-9)
        assert {**a, "bbox": 0} == {**b, "bbox": 0}


def as_json(results, category_id=lambda i: i, name=NAMES.get):
    content = {}
    for image in IMAGES:
        content["some/" + image["file_name"]] = {"height": 480, "width": 640, "predictions": []}
    for r in results:
        file_name = next(i["file_name"] for i in IMAGES if i["id"] == r["image_id"])
        content["some/" + file_name]["predictions"].append(
            {
                "bbox": dict(zip(("x_min", "y_min", "width", "height"), r["bbox"])),
                "class": {
                    "label": 0,
                    "category_id": category_id(r["category_id"]),
                    "name": name(r["category_id"]),
                },
                "score": r["score"],
            }
        )
    return content


def write_csv(path, content):
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(CSV_COLUMNS)
        for file_name, entry in content.items():
            size = [entry["height"], entry["width"]]
            for p in entry["predictions"]:
                c = p["class"]
                row = [*p["bbox"].values(), c["label"], c["category_id"], c["name"], p["score"]]
                writer.writerow([file_name, *size, *row])
            if not entry["predictions"]:
                writer.writerow([file_name, *size, *[""] * 8])
    return str(path)


@pytest.mark.parametrize("seed", range(20))
def test_results_are_the_same_after_reading_any_form(tmp_path, seed):
    results = random_results(seed)
    by_image = sorted(results, key=lambda r: r["image_id"] == "x")  # as in IMAGES
    read = read_predictions(write(tmp_path, results))
    assert_same(to_coco_results(read, IMAGES, CATEGORIES)[0], results)
    for content in (
        as_json(results),
        as_json(results, category_id=lambda i: "unknown"),
        as_json(results, name=lambda i: ""),
    ):
        of_json = read_predictions(write(tmp_path, content))
        of_csv = read_predictions(write_csv(tmp_path / "p.csv", content))
        for read in (of_json, of_csv):
            assert [(p.file_name, p.height, p.width) for p in read] == [
                ("some/a.jpg", 480, 640),
                ("some/sub/b.jpg", 480, 640),
            ]
            back, unknown = to_coco_results(read, IMAGES, CATEGORIES)
            assert_same(back, by_image)
            assert unknown == []


@pytest.mark.parametrize("content", ["[]", "{}", "\ufeff[]"])
def test_no_predictions(tmp_path, content):
    assert read_predictions(write(tmp_path, content)) == []


def test_an_image_without_detections_is_read(tmp_path):
    path = write(tmp_path, {"a.jpg": {"height": 4, "width": 6, "predictions": []}})
    (read,) = read_predictions(path)
    assert (len(read), read.boxes.shape, read.height, read.width) == (0, (0, 4), 4, 6)


def test_detections_are_put_best_first_and_equal_ones_keep_their_order(tmp_path):
    result = {"image_id": 7, "category_id": 3}
    scores = [0.5, 0.9, 0.5, 0.9]
    results = [{**result, "bbox": [i, 0, 1, 1], "score": s} for i, s in enumerate(scores)]
    (read,) = read_predictions(write(tmp_path, results))
    assert read.boxes[:, 0].tolist() == [1, 3, 0, 2]
    assert read.boxes[0].tolist() == [1, 0, 2, 1]


RESULT = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.5}
WRONG_RESULTS = {
    "bbox": [None, "0 0 1 1", [0, 0, 1], [0, 0, 1, "1"], [0, 0, float("nan"), 1], [0, 0, -1, 1], {}]
    + [[0, 0, True, 1], [0, 0, 10**400, 1]],
    "score": [None, "0.5", [0.5], float("inf"), float("nan"), True],
    "category_id": [[3], {"id": 3}, float("nan"), False],
    "image_id": [None, [7], {}, float("nan"), True],
}


@pytest.mark.parametrize(
    "key, value", [(key, value) for key, values in WRONG_RESULTS.items() for value in values]
)
def test_wrong_values_in_coco_results_are_named(tmp_path, key, value):
    with pytest.raises(UserError, match=rf"p\.json: \[1\].*{key}"):
        read_predictions(write(tmp_path, [RESULT, {**RESULT, key: value}]))


@pytest.mark.parametrize("key", RESULT)
def test_missing_keys_in_coco_results_are_named(tmp_path, key):
    entry = {k: v for k, v in RESULT.items() if k != key}
    with pytest.raises(UserError, match=rf"\[0\].* must have the key '{key}'"):
        read_predictions(write(tmp_path, [{**entry, "segmentation": [[0, 0, 1, 1, 1, 0]]}]))


@pytest.mark.parametrize("content", ['"text"', "3", "null", "[3]", "[[]]", "{", "", "[" * 100_000])
def test_other_content_is_a_user_error(tmp_path, content):
    with pytest.raises(UserError, match=r"p\.json"):
        read_predictions(write(tmp_path, content))


def test_annotations_are_no_predictions(tmp_path):
    coco = {"images": IMAGES, "annotations": [], "categories": CATEGORIES}
    with pytest.raises(UserError, match="COCO annotations, not predictions"):
        read_predictions(write(tmp_path, coco))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_predictions(str(tmp_path / "nothing.json"))
    with pytest.raises(UserError, match="is a folder"):
        read_predictions(str(tmp_path))
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"p\.csv"):
        read_predictions(str(tmp_path / "p.csv"))


BBOX = {"x_min": 0, "y_min": 0, "width": 1, "height": 1}
PREDICTION = {"bbox": BBOX, "class": {"label": 0, "category_id": 3, "name": "cat"}, "score": 0.5}


@pytest.mark.parametrize(
    "entry, message",
    [
        ([], "'b.jpg' must be an object with"),
        ({"height": 4, "width": 6}, "'b.jpg' must be an object with"),
        ({"predictions": {}}, "'b.jpg' must be an object with"),
        ({"predictions": None}, "'b.jpg' must be an object with"),
        ({"height": "4", "predictions": []}, "b.jpg: height must be .*, got '4'"),
        ({"width": -1, "predictions": []}, "b.jpg: width must be .*, got -1"),
        ({"width": 1.5, "predictions": []}, "b.jpg: width must be .*, got 1.5"),
        ({"width": None, "predictions": []}, "b.jpg: width must be .*, got None"),
        ({"width": float("nan"), "predictions": []}, "b.jpg: width must be .*, got nan"),
    ],
)
def test_wrong_images_in_the_json_are_named(tmp_path, entry, message):
    content = {"a.jpg": {"height": 4, "width": 6, "predictions": [PREDICTION]}, "b.jpg": entry}
    with pytest.raises(UserError, match=message):
        read_predictions(write(tmp_path, content))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bbox": [0, 0, 1, 1]}, r"bbox must be an object, got \[0, 0, 1, 1\]"),
        ({"bbox": {**BBOX, "width": "1"}}, r"bbox must be four finite numbers, got \["),
        ({"bbox": {"x_min": 0, "y_min": 0, "width": 1}}, "bbox must have the key 'height'"),
        ({"class": "cat"}, "class must have category_id or name, got"),
        ({"class": {"label": 0}}, "class must have category_id or name, got"),
        ({"class": {"name": 3}}, "the class name must be a string, got 3"),
        ({"class": {"category_id": [3]}}, r"category_id must be .*, got \[3\]"),
        ({"score": "high"}, "score must be .*, got 'high'"),
    ],
)
def test_wrong_predictions_in_the_json_are_named(tmp_path, change, message):
    content = {"a.jpg": {"height": 4, "width": 6, "predictions": [PREDICTION, PREDICTION | change]}}
    with pytest.raises(UserError, match=rf"a\.jpg: \[1\]:? {message}"):
        read_predictions(write(tmp_path, content))
    for key in change:
        entry = {k: v for k, v in PREDICTION.items() if k != key}
        content["a.jpg"]["predictions"] = [entry]
        with pytest.raises(UserError, match=rf"a\.jpg: \[0\] must have the key '{key}'"):
            read_predictions(write(tmp_path, content))


HEADER = ",".join(CSV_COLUMNS) + "\n"
ROW = "a.jpg,4,6,0,0,1,1,0,3,cat,0.5\n"


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "must have the columns"),
        (HEADER.replace("score", "confidence"), r"must have the columns \['score'\]"),
        (HEADER + ROW + "a.jpg,4,6\n", "line 3 must have 11 columns"),
        (HEADER + ROW + ROW.replace("0.5", "0.5,1"), "line 3 must have 11 columns"),
        (HEADER + ROW.replace("a.jpg", ""), "line 2: file_name must not be empty"),
        (HEADER + ROW.replace(",4,", ",four,"), "line 2: height must be a number, got 'four'"),
        (HEADER + ROW.replace(",4,", ",4.5,"), "line 2: height must be .*, got 4.5"),
        (
            HEADER + ROW + ROW.replace(",4,", ",5,"),
            r"a.jpg must be \[4, 6\], .* got \[5, 6\]",
        ),
        (HEADER + ROW.replace("0.5", "nan"), "line 2: score must be .*, got nan"),
        (HEADER + ROW.replace(",0,0,1", ",0,,1"), "line 2: y_min must be a number, got ''"),
    ],
)
def test_wrong_rows_of_csv_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_predictions(write(tmp_path, content, "p.csv"))


def test_category_ids_of_csv_are_numbers_where_they_look_so(tmp_path):
    rows = [ROW.replace(",3,", f",{c},") for c in ("3", "007", "unknown", "-1", "")]
    (read,) = read_predictions(write(tmp_path, "\ufeff" + HEADER + "".join(rows), "P.CSV"))
    assert read.category_ids == [3, "007", "unknown", "-1", ""]


def of_class(category_id, name, **image):
    image = image or {"image_id": 7}
    return ImagePredictions(
        **image,
        boxes=np.array([[0.0, 0, 1, 1]]),
        scores=np.array([0.5]),
        category_ids=[category_id],
        class_names=[name],
    )


@pytest.mark.parametrize(
    "category_id, name, expected",
    [
        (3, "", 3),
        (3, "猫", 10),  # the name decides
        (3, "dog", 3),  # unless it is not known
        ("unknown", "zero", 0),  # an id that is false
        (0, "", 0),
        ("10", "", 10),
        (None, "cat", 3),
    ],
)
def test_category_by_name_or_id(category_id, name, expected):
    results, _ = to_coco_results([of_class(category_id, name)], IMAGES, CATEGORIES)
    assert [r["category_id"] for r in results] == [expected]


@pytest.mark.parametrize("category_id, name", [(99, "dog"), ("unknown", ""), (None, "")])
def test_unknown_categories_are_named(category_id, name):
    with pytest.raises(UserError, match=f"got id {category_id!r} and name {name!r}"):
        to_coco_results([of_class(category_id, name)], IMAGES, CATEGORIES)


@pytest.mark.parametrize(
    "file_name, expected",
    [
        ("a.jpg", 1),
        ("./a.jpg", 1),
        ("/data/a.jpg", 1),
        ("y/a.jpg", 2),  # the longer end
        ("/data/y/a.jpg", 2),
        ("data\\y\\a.jpg", 2),
        ("b.jpg", 3),
        ("q/b.jpg", None),
        ("A.jpg", None),
        ("ba.jpg", None),
    ],
)
def test_images_by_the_end_of_their_path(file_name, expected):
    images = [
        {"id": 1, "file_name": "a.jpg"},
        {"id": 2, "file_name": "y/a.jpg"},
        {"id": 3, "file_name": "z/b.jpg"},
    ]
    results, unknown = to_coco_results([of_class(3, "", file_name=file_name)], images, CATEGORIES)
    assert [r["image_id"] for r in results] == [expected] * (expected is not None)
    assert unknown == [file_name] * (expected is None)


def test_a_name_that_fits_two_images_or_two_names_of_one_image():
    images = [{"id": 1, "file_name": "x/a.jpg"}, {"id": 2, "file_name": "y/a.jpg"}]
    with pytest.raises(UserError, match=r"x/a\.jpg or y/a\.jpg"):
        to_coco_results([of_class(3, "", file_name="a.jpg")], images, CATEGORIES)
    both = [of_class(3, "", file_name=name) for name in ("y/a.jpg", "./y/a.jpg")]
    with pytest.raises(UserError, match="are both image 2 of"):
        to_coco_results(both, images, CATEGORIES)


def test_unknown_images_are_named():
    _, unknown = to_coco_results([of_class(3, "", image_id=99)], IMAGES, CATEGORIES)
    assert unknown == ["99"]
