"""How many images an epoch has."""

import json

import pytest

from libra_d2.data import setup_datasets
from libra_d2.data.epochs import images_per_epoch, in_iterations

from ..support.coco_files import write_dataset
from ..support.dataset_configs import cfg_for


@pytest.fixture
def files(tmp_path):
    """Twelve images, of which two have no objects and one has only a crowd."""
    path, images = write_dataset(tmp_path / "data", num_images=12)
    with open(path, encoding="utf-8") as f:
        content = json.load(f)
    content["annotations"] = content["annotations"][2:]
    content["annotations"][0]["iscrowd"] = 1
    with open(path, "w", encoding="utf-8") as f:
        json.dump(content, f)
    return path, images


@pytest.mark.parametrize(
    "opts, count",
    [
        ("", 9),
        ("DATALOADER.FILTER_EMPTY_ANNOTATIONS False", 12),
        ("DATASETS.TRAIN_NUM 6", 6),
        ("DATASETS.TRAIN_DIVIDER 2", 4),
        ("DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler DATALOADER.REPEAT_THRESHOLD 1.0", 9),
        (
            "DATALOADER.SAMPLER_TRAIN RandomSubsetTrainingSampler "
            "DATALOADER.RANDOM_SUBSET_RATIO 0.5",
            4,
        ),
    ],
)
def test_images_that_are_trained_on_are_counted(files, opts, count, caplog):
    cfg = cfg_for(files, files, *opts.split(), "SOLVER.EPOCHS", "3", "SOLVER.IMS_PER_BATCH", "2")
    setup_datasets(cfg, num_classes_given=False)
    caplog.clear()
    assert images_per_epoch(cfg) == count
    assert not caplog.records  # the loader says what it removes
    max_iter = in_iterations(cfg).SOLVER.MAX_ITER
    assert max_iter == -(-3 * count // 2)


def test_a_schedule_in_iterations_stays_as_it_is(files):
    cfg = cfg_for(files, files)
    assert in_iterations(cfg) is cfg
    cfg = cfg_for(files, files, "SOLVER.EPOCHS", "3")
    setup_datasets(cfg, num_classes_given=False)
    cfg.freeze()
    once = in_iterations(cfg)
    assert once.is_frozen() and in_iterations(once) is once and in_iterations(once.clone()).dump()
    assert cfg.SOLVER.MAX_ITER == 0
