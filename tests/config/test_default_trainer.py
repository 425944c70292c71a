"""Detectron2's own DefaultTrainer with the keys and configs of libra_d2."""

import copy
import logging

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer

from libra_d2 import add_libra_config
from libra_d2.config import check_for_detectron2
from libra_d2.errors import UserError

from ..support.coco_files import write_dataset
from ..support.project import ROOT

CONFIGS = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("configs/**/*.yaml"))
SMALL = (
    "MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 "
    "MODEL.RESNETS.NUM_GROUPS 1 MODEL.RESNETS.WIDTH_PER_GROUP 64 MODEL.RESNETS.STRIDE_IN_1X1 False "
    "MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 8 "
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 50 MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16 "
    "MODEL.RETINANET.NUM_CONVS 1 SOLVER.MAX_ITER 3 SOLVER.IMS_PER_BATCH 1 DATALOADER.NUM_WORKERS 0 "
    "INPUT.MIN_SIZE_TRAIN (64,) INPUT.MAX_SIZE_TRAIN 96"
).split()


def config(name, *opts):
    cfg = get_cfg()
    add_libra_config(cfg)
    cfg.merge_from_file(str(ROOT / name))
    cfg.merge_from_list([*SMALL, *opts])
    cfg.MODEL.WEIGHTS = ""
    return cfg


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two images with boxes, masks and proposals."""
    folder = tmp_path_factory.mktemp("data")
    json_file, images = write_dataset(folder)
    from detectron2.data.datasets import load_coco_json

    dicts = load_coco_json(json_file, images, "tests_default_trainer")
    for d in dicts:
        d["proposal_boxes"] = np.array([[0, 0, 20, 20], [5, 5, 30, 30]], dtype=np.float32)
        d["proposal_objectness_logits"] = np.zeros(2, dtype=np.float32)
        d["proposal_bbox_mode"] = 0
        for a in d["annotations"]:
            x, y, w, h = a["bbox"]
            a["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    DatasetCatalog.register("tests_default_trainer_data", lambda: dicts)
    yield "tests_default_trainer_data"
    for name in ("tests_default_trainer_data", "tests_default_trainer"):
        MetadataCatalog.pop(name, None)
    DatasetCatalog.remove("tests_default_trainer_data")


class Trainer(DefaultTrainer):
    def build_hooks(self):  # evaluation and checkpoints are no matter here
        return []

    @classmethod
    def build_train_loader(cls, cfg):
        from detectron2.data import DatasetMapper, build_detection_train_loader

        return build_detection_train_loader(
            DatasetCatalog.get(cfg.DATASETS.TRAIN[0]),
            mapper=DatasetMapper(cfg, is_train=True),
            total_batch_size=1,
            sampler=None,
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_three_steps_of_each_config(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "disabled", True)
    cfg = config(name, "OUTPUT_DIR", str(tmp_path))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (data,), ()
    if cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE == "global_norm":  # refused, see below
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.INPUT.AUGMENTATIONS = ()  # the same
    check_for_detectron2(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    before = [p.detach().clone() for p in trainer.model.parameters() if p.requires_grad]
    trainer.train()
    after = [p for p in trainer.model.parameters() if p.requires_grad]
    assert trainer.iter == 3
    assert all(p.isfinite().all() for p in after)
    assert not all(torch.equal(p, q) for p, q in zip(before, after))


def test_keys_that_only_libra_trainer_implements_are_listed():
    cfg = config("configs/demo.yaml", "SOLVER.OPTIMIZER", "AdamW", "SOLVER.EMA_DECAY", "0.999")
    cfg.merge_from_list(["SOLVER.ACCUMULATION_STEPS", "2", "INPUT.FIXED_SIZE", "(64, 64)"])
    cfg.MODEL.WEIGHTS = "torchvision://mobilenet_v2"
    with pytest.raises(UserError) as e:
        check_for_detectron2(cfg)
    for text in (
        "6 mistakes",
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE is 'global_norm', which only",
        "SOLVER.OPTIMIZER is 'AdamW'",
        "SOLVER.EMA_DECAY is 0.999",
        "SOLVER.ACCUMULATION_STEPS is 2",
        "INPUT.FIXED_SIZE is (64, 64)",
        "LibraCheckpointer",
    ):
        assert text in str(e.value)


def default_trainer(data, tmp_path, name, *opts):
    cfg = config(name, "OUTPUT_DIR", str(tmp_path), *opts)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (data,), ()
    return Trainer(cfg)


def test_a_clip_type_of_ours_is_refused_by_its_name(data, tmp_path):
    with pytest.raises(UserError, match=r"CLIP_TYPE must be .*, got 'global_norm', which only"):
        default_trainer(data, tmp_path, "configs/libra_mobilenet_v2.yaml")
    with pytest.raises(ValueError, match="is not a valid GradientClipType"):
        default_trainer(
            data,
            tmp_path,
            "configs/libra_mobilenet_v2.yaml",
            "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
            "x",
        )


@pytest.mark.parametrize("name", ["configs/libra_r50.yaml", "configs/libra_retinanet_r50.yaml"])
def test_ignored_settings_end_the_first_step(data, tmp_path, name):
    trainer = default_trainer(
        data, tmp_path, name, "SOLVER.EMA_DECAY", "0.999", "SOLVER.ACCUMULATION_STEPS", "2"
    )
    with pytest.raises(UserError, match=r"(?s)2 mistakes.*SOLVER.ACCUMULATION_STEPS.*SOLVER.EMA"):
        trainer.train()


def test_ignored_settings_do_not_matter_to_inference(data, tmp_path):
    trainer = default_trainer(data, tmp_path, "configs/libra_r50.yaml", "SOLVER.EMA_DECAY", "0.999")
    copied = copy.deepcopy(trainer.model).eval()
    assert len(copied([{"image": torch.zeros(3, 64, 64)}])) == 1


FOREIGN = {
    "mmdetection": {"backbone.conv1.weight": torch.zeros(1), "neck.lateral_convs.0.conv.bias": 0},
    "a torchvision classifier": {"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": 0},
    "a torchvision detector": {"backbone.body.conv1.weight": torch.zeros(1)},
}


@pytest.mark.parametrize("kind", sorted(FOREIGN))
@pytest.mark.parametrize("name", ["configs/libra_r50.yaml", "configs/ablations/baseline.yaml"])
def test_weights_of_other_projects_are_not_skipped_silently(data, tmp_path, kind, name):
    weights = FOREIGN[kind]
    torch.save(
        {k: torch.zeros(1) if isinstance(v, int) else v for k, v in weights.items()},
        tmp_path / "weights.pth",
    )
    trainer = default_trainer(data, tmp_path, name)
    trainer.cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"libra_d2\.checkpoint.LibraCheckpointer"):
        trainer.resume_or_load(resume=False)
