"""Detectron2's own options for uneven data, with the heads of libra_d2: a few steps of each."""

import json
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import get_fed_loss_cls_weights

from libra_d2.config import load_cfg
from libra_d2.data import setup_datasets
from libra_d2.engine import LibraTrainer
from libra_d2.errors import UserError
from libra_d2.inference.trained_detector import load_detector

from ..support.coco_files import write_dataset
from ..support.dataset_configs import cfg_for
from ..support.train_net_runs import SMALL

FED = (
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE True MODEL.ROI_BOX_HEAD.USE_FED_LOSS True "
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES 2"
).split()
OPTIONS = {
    "repeat factors": "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler "
    "DATALOADER.REPEAT_THRESHOLD 0.8",
    "giou": "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE giou MODEL.RPN.BBOX_REG_LOSS_TYPE giou",
    "diou": "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE diou MODEL.RPN.BBOX_REG_LOSS_TYPE diou",
    "ciou": "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE ciou MODEL.RPN.BBOX_REG_LOSS_TYPE ciou",
    "sigmoid": "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE True",
    "federated": " ".join(FED),
}


@pytest.fixture
def files(tmp_path):
    """Two images have a cat; a third one has a cat and a dog."""
    annotations, images = write_dataset(tmp_path / "data")
    content = json.loads(Path(annotations).read_text())
    dog = {**content["annotations"][-1], "id": 99, "category_id": 20, "bbox": [30, 5, 20, 20]}
    content["annotations"].append(dog)
    Path(annotations).write_text(json.dumps(content))
    return annotations, images


def set_up(files, folder, *opts):
    cfg = cfg_for(
        files, files, *SMALL, "OUTPUT_DIR", str(folder), "MODEL.WEIGHTS", "", "SEED", "1", *opts
    )
    setup_datasets(cfg, num_classes_given=False)
    return cfg


@pytest.mark.parametrize("name", OPTIONS)
def test_each_trains_and_is_found_again(tmp_path, files, name):
    cfg = set_up(files, tmp_path / "out", "TEST.EVAL_PERIOD", "0", *OPTIONS[name].split())
    trainer = LibraTrainer(cfg)
    before = trainer.model.roi_heads.box_predictor.bbox_pred.weight.clone()
    trainer.train()
    after = trainer.model.roi_heads.box_predictor.bbox_pred.weight
    assert after.isfinite().all() and not after.equal(before)


def test_the_federated_loss_counts_images_by_class(tmp_path, files):
    cfg = set_up(files, tmp_path / "out", *FED)
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).class_image_count == [
        {"id": 0, "image_count": 3},
        {"id": 1, "image_count": 1},
    ]
    weights = get_fed_loss_cls_weights(cfg.DATASETS.TRAIN, 0.5)
    assert weights.tolist() == pytest.approx([3**0.5, 1])


def test_a_trained_federated_detector_needs_no_training_set(tmp_path, files):
    cfg = set_up(files, tmp_path / "out", "TEST.EVAL_PERIOD", "0", *FED)
    LibraTrainer(cfg).train()
    (tmp_path / "out/config.yaml").write_text(cfg.dump())
    opts = ["DATASETS.TRAIN", "('gone',)", "DATASETS.TEST", "()"]
    detector = load_detector(str(tmp_path / "out"), opts=opts)
    weights = detector.model.roi_heads.box_predictor.fed_loss_cls_weights
    assert weights.tolist() == pytest.approx([3**0.5, 1])


def test_too_few_classes_for_the_federated_loss_are_refused(tmp_path, files):
    with pytest.raises(UserError, match=r"FED_LOSS_NUM_CLASSES must be at most 2, .* got 3"):
        set_up(files, tmp_path / "out", *FED[:-1], "3")


def test_the_federated_loss_needs_sigmoids():
    with pytest.raises(UserError, match=r"USE_SIGMOID_CE must be True with .*USE_FED_LOSS"):
        load_cfg("configs/libra_mobilenet_v2.yaml", FED[2:], purpose="train")
