"""Whole models, built from the configs."""

from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from libra_d2 import add_libra_config
from libra_d2.engine import load_cfg

from ..support.models import (
    ALL_SCORES,
    FEW_CLASSES,
    NARROW,
    assert_trains_and_detects,
    batch,
    build,
    losses_of,
)
from ..support.project import ROOT

CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if not p.name.startswith("Base"))


def num_parameters(model):
    """Parameters and FrozenBN statistics, which is how the MindSpore README counts."""
    skip = ("pixel_mean", "pixel_std", "num_batches_tracked")
    return sum(v.numel() for k, v in model.state_dict().items() if not k.endswith(skip))


def test_parameter_count_is_the_published_one():
    assert num_parameters(build("configs/libra_r50.yaml")) == 42_069_344
    assert (
        num_parameters(build("configs/libra_r50.yaml", "MODEL.BFP.ENABLED", "False")) == 41_806_176
    )


def detectron2_twin():
    """libra_r50.yaml as a user of bare Detectron2 writes it."""
    cfg = get_cfg()
    add_libra_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/libra_r50.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "smooth_l1"
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = -1.0  # with random weights, scores are zero
    return cfg


def test_all_off_is_detectron2_bit_for_bit():
    """Same keys, same initial weights, same losses and gradients, same detections."""
    torch.manual_seed(0)
    upstream = build_model(detectron2_twin())
    ours = build("configs/ablations/baseline.yaml", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "-1.0")
    assert list(ours.state_dict()) == list(upstream.state_dict())
    for name, value in upstream.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name

    losses = [losses_of(m) for m in (upstream, ours)]
    assert losses[0] == losses[1]
    for values in losses:
        sum(values.values()).backward()
    for (name, p), q in zip(upstream.named_parameters(), ours.parameters()):
        assert (p.grad is None) == (q.grad is None), name
        assert p.grad is None or torch.equal(p.grad, q.grad), name

    with torch.no_grad():
        detections = [m.eval()(batch())[0]["instances"] for m in (upstream, ours)]
    assert len(detections[0]) > 0
    assert torch.equal(detections[0].pred_boxes.tensor, detections[1].pred_boxes.tensor)
    assert torch.equal(detections[0].scores, detections[1].scores)


@pytest.mark.parametrize(
    "part",
    [
        ("MODEL.BFP.ENABLED", "True"),
        ("MODEL.ROI_HEADS.SAMPLER.POSITIVES", "instance_balanced"),
        ("MODEL.ROI_HEADS.SAMPLER.NEGATIVES", "iou_balanced"),
        ("MODEL.RPN.SAMPLER.NEG_POS_UB", "1.0"),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "balanced_l1"),
    ],
)
def test_each_part_switches_on_alone(part):
    # Eight samples an image, two of them positive, so that the samplers have to choose.
    few = ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8", *NARROW)
    off = losses_of(build("configs/ablations/baseline.yaml", *few))
    on = losses_of(build("configs/ablations/baseline.yaml", *few, *part))
    assert on != off
    assert all(torch.isfinite(v) for v in on.values())


@pytest.mark.parametrize("config", CONFIGS, ids=[str(p.relative_to(ROOT)) for p in CONFIGS])
def test_every_config_trains_and_detects(config):
    """One step and one inference; a parameter without a gradient would break DDP."""
    narrow = [*NARROW, "MODEL.RESNETS.WIDTH_PER_GROUP", "4"] if "x101" in config.name else NARROW
    # With random weights all scores are low, and what is behind the boxes would see none.
    # A model of a config with this list trains with LibraTrainer only.
    opts = [*narrow, *ALL_SCORES, *FEW_CLASSES, "INPUT.AUGMENTATIONS", "()"]
    assert_trains_and_detects(build(config, *opts), masks="mask" in config.name)


def test_batch_without_objects():
    model = build("configs/libra_mobilenet_v2.yaml")
    with EventStorage():
        losses = model.train()(batch((0, 0)))
    sum(losses.values()).backward()
    assert losses["loss_box_reg"] == 0
    assert all(torch.isfinite(v) for v in losses.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_training_step(dtype):
    model = build("configs/libra_mobilenet_v2.yaml").train()
    with EventStorage(), torch.autocast("cpu", dtype):
        losses = model(batch())
    assert all(torch.isfinite(v) for v in losses.values())


@pytest.mark.gpu
def test_training_step_on_cuda():
    cfg = load_cfg("configs/libra_r50.yaml")
    model = build_model(cfg).train()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        with EventStorage(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            losses = model(batch())
        sum(losses.values()).backward()
        assert all(v.is_cuda and torch.isfinite(v) for v in losses.values())


def test_documented_configs_exist():
    names = {str(p.relative_to(ROOT / "configs")) for p in CONFIGS}
    wanted = {"libra_r50.yaml", "libra_r101.yaml", "libra_x101.yaml", "demo.yaml"}
    family = ("retinanet_r50", "fast_r50", "mask_r50", "cascade_r50", "x101_32x8d")
    wanted |= {f"libra_{name}.yaml" for name in family}
    published = ("r50", "r101", "x101", "retinanet_r50", "fast_r50")
    wanted |= {str(Path("mmdet") / f"libra_{name}.yaml") for name in published}
    ablations = ("baseline", "sampling", "bfp", "balanced_l1", "all")
    assert wanted | {str(Path("ablations") / f"{a}.yaml") for a in ablations} <= names


def test_schedule_is_the_papers():
    cfg = load_cfg("configs/libra_r50.yaml")
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER) == (16, 0.02, 90000)
    assert (solver.STEPS, solver.WARMUP_ITERS) == ((60000, 80000), 500)
