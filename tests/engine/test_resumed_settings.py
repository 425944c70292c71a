"""Which settings a resumed run lists as changed."""

import argparse

import pytest

from libra_d2.checkpoint.changes import changed_settings
from libra_d2.engine import LibraTrainer, setup
from libra_d2.engine.run_lock import release

from ..support.coco_files import write_dataset
from ..support.voc_and_yolo_files import write_voc, write_yolo

CONFIG = "configs/libra_mobilenet_v2.yaml"
TINY = "MODEL.WEIGHTS '' MODEL.FPN.OUT_CHANNELS 8 MODEL.ROI_BOX_HEAD.FC_DIM 8".split()
BOX = (11, 11, 40, 30)


def coco(folder):
    return "coco:{},{}".format(*write_dataset(folder))


def voc(folder):
    return f"voc:{write_voc(folder, [[('cat', BOX, 0), ('dog', BOX, 0)]] * 3)},train"


def yolo(folder):
    return f"yolo:{write_yolo(folder, ['0 .5 .5 .4 .4', '1 .5 .5 .4 .4'])},train"


def settings(folder, *opts, config=CONFIG):
    """The settings that a run saves in its checkpoints."""
    opts = [*opts, "OUTPUT_DIR", str(folder)]
    cfg = setup(argparse.Namespace(config_file=str(config), eval_only=False, opts=opts))
    release(cfg.OUTPUT_DIR)
    return LibraTrainer(cfg).checkpointer.settings


@pytest.mark.parametrize(
    "write, opts",
    [
        (coco, []),
        (voc, []),
        (yolo, []),
        (coco, ["DATASETS.TRAIN_NUM", "2"]),
        (coco, ["DATASETS.CLASS_NAMES", "('dog', 'cat')"]),
        (coco, ["SOLVER.EPOCHS", "4", "SOLVER.STEPS", "(50%,)", "TEST.EVAL_PERIOD", "1 epoch"]),
    ],
)
def test_the_saved_config_changes_nothing(tmp_path, write, opts):
    """Although it names the classes, which the given one may leave to the data."""
    train = ["DATASETS.TRAIN", write(tmp_path / "data")]
    out = tmp_path / "out"
    before = settings(out, *train, *TINY, *opts)
    assert changed_settings(before, settings(out, *train, *TINY, *opts)) == {}
    assert changed_settings(before, settings(out, config=out / "config.yaml")) == {}


def test_what_the_user_changes_is_listed_as_the_user_writes_it(tmp_path):
    first, second = coco(tmp_path / "a"), coco(tmp_path / "b")
    out = tmp_path / "out"
    before = settings(out, "DATASETS.TRAIN", first, *TINY)
    opts = ["DATASETS.TRAIN", second, "SOLVER.BASE_LR", "0.001"]
    changes = changed_settings(before, settings(out, *opts, config=out / "config.yaml"))
    assert set(changes) == {"DATASETS.TRAIN", "SOLVER.BASE_LR"}
    assert changes["DATASETS.TRAIN"].startswith("('coco:")
