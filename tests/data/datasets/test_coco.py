import json
import logging

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from libra_d2.data import LibraDatasetMapper, register_coco
from libra_d2.data.datasets.coco import load_coco
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError

from ...support.coco_files import write_dataset


def test_registers_any_category_ids(tmp_path):
    name = register_coco(*write_dataset(tmp_path))
    records = DatasetCatalog.get(name)
    assert [r["annotations"][0]["category_id"] for r in records] == [0, 0, 0]
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    assert register_coco(str(tmp_path / "coco.json"), str(tmp_path / "images")) == name


@pytest.mark.parametrize(
    "boxes,num_left",
    [
        ([(10, 10, 20, 20), (5, 5, 0, 10)], 1),
        ([(10, 10, 20, 20), (5, 5, -3, 10)], 1),
        ([(10, 10, 20, 20), (60, 0, 5, 5), (0, -9, 5, 9)], 1),
        ([(50, 30, 20, 20)], 1),  # partly outside: clipped when it is used
        ([(10, 10, 20, 20), (float("nan"), 0, 5, 5)], 1),
    ],
)
def test_boxes_that_cover_nothing_are_left_out_and_named(tmp_path, caplog, boxes, num_left):
    files = write_dataset(tmp_path, boxes, num_images=1)
    with caplog.at_level(logging.WARNING):
        (record,) = load_coco(*files, "boxes")
    assert len(record["annotations"]) == num_left
    dropped = len(boxes) - num_left
    invalid = MetadataCatalog.get("boxes").invalid_annotation_ids
    MetadataCatalog.pop("boxes")
    assert len(invalid) == dropped
    assert ("left out" in caplog.text) == bool(dropped)
    if dropped:
        assert files[0] in caplog.text and str(invalid[0]) in caplog.text


def set_unknown_images(data):
    for annotation in data["annotations"]:
        annotation["image_id"] = 9


@pytest.mark.parametrize(
    "damage,named",
    [
        (lambda d: "{", "is not a JSON file"),
        (lambda d: "[1, 2]", "no list 'images'"),
        (lambda d: json.dumps({**d, "categories": None}), "no list 'categories'"),
        (lambda d: json.dumps({k: v for k, v in d.items() if k != "annotations"}), "'annotations'"),
        (lambda d: json.dumps({**d, "images": [{"id": 1}]}), r"images\[0\] lacks \['file_name'"),
        (lambda d: d["annotations"][1].update(category_id=7), r"annotations\[1\].category_id .*7"),
        (
            lambda d: set_unknown_images(d),
            "usable annotations: 3 annotations of images.*image_id 9",
        ),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), r"annotations\[0\].*\[1, 2, 3\]"),
        (lambda d: d["annotations"][0].update(bbox="box"), r"annotations\[0\].*'box'"),
        (lambda d: d.update(images=[], annotations=[]), "has no images"),
    ],
)
def test_what_is_not_coco_is_named(tmp_path, damage, named):
    json_file, images = write_dataset(tmp_path)
    data = json.loads((tmp_path / "coco.json").read_text())
    text = damage(data)
    (tmp_path / "coco.json").write_text(text or json.dumps(data))
    with pytest.raises(UserError, match=named) as e:
        load_coco(json_file, images, "damaged")
    assert json_file in str(e.value)


def test_missing_paths_are_named(tmp_path):
    json_file, images = write_dataset(tmp_path)
    with pytest.raises(UserError, match=r"annotation file .*none\.json does not exist"):
        register_coco(str(tmp_path / "none.json"), images)
    with pytest.raises(UserError, match=r"image folder .*none does not exist"):
        register_coco(json_file, str(tmp_path / "none"))


# -- The mapper --------------------------------------------------------------------------------


def mapper(is_train, on_bad_image="skip"):
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml", ["DATALOADER.ON_BAD_IMAGE", on_bad_image])
    return LibraDatasetMapper(cfg, is_train)


def break_image(path, how):
    if how == "text":
        path.write_text("not an image")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "gone":
        path.unlink()
    elif how == "other size":
        cv2.imwrite(str(path), np.zeros((10, 10, 3), np.uint8))


@pytest.mark.parametrize("how", ["text", "truncated", "empty", "gone", "other size"])
def test_bad_image_is_skipped_counted_and_named(tmp_path, caplog, how):
    record = load_coco(*write_dataset(tmp_path), "bad")[0]
    break_image(tmp_path / "images/1.jpg", how)
    train, test = mapper(True), mapper(False)
    with caplog.at_level(logging.WARNING):
        assert train(record) is None
        output = test(record)
    assert int(train.num_bad_images) == 1
    assert caplog.text.count(record["file_name"]) >= 2
    assert output["unreadable"] and output["image"].shape == (3, 64, 64)
    assert output["image_id"] == record["image_id"]
    with pytest.raises(UserError, match=r"cannot use image .*1\.jpg"):
        mapper(True, "stop")(record)


def test_good_image_is_mapped_as_upstream_does(tmp_path):
    record = load_coco(*write_dataset(tmp_path), "good")[0]
    output = mapper(False)(record)
    assert "unreadable" not in output and output["image"].dtype == torch.uint8
    output = mapper(True)(record)
    assert len(output["instances"]) == 1


def test_errors_that_no_image_causes_are_not_hidden(tmp_path):
    record = load_coco(*write_dataset(tmp_path), "bug")[0]
    record["annotations"][0]["bbox_mode"] = "nonsense"
    with pytest.raises(Exception) as e:
        mapper(True)(record)
    assert not isinstance(e.value, UserError)


def test_unknown_reaction_is_named():
    with pytest.raises(UserError, match=r"ON_BAD_IMAGE must be one of .*got 'ignore'"):
        mapper(True, "ignore")
