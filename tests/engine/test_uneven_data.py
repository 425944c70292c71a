"""Detectron2's own options for uneven data, with the detectors of libra_d2: a few steps each."""

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
from ..support.detector_runs import RETINANET
from ..support.train_net_runs import SMALL

FED = (
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE True MODEL.ROI_BOX_HEAD.USE_FED_LOSS True "
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES 2"
).split()
CASCADE = (
    "MODEL.ROI_HEADS.NAME LibraCascadeROIHeads MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True"
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
RUNS = {
    **{name: options.split() for name, options in OPTIONS.items()},
    # All in one run, because each one takes time.
    "cascade": [*CASCADE, *FED, *OPTIONS["giou"].split()],
    "retinanet": [*RETINANET, "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou"],
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


@pytest.mark.parametrize("name", RUNS)
def test_each_trains_all_heads(tmp_path, files, name):
    cfg = set_up(files, tmp_path / "out", "TEST.EVAL_PERIOD", "0", *RUNS[name])
    trainer = LibraTrainer(cfg)
    outputs = {
        key: weight
        for key, weight in trainer.model.named_parameters()
        if key.endswith(("bbox_pred.weight", "cls_score.weight"))
    }
    assert len(outputs) == (6 if name == "cascade" else 2)
    before = {key: weight.clone() for key, weight in outputs.items()}
    trainer.train()
    for key, weight in outputs.items():
        assert weight.isfinite().all() and not weight.equal(before[key]), key


def test_the_federated_loss_counts_images_by_class(tmp_path, files):
    cfg = set_up(files, tmp_path / "out", *FED)
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).class_image_count == [
        {"id": 0, "image_count": 3},
        {"id": 1, "image_count": 1},
    ]
    weights = get_fed_loss_cls_weights(cfg.DATASETS.TRAIN, 0.5)
    assert weights.tolist() == pytest.approx([3**0.5, 1])


@pytest.mark.parametrize("heads", [[], CASCADE], ids=["standard", "cascade"])
def test_a_trained_federated_detector_needs_no_training_set(tmp_path, files, heads):
    cfg = set_up(files, tmp_path / "out", "TEST.EVAL_PERIOD", "0", *FED, *heads)
    LibraTrainer(cfg).train()
    (tmp_path / "out/config.yaml").write_text(cfg.dump())
    opts = ["DATASETS.TRAIN", "('gone',)", "DATASETS.TEST", "()"]
    detector = load_detector(str(tmp_path / "out"), opts=opts)
    weights = [
        w for name, w in detector.model.named_buffers() if name.endswith("fed_loss_cls_weights")
    ]
    assert len(weights) == (3 if heads else 1)
    assert all(w.tolist() == pytest.approx([3**0.5, 1]) for w in weights)


def test_too_few_classes_for_the_federated_loss_are_refused(tmp_path, files):
    with pytest.raises(UserError, match=r"FED_LOSS_NUM_CLASSES must be at most 2, .* got 3"):
        set_up(files, tmp_path / "out", *FED[:-1], "3")


def test_the_federated_loss_needs_sigmoids():
    with pytest.raises(UserError, match=r"USE_SIGMOID_CE must be True with .*USE_FED_LOSS"):
        load_cfg("configs/libra_mobilenet_v2.yaml", FED[2:], purpose="train")


@pytest.mark.parametrize(
    "opts",
    [
        RETINANET,
        [*RETINANET, "MODEL.META_ARCHITECTURE", "RetinaNet"],
        ["MODEL.META_ARCHITECTURE", "ProposalNetwork"],
    ],
)
def test_the_federated_loss_needs_box_heads(tmp_path, files, opts):
    """Detectors without them would ignore it. So does the check of the number of classes."""
    with pytest.raises(UserError, match=r"USE_FED_LOSS must be False with .*got True"):
        load_cfg("configs/libra_mobilenet_v2.yaml", [*FED, *opts], purpose="train")
    set_up(files, tmp_path / "out", *FED[:-1], "3", *opts)
