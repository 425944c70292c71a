import json
import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from libra_d2.data import register_coco, setup_datasets
from libra_d2.errors import UserError

from ...support.coco_files import write_dataset
from ...support.dataset_configs import cfg_for


def drawn(files, *opts, test=None):
    cfg = cfg_for(files, test, *opts)
    setup_datasets(cfg, num_classes_given=False)
    (name,) = cfg.DATASETS.TRAIN
    return [record["image_id"] for record in DatasetCatalog.get(name)], cfg


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), num_images=20)


@pytest.mark.parametrize(
    "num,divider,left",
    [(0, 1, 20), (5, 1, 5), (0, 4, 5), (0, 3, 6), (11, 2, 5), (50, 1, 20), (20, 20, 1)],
)
def test_so_many_images_are_left(files, caplog, num, divider, left):
    opts = ("DATASETS.TRAIN_NUM", str(num), "DATASETS.TRAIN_DIVIDER", str(divider))
    with caplog.at_level(logging.INFO):
        ids, cfg = drawn(files, *opts)
    assert len(set(ids)) == len(ids) == left and ids == sorted(ids)
    assert ("drawn at random" in caplog.text) == ((num, divider) != (0, 1))
    if (num, divider) != (0, 1):
        assert f"Training on {left} of 20 images" in caplog.text
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes == ["cat", "dog"]


def test_the_draw_depends_on_the_seed_alone(files):
    """Else the processes of a run, or its parts, would have different images."""
    draws = [drawn(files, "DATASETS.TRAIN_NUM", "8", "SEED", seed)[0] for seed in "1123"]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2] != draws[3]
    unseeded = [drawn(files, "DATASETS.TRAIN_NUM", "8", "SEED", "-1")[0] for _ in range(2)]
    assert unseeded[0] == unseeded[1]


def test_the_test_set_stays_whole(files):
    """Though it is the training set."""
    ids, cfg = drawn(files, "DATASETS.TRAIN_NUM", "8", test=files)
    assert len(ids) == 8 and len(DatasetCatalog.get(cfg.DATASETS.TEST[0])) == 20


def test_images_without_objects_are_not_drawn(tmp_path):
    """The loader would leave them out, and one drawn image would be none."""
    files = write_dataset(tmp_path, num_images=20)
    data = json.loads((tmp_path / "coco.json").read_text())
    data["annotations"] = data["annotations"][:3]
    (tmp_path / "coco.json").write_text(json.dumps(data))
    assert drawn(files, "DATASETS.TRAIN_NUM", "3")[0] == [1, 2, 3]
    all_ids, _ = drawn(
        files, "DATASETS.TRAIN_NUM", "20", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"
    )
    assert len(all_ids) == 20


def by_names(names, num):
    cfg = cfg_for(
        None,
        None,
        "DATASETS.TRAIN",
        str(tuple(names)),
        "DATASETS.TEST",
        "()",
        "DATASETS.TRAIN_NUM",
        str(num),
    )
    setup_datasets(cfg, num_classes_given=False)
    return cfg


def test_a_saved_config_draws_again(files):
    """It names the part, which no other process has registered."""
    name = register_coco(*files)
    cfg = by_names([name], 7)
    (part,) = cfg.DATASETS.TRAIN
    assert part == f"{name}@7of20"
    first = DatasetCatalog.get(part)
    DatasetCatalog.remove(part)
    MetadataCatalog.remove(part)
    assert (part,) == by_names([part], 7).DATASETS.TRAIN
    assert DatasetCatalog.get(part) == first
    assert (name,) == by_names([part], 0).DATASETS.TRAIN


def test_several_training_sets_share_the_number(files, tmp_path):
    names = [register_coco(*files), register_coco(*write_dataset(tmp_path, num_images=60))]
    cfg = by_names(names, 30)
    sizes = [len(DatasetCatalog.get(name)) for name in cfg.DATASETS.TRAIN]
    assert sum(sizes) == 30 and 0 < sizes[0] < sizes[1]


@pytest.mark.parametrize(
    "opts,named",
    [
        (("DATASETS.TRAIN_NUM", "-3"), "TRAIN_NUM must be at least 0, got -3"),
        (("DATASETS.TRAIN_DIVIDER", "0"), "TRAIN_DIVIDER must be at least 1, got 0"),
        (("DATASETS.TRAIN_DIVIDER", "21"), "TRAIN_DIVIDER 21 leave none of the 20 training images"),
    ],
)
def test_values_out_of_range_are_named(files, opts, named):
    with pytest.raises(UserError, match=named):
        drawn(files, *opts)
