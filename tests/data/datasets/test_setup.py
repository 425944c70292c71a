import json
import logging
import re
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog

from libra_d2.data import setup_datasets
from libra_d2.data.datasets.setup import category_ids, class_names
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError

from ...support.coco_files import write_dataset
from ...support.dataset_configs import cfg_for


def test_classes_and_their_number_come_from_the_file(tmp_path):
    train = write_dataset(tmp_path / "a")
    test = write_dataset(tmp_path / "b", num_images=2)
    cfg = cfg_for(train, test)
    setup_datasets(cfg, num_classes_given=False)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 2
    assert class_names(cfg) == ("cat", "dog")
    assert category_ids(cfg) == (10, 20)
    assert len(DatasetCatalog.get(cfg.DATASETS.TRAIN[0])) == 3
    assert len(DatasetCatalog.get(cfg.DATASETS.TEST[0])) == 2


def test_conflict_with_num_classes_names_both(tmp_path):
    cfg = cfg_for(write_dataset(tmp_path), None, "MODEL.ROI_HEADS.NUM_CLASSES", "7")
    with pytest.raises(UserError, match=r"NUM_CLASSES must be 2, got 7: .*coco\.json has .*'cat'"):
        setup_datasets(cfg, num_classes_given=True)


def test_different_classes_name_both_files(tmp_path):
    train = write_dataset(tmp_path / "a")
    test = write_dataset(tmp_path / "b", classes=("dog", "cat"))
    with pytest.raises(UserError, match=r"a/coco.json has \['cat', 'dog'\].*b/coco.json"):
        setup_datasets(cfg_for(train, test), num_classes_given=False)


def test_classes_of_the_run_must_be_in_the_data(tmp_path):
    """A run's classes would be evaluated on objects of others."""
    cfg = cfg_for(None, write_dataset(tmp_path), "DATASETS.CLASS_NAMES", "('cat', 'cow')")
    with pytest.raises(UserError, match=r"CLASS_NAMES has \['cat', 'cow'\].*lacks cow"):
        setup_datasets(cfg, num_classes_given=False, train=False)


@pytest.mark.parametrize("gone", ["gone.jpg", "far\\away.jpg", "https://x/a%20b.jpg"])
def test_missing_images_say_where_they_were_looked_for(tmp_path, gone):
    files = write_dataset(tmp_path, num_images=1)
    content = json.loads(Path(files[0]).read_text())
    content["images"][0]["file_name"] = gone
    Path(files[0]).write_text(json.dumps(content))
    place = files[1] + "/" + gone.split("/")[-1].split("\\")[-1].replace("%20", " ")
    with pytest.raises(UserError, match="looked for at .*" + re.escape(place)):
        setup_datasets(cfg_for(files), num_classes_given=False)


def test_evaluation_does_not_need_the_training_set(tmp_path):
    cfg = cfg_for(("gone.json", "gone"), write_dataset(tmp_path))
    setup_datasets(cfg, num_classes_given=False, train=False)
    assert class_names(cfg) == ("cat", "dog")


@pytest.mark.parametrize("test", [("coco_2017_val",), ()])
def test_without_test_set_there_is_no_evaluation(tmp_path, test):
    """Rather than one on the data set that the base config happens to name."""
    cfg = cfg_for(write_dataset(tmp_path))
    cfg.DATASETS.TEST = test
    setup_datasets(cfg, num_classes_given=False)
    assert cfg.DATASETS.TEST == ()


def test_missing_images_are_counted_and_left_out(tmp_path, caplog):
    files = write_dataset(tmp_path, num_images=4)
    (tmp_path / "images/2.jpg").unlink()
    cfg = cfg_for(files)
    with caplog.at_level(logging.WARNING):
        setup_datasets(cfg, num_classes_given=False)
    assert "1 of 4 images are missing" in caplog.text and "2.jpg" in caplog.text
    assert len(DatasetCatalog.get(cfg.DATASETS.TRAIN[0])) == 3


@pytest.mark.parametrize("num_gone,reaction", [(1, "stop"), (4, "skip")])
def test_missing_images_stop_the_run(tmp_path, num_gone, reaction):
    files = write_dataset(tmp_path, num_images=4)
    for i in range(num_gone):
        (tmp_path / f"images/{i + 1}.jpg").unlink()
    with pytest.raises(UserError, match=f"{num_gone} of 4 images are missing.*1.jpg"):
        setup_datasets(
            cfg_for(files, None, "DATALOADER.ON_BAD_IMAGE", reaction), num_classes_given=False
        )


@pytest.mark.parametrize(
    "opts,named",
    [
        (
            ("DATASETS.TRAIN", "coco:x.json"),
            r"DATASETS\.TRAIN coco:x\.json: the description must have",
        ),
        (
            ("DATASETS.TEST", "coco:x.json,y"),
            "DATASETS.TEST coco:x.json,y: annotation file .*x.json does not exist",
        ),
        (("DATASETS.TRAIN", "('nothing',)"), "names of data sets registered .*got 'nothing'"),
    ],
)
def test_wrong_paths_name_the_key(opts, named):
    with pytest.raises(UserError, match=named):
        setup_datasets(cfg_for(None, None, *opts), num_classes_given=False)


def test_data_that_is_registered_but_not_there_is_named():
    with pytest.raises(UserError, match=r"coco_2017_train: annotation file .* does not exist"):
        setup_datasets(load_cfg("configs/libra_r50.yaml"), num_classes_given=False)


def test_built_in_data_needs_no_loading_to_know_its_classes():
    cfg = load_cfg("configs/demo.yaml")
    setup_datasets(cfg, num_classes_given=False)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 6
