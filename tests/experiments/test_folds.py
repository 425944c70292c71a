import json

import pytest

from libra_d2.errors import UserError
from libra_d2.experiments.folds import fold_data, make_folds

from ..support.pictures import picture


@pytest.fixture
def data(tmp_path):
    """
    24 images of 8 patients. All have a cat; those of patients 1 to 4 also have a dog. One image
    more has no objects.
    """
    images, annotations = [], []
    (tmp_path / "images").mkdir()
    for i in range(25):
        patient = i // 3 + 1
        name = f"p{patient}_{i}.jpg"
        picture(i, (60, 40)).save(tmp_path / "images" / name)
        images.append({"id": i + 1, "file_name": name, "width": 60, "height": 40})
        for category in (1, 2) if patient <= 4 else (1,) if i < 24 else ():
            box = {"bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": i + 1, "category_id": category, **box})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "all.json").write_text(json.dumps(content))
    return f"coco:{tmp_path}/all.json,{tmp_path}/images"


def read(folder, fold):
    return [
        json.loads((folder / f"fold{fold}" / f"{part}.json").read_text())
        for part in ("train", "test")
    ]


def names(content):
    return {image["file_name"] for image in content["images"]}


def test_each_image_is_tested_once_and_otherwise_trained_on(data, tmp_path):
    make_folds(data, 3, "", str(tmp_path / "folds"))
    tested = []
    for fold in (1, 2, 3):
        train, test = read(tmp_path / "folds", fold)
        assert not names(train) & names(test)
        assert len(names(train)) + len(names(test)) == 25
        for part in (train, test):
            ids = {image["id"] for image in part["images"]}
            assert {a["image_id"] for a in part["annotations"]} <= ids
            assert part["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        assert len(train["annotations"]) + len(test["annotations"]) == 36
        tested += names(test)
    assert len(tested) == len(set(tested)) == 25


def test_each_fold_has_its_share_of_each_class(data, tmp_path):
    make_folds(data, 4, "", str(tmp_path / "folds"))
    for fold in (1, 2, 3, 4):
        _, test = read(tmp_path / "folds", fold)
        of_classes = [a["category_id"] for a in test["annotations"]]
        assert (of_classes.count(1), of_classes.count(2)) == (6, 3)


@pytest.mark.parametrize("group", [r"p\d+", r"(p\d+)_"])
def test_images_of_a_group_stay_in_one_fold(data, tmp_path, group):
    make_folds(data, 2, group, str(tmp_path / "folds"))
    train, test = read(tmp_path / "folds", 1)
    patients = [{name.partition("_")[0] for name in names(part)} for part in (train, test)]
    assert not patients[0] & patients[1]
    dogs = [sum(a["category_id"] == 2 for a in part["annotations"]) for part in (train, test)]
    assert dogs == [6, 6]


def test_folds_are_the_same_each_time_and_made_once(data, tmp_path):
    for folder in ("a", "b"):
        make_folds(data, 2, "", str(tmp_path / folder))
    assert read(tmp_path / "a", 1) == read(tmp_path / "b", 1)
    before = (tmp_path / "a" / "fold1" / "test.json").stat().st_mtime_ns
    make_folds(data, 2, "", str(tmp_path / "a"))
    assert (tmp_path / "a" / "fold1" / "test.json").stat().st_mtime_ns == before


def test_folds_that_are_not_complete_are_made_again(data, tmp_path):
    """The record is written last, so a killed process leaves folds without it."""
    make_folds(data, 2, "", str(tmp_path / "folds"))
    (tmp_path / "folds" / "folds.json").unlink()
    (tmp_path / "folds" / "fold2" / "test.json").write_text("{")
    make_folds(data, 2, "", str(tmp_path / "folds"))
    assert len(read(tmp_path / "folds", 2)[1]["images"]) >= 12


def test_describes_the_data_of_a_fold(data, tmp_path):
    folder = str(tmp_path / "folds")
    make_folds(data, 2, "", folder)
    assert fold_data(folder, 2) == (
        f"coco:{folder}/fold2/train.json,{tmp_path}/images",
        f"coco:{folder}/fold2/test.json,{tmp_path}/images",
    )


@pytest.mark.parametrize(
    ("change", "folds", "group", "message"),
    [
        ("none", 26, "", "25 images cannot be divided into 26 parts"),
        ("none", 10, r"p\d+", "9 groups that must stay together, cannot be divided into 10"),
        ("none", 2, "q", "25 of 25 images have a file name that 'q' does not match"),
        ("none", 2, "(", "a regular expression, got '\\('"),
        ("several", 2, "", "--folds divides one data set"),
        ("missing", 2, "", "does not exist"),
    ],
)
def test_refuses_what_cannot_be_divided(data, tmp_path, change, folds, group, message):
    data = {"several": f"('{data}', '{data}')", "missing": "coco:no.json,no"}.get(change, data)
    with pytest.raises(UserError, match=message):
        make_folds(data, folds, group, str(tmp_path / "folds"))
    assert not (tmp_path / "folds").exists()
