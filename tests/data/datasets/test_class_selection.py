"""Which classes a run takes from data sets of all formats, and in which order."""

import json
import logging
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from libra_d2.data import setup_datasets
from libra_d2.data.checks.datasets import check_datasets
from libra_d2.data.datasets.setup import category_ids, class_names
from libra_d2.data.packed.packing import pack
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError

from ...support.coco_files import write_dataset
from ...support.voc_and_yolo_files import write_voc, write_yolo

# The objects of all twins, in this order: 20x10 pixels from (6, 4).
OBJECTS = ("bird", "cat", "dog")


def write_twin(folder, kind):
    """One set of one image in a format, which orders the classes in its own way."""
    if kind == "voc":
        root = write_voc(folder, [[(name, (7, 5, 26, 14), 0) for name in OBJECTS]])
        return f"voc:{root},train"
    if kind == "yolo":
        names = ("dog", "bird", "cat")
        lines = [f"{names.index(n)} {16 / 60} {9 / 40} {20 / 60} .25" for n in OBJECTS]
        return f"yolo:{write_yolo(folder, [chr(10).join(lines)], names=names)},train"
    json_file, images = write_dataset(
        folder, [(6, 4, 20, 10)] * 3, num_images=1, classes=("bird", "dog", "cat")
    )
    content = json.loads(Path(json_file).read_text())
    for annotation, category in zip(content["annotations"], (10, 30, 20)):
        annotation["category_id"] = category
    Path(json_file).write_text(json.dumps(content))
    if kind == "packed":
        pack(json_file, images, str(folder / "twin.lmdb"))
        return f"packed:{folder / 'twin.lmdb'}"
    return f"coco:{json_file},{images}"


def set_up(tmp_path, train, *opts, test=()):
    options = ["DATASETS.TRAIN", train, "DATASETS.TEST", test, *opts]
    options = [str(o) for o in (*options, "OUTPUT_DIR", tmp_path / "out")]
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml", options)
    setup_datasets(cfg, num_classes_given=False)
    return cfg


def objects_of_evaluation(name):
    """Class names of the objects in the file that COCO's evaluation reads."""
    content = json.loads(Path(MetadataCatalog.get(name).json_file).read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    assert sorted(names) == list(names), "COCO's metrics order classes by their ids"
    return [names[a["category_id"]] for a in content["annotations"]]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIBRA_D2_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "packed"])
@pytest.mark.parametrize("chosen", [("dog", "cat"), ("cat", "bird"), ("dog", "bird", "cat")])
def test_a_list_selects_and_orders_the_classes_of_every_format(
    tmp_path, cache, caplog, kind, chosen
):
    with caplog.at_level(logging.INFO, "libra_d2"):
        cfg = set_up(tmp_path, (write_twin(tmp_path / "a", kind),), "DATASETS.CLASS_NAMES", chosen)
    (name,) = cfg.DATASETS.TRAIN
    (record,) = DatasetCatalog.get(name)
    expected = [o for o in OBJECTS if o in chosen]
    assert [chosen[a["category_id"]] for a in record["annotations"]] == expected
    assert objects_of_evaluation(name) == expected
    assert chosen == class_names(cfg) and len(chosen) == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    findings = {f.check: f.count for f in check_datasets(cfg, thorough=False).findings}
    assert findings.get("other_classes", 0) == len(OBJECTS) - len(expected)
    for gone in set(OBJECTS) - set(chosen):
        assert f"does not name {gone} (1)" in caplog.text


def test_twins_of_all_formats_are_mixed_and_go_on_with_the_saved_list(tmp_path, cache):
    train = tuple(write_twin(tmp_path / k, k) for k in ("coco", "yolo", "voc", "packed"))
    with pytest.raises(UserError, match=r"different classes.*CLASS_NAMES to select and order"):
        set_up(tmp_path, train)
    chosen = ("dog", "cat")
    for _ in range(2):
        cfg = set_up(tmp_path, train, "DATASETS.CLASS_NAMES", chosen)
        for name in cfg.DATASETS.TRAIN:
            (record,) = DatasetCatalog.get(name)
            assert [chosen[a["category_id"]] for a in record["annotations"]] == ["cat", "dog"]
            assert record["annotations"][0]["bbox"] == pytest.approx([6, 4, 20, 10])
        chosen = class_names(cfg)
    # Without a list, the same data has its own classes again.
    cfg = set_up(tmp_path, train[:1])
    assert class_names(cfg) == ("bird", "dog", "cat")


@pytest.mark.parametrize("kind", ["coco", "yolo", "packed"])
def test_a_class_that_the_data_lacks_is_an_error(tmp_path, cache, kind):
    with pytest.raises(UserError, match=r"different classes: .*CLASS_NAMES.*lacks cow"):
        set_up(
            tmp_path, (write_twin(tmp_path / "a", kind),), "DATASETS.CLASS_NAMES", ("cat", "cow")
        )


def test_a_class_without_objects_is_said(tmp_path, cache, caplog):
    source = write_twin(tmp_path / "a", "voc")
    with caplog.at_level(logging.INFO, "libra_d2"):
        set_up(tmp_path, (source,), "DATASETS.CLASS_NAMES", ("cat", "cow"))
    assert "no objects of these classes in DATASETS.CLASS_NAMES: cow" in caplog.text


def write_roboflow(folder, change=lambda content: None):
    json_file, images = write_dataset(folder, classes=("cat", "dog"), num_images=1)
    content = json.loads(Path(json_file).read_text())
    for category in content["categories"]:
        category["supercategory"] = "animals"
    dummy = {"id": 0, "name": "animals", "supercategory": "none"}
    content["categories"].insert(0, dummy)
    change(content)
    Path(json_file).write_text(json.dumps(content))
    return f"coco:{json_file},{images}"


def test_dummy_category_of_roboflow_is_left_out_and_said(tmp_path, cache, caplog):
    source = write_roboflow(tmp_path / "a")
    voc = write_voc(tmp_path / "v", [[("dog", (1, 1, 9, 9), 0)]])
    with caplog.at_level(logging.INFO, "libra_d2"):
        cfg = set_up(tmp_path, (source, f"voc:{voc},train"))
    assert class_names(cfg) == ("cat", "dog") and category_ids(cfg) == (10, 20)
    assert caplog.text.count("supercategory of all others") == 1
    assert objects_of_evaluation(cfg.DATASETS.TRAIN[0]) == ["cat"]
    findings = {f.check: f for f in check_datasets(cfg, thorough=False).findings}
    assert not findings["dummy_category"].problem
    kept = ("animals", "cat", "dog")
    cfg = set_up(tmp_path, (source,), "DATASETS.CLASS_NAMES", kept)
    assert kept == class_names(cfg) and category_ids(cfg) == (0, 10, 20)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][0].update(category_id=0),
        lambda c: c["categories"][1].update(supercategory="pets"),
        lambda c: c["categories"][0].update(supercategory="animals"),
    ],
    ids=["has objects", "not the parent of all", "its own parent"],
)
def test_no_other_category_is_taken_for_the_dummy(tmp_path, cache, change):
    cfg = set_up(tmp_path, (write_roboflow(tmp_path / "a", change),))
    assert class_names(cfg) == ("animals", "cat", "dog")
