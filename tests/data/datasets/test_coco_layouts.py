"""`coco:folder,split`: the layouts that tools export."""

import shutil

import pytest

from libra_d2.data.datasets.coco_layouts import coco_folder
from libra_d2.errors import UserError

from ...support.coco_files import write_dataset
from ...support.voc_and_yolo_files import records_of


def place(source, annotations, images):
    annotations.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source[0], annotations)
    shutil.copytree(source[1], images, dirs_exist_ok=True)


def roboflow(source, root, split):
    place(source, root / split / "_annotations.coco.json", root / split)


def roboflow_one(source, root, split):
    place(source, root / "_annotations.coco.json", root)


def cvat(source, root, split):
    place(source, root / f"annotations/instances_{split}.json", root / "images")


def cvat_folders(source, root, split):
    place(source, root / f"annotations/instances_{split}.json", root / "images" / split)


def fiftyone(source, root, split):
    place(source, root / "labels.json", root / "data")


def fiftyone_splits(source, root, split):
    place(source, root / split / "labels.json", root / split / "data")


ALL = [roboflow, roboflow_one, cvat, cvat_folders, fiftyone, fiftyone_splits]
WITH_SPLITS = [roboflow, cvat, cvat_folders, fiftyone_splits]


@pytest.mark.parametrize("layout", ALL)
def test_the_only_split_needs_no_name(tmp_path, layout):
    root = tmp_path / "a, b"
    layout(write_dataset(tmp_path / "source"), root, "train")
    records, metadata = records_of(tmp_path, f"coco:{root}")
    assert len(records) == 3 and len(records[0]["annotations"]) == 1
    assert metadata.get("found_elsewhere") == ()


@pytest.mark.parametrize("layout", WITH_SPLITS)
def test_one_of_several_splits_is_named(tmp_path, layout):
    for split, number in (("train", 3), ("valid", 2)):
        layout(write_dataset(tmp_path / split, num_images=number), tmp_path / "set", split)
    for split, number in (("train", 3), ("valid", 2), ("val", 2), ("validation", 2)):
        records, _ = records_of(tmp_path, f"coco:{tmp_path / 'set'},{split}")
        assert len(records) == number
    with pytest.raises(UserError, match=r"several splits: train, valid. Name one, .*,train"):
        coco_folder(str(tmp_path / "set"))
    with pytest.raises(UserError, match=r"no split 'test'. It has train, valid"):
        coco_folder(str(tmp_path / "set"), "test")


def test_a_folder_without_a_known_layout_names_them(tmp_path):
    with pytest.raises(
        UserError, match=r"KEY coco:.* must have one of these layouts: Roboflow.*CVAT.*FiftyOne"
    ):
        records_of(tmp_path, f"coco:{tmp_path}")
