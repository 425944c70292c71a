"""What a run logs at the end of its start-up: its schedule, and settings that do not fit."""

import logging

import pytest

from libra_d2.config import load_cfg
from libra_d2.data import setup_datasets
from libra_d2.data.checks.datasets import check_before_training
from libra_d2.engine.run_summary import schedule_lines, warn_of_settings
from libra_d2.planning import make_plan

from ..support.coco_files import write_dataset
from ..support.dataset_configs import cfg_for

HEADER = "Settings that may not fit this run:"


@pytest.fixture
def dense(tmp_path):
    """A config for images of 60 x 40 pixels with 150 objects of 4 x 4 pixels."""
    boxes = [(x, y, 4, 4) for x in range(0, 56, 4) for y in range(0, 36, 3)][:150]
    files = write_dataset(tmp_path / "data", boxes)
    cfg = cfg_for(files, files, "OUTPUT_DIR", str(tmp_path / "out"), "SOLVER.BASE_LR", "0.005")
    setup_datasets(cfg, num_classes_given=False)
    return cfg


def logged(cfg, caplog):
    """The findings at the start, and the block at the end of the start-up."""
    with caplog.at_level(logging.INFO):
        check_before_training(cfg)
        start = caplog.text
        caplog.clear()
        warn_of_settings(cfg)
    return start, "\n".join(r.getMessage() for r in caplog.records)


def test_one_block_names_keys_and_values_and_the_plan(dense, caplog):
    start, block = logged(dense, caplog)
    header, *lines, last = block.splitlines()
    assert header == HEADER and "libra-d2 plan" in last
    assert any('TEST.DETECTIONS_PER_IMAGE "180"' in line for line in lines)
    assert any("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE" in line for line in lines)
    assert len(set(lines)) == len(lines)
    assert "DETECTIONS_PER_IMAGE" not in start  # nothing is said twice


def test_a_planned_config_has_no_block(dense, caplog):
    cfg = make_plan(dense).cfg
    cfg.OUTPUT_DIR = dense.OUTPUT_DIR
    _, block = logged(cfg, caplog)
    assert block == ""


def test_nothing_is_said_without_a_check(dense, caplog):
    check_before_training(dense)
    dense.DATASETS.CHECK = False
    caplog.clear()
    with caplog.at_level(logging.INFO):
        warn_of_settings(dense)
    assert HEADER not in caplog.text


@pytest.mark.parametrize("test", ["()", "coco_2017_val"])
@pytest.mark.parametrize("check", [True, False])
def test_a_missing_test_set_is_said_once_with_the_key_to_set(tmp_path, caplog, test, check):
    """The base config's test set does not count beside training data of the user's own."""
    files = write_dataset(tmp_path / "data")
    opts = ["OUTPUT_DIR", str(tmp_path / "out"), "DATASETS.TEST", test]
    cfg = cfg_for(files, None, *opts, "DATASETS.CHECK", str(check))
    with caplog.at_level(logging.INFO):
        setup_datasets(cfg, num_classes_given=False)
    start, block = logged(cfg, caplog)
    (line,) = [line for line in block.splitlines() if "DATASETS.TEST" in line]
    assert block.startswith(HEADER) and caplog.records[-1].levelno == logging.WARNING
    assert "nothing is evaluated" in line and "`libra-d2 split`" in line
    assert line.endswith('set DATASETS.TEST "coco:val.json,images"')
    assert "nothing is evaluated" not in start and "DATASETS.TEST" not in start


def test_data_without_a_problem_have_no_block(tmp_path, caplog):
    files = write_dataset(tmp_path / "data")
    opts = ["OUTPUT_DIR", str(tmp_path / "out"), "SOLVER.BASE_LR", "0.005"]
    cfg = cfg_for(files, files, *opts)
    setup_datasets(cfg, num_classes_given=False)
    assert "DATASETS.TEST" not in logged(cfg, caplog)[1]


def test_the_schedule_is_in_iterations_and_epochs():
    opts = ["TEST.EVAL_PERIOD", "50", "DATASETS.TEST", "shapes_val"]
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml", opts)
    first, second = schedule_lines(cfg, 0, 400, 100)  # 25 iterations of 4 images an epoch
    assert "400 iterations of 4 images (16.0 epochs of 100)" in first
    assert "a warm-up of 100 iterations (4.0 epochs)" in first
    assert first.endswith("after iterations 300, 360 (epochs 12.0, 14.4)")
    assert "every 50 iterations (2.0 epochs)" in second
    assert "every 200 iterations (8.0 epochs)" in second
    assert "epoch" not in "".join(schedule_lines(cfg, 0, 400, 0))
