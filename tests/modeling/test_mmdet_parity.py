"""
Whole models with mmdetection's weights against mmdetection's own outputs on the same image.

Tolerances: features 1e-5 of their norm (mmdetection's own are up to 5e-6 away from the same model
in float64, ours up to 3e-6), deltas 1e-4, logits 1e-4 or 1e-5 of the largest (those of Faster R-CNN
reach 33, where mmdetection's are 2e-4 away from float64, ours 9e-5), boxes 1e-2 pixels and scores
1e-5: less than anybody rounds them to, and far less than any of the differences between the two
frameworks makes.
"""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.engine import load_cfg
from tests.checkpoint.mmdet_models import state_dict
from tests.support.project import assert_close, golden_folder

FASTER = "libra-faster-rcnn_r50_fpn_1x_coco"
RETINANET = "libra-retinanet_r50_fpn_1x_coco"


def load(config, name, folder):
    """The model, with the weights loaded as a user loads a downloaded file."""
    path = str(folder / f"{name}.pth")
    torch.save({"state_dict": state_dict(name), "meta": {"mmdet_version": "3.3.0"}}, path)
    cfg = load_cfg(f"configs/mmdet/{config}.yaml", ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", path])
    model = build_model(cfg).eval()
    LibraCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    with np.load(golden_folder() / f"{name}.npz") as file:
        golden = {k: torch.from_numpy(file[k]) for k in file.files}
    inputs = [{"image": golden["rgb"].permute(2, 0, 1)}]
    return model, golden, inputs


@pytest.fixture(scope="module")
def faster(tmp_path_factory):
    return load("libra_r50", FASTER, tmp_path_factory.mktemp("faster"))


@pytest.fixture(scope="module")
def retinanet(tmp_path_factory):
    return load("libra_retinanet_r50", RETINANET, tmp_path_factory.mktemp("retinanet"))


def assert_same_features(model, golden, inputs):
    images = model.preprocess_image(inputs)
    assert_close(images.tensor[:, :, ::8, ::8], golden["normalized"], 1e-5)
    features = model.backbone(images.tensor)
    for i, feature in enumerate(features.values()):
        expected = golden[f"feature{i}"]
        assert (feature[:, ::16] - expected).norm() <= 1e-5 * expected.norm(), i
    return images, features


def assert_close_logits(actual, expected):
    assert_close(actual, expected, max(1e-4, 1e-5 * expected.abs().max().item()))


def assert_same_detections(model, golden, inputs):
    instances = model(inputs)[0]["instances"]
    assert len(instances) == 100
    assert torch.equal(instances.pred_classes, golden["labels"])
    assert_close(instances.scores, golden["scores"], 1e-5)
    assert_close(instances.pred_boxes.tensor, golden["boxes"], 1e-2)


@torch.no_grad()
def test_faster_rcnn(faster):
    model, golden, inputs = faster
    images, features = assert_same_features(model, golden, inputs)
    boxes = Instances(images.image_sizes[0], proposal_boxes=Boxes(golden["rois"][:, 1:]))
    heads = model.roi_heads
    pooled = heads.box_pooler([features[f] for f in heads.box_in_features], [boxes.proposal_boxes])
    logits, deltas = heads.box_predictor(heads.box_head(pooled))
    assert_close_logits(logits, golden["roi_logits"])
    assert_close(deltas, golden["roi_deltas"], 1e-4)
    proposals, _ = model.proposal_generator(images, features)
    # In any order: some of the 1000 have the same score but for rounding.
    away = torch.cdist(
        proposals[0].proposal_boxes.tensor,
        golden["proposals"],
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    assert max(away.amin(0).max(), away.amin(1).max()) <= 1e-2
    assert_close(proposals[0].objectness_logits.sigmoid(), golden["proposal_scores"], 1e-5)
    assert_same_detections(model, golden, inputs)


@torch.no_grad()
def test_retinanet(retinanet):
    model, golden, inputs = retinanet
    _, features = assert_same_features(model, golden, inputs)
    logits, deltas = model.head([features[f] for f in model.head_in_features])
    for i, (cls, reg) in enumerate(zip(logits, deltas)):
        # Ours are ordered size by size, the reference's ratio by ratio.
        cls, reg = (x.unflatten(1, (3, 3, -1)).transpose(1, 2).flatten(1, 3) for x in (cls, reg))
        assert_close_logits(cls[:, ::37], golden[f"logits{i}"])
        assert_close(reg, golden[f"deltas{i}"], 1e-4)
    assert_same_detections(model, golden, inputs)
