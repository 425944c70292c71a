import copy

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from libra_d2.data import register_coco
from libra_d2.engine import load_cfg
from libra_d2.evaluation.validation_loss import validation_losses
from libra_d2.utils import progress

from ..support.coco_files import write_dataset
from ..support.models import NARROW

CONFIGS = {
    "rcnn": "configs/libra_mobilenet_v2.yaml",
    "retinanet": "configs/libra_retinanet_r50.yaml",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return register_coco(*write_dataset(tmp_path_factory.mktemp("val"), num_images=3))


@pytest.mark.parametrize("kind", CONFIGS)
def test_losses_of_the_images_and_nothing_else(kind, dataset, monkeypatch, capsys):
    opts = [*NARROW, "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"]
    opts += ["MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.RETINANET.NUM_CLASSES", "2"]
    norm = "MODEL.RESNETS.NORM" if kind == "retinanet" else "MODEL.CLASSIFIER.NORM"
    cfg = load_cfg(CONFIGS[kind], [*opts, norm, "BN"])
    cfg.DATASETS.TEST = (dataset,)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    before = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "LINE_PERIOD", 0)
    with EventStorage() as storage:
        first = validation_losses(cfg, model)
        model.eval()
        torch.rand(1)
        again = validation_losses(cfg, model)
        assert not storage.latest()  # what a model logs in training is not logged
    shown = capsys.readouterr().err
    assert "Validation loss: 100%" in shown and "3/3" in shown
    assert first == again, "it depends on the random stream, or on the model's mode"
    names = {"total_loss", "loss_cls", "loss_box_reg"}
    assert names <= set(first)
    parts = sum(v for k, v in first.items() if k != "total_loss")
    assert first["total_loss"] == pytest.approx(parts) and parts > 0
    assert not model.training and not hasattr(model, "loss_normalizer")
    model.train()
    assert all(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[0][key]), f"{key} has changed"
