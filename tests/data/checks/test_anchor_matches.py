"""Matched anchors, compared with the labels that Detectron2's own RPN and RetinaNet give them."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from libra_d2.data.checks.anchor_matches import AnchorSettings

from ...support.models import FEW_CLASSES, NARROW, build

SIZE = (96, 160)  # height and width
BOXES = [
    [0.0, 0.0, 32.0, 32.0],
    [40.0, 20.0, 100.0, 90.0],
    [45.0, 22.0, 105.0, 92.0],  # competes with the one before for its anchors
    [120.0, 70.0, 124.0, 73.0],  # too small for any anchor
    [0.0, 90.0, 160.0, 96.0],  # too flat
]
RPN = "configs/libra_mobilenet_v2.yaml"
RETINANET = "configs/libra_retinanet_r50.yaml"
CONFIGS = [RPN, "configs/libra_cascade_r50.yaml", "configs/libra_mask_r50.yaml", RETINANET]


def target(boxes):
    instances = Instances(SIZE)
    instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return instances


def matched(model, boxes):
    settings = AnchorSettings.of(model)
    anchors = settings.anchors(*SIZE)
    return settings, anchors, settings.match(target(boxes).gt_boxes, anchors, SIZE)


def labels_of_rpn(model, anchors, boxes, monkeypatch):
    rpn = model.proposal_generator
    monkeypatch.setattr(rpn, "_subsample_labels", lambda labels: labels)
    labels, gt_boxes = rpn.label_and_sample_anchors(anchors, [target(boxes)])
    return labels[0] == 1, gt_boxes[0]


def labels_of_retinanet(model, anchors, boxes):
    labels, gt_boxes = model.label_anchors(anchors, [target(boxes)])
    return (labels[0] >= 0) & (labels[0] != model.num_classes), gt_boxes[0]


@pytest.mark.parametrize("boxes", [BOXES, BOXES[:1], BOXES[3:4], []])
@pytest.mark.parametrize("opts", [(), ("MODEL.RPN.BOUNDARY_THRESH", "0")])
def test_foreground_is_that_of_detectron2s_rpn(boxes, opts, monkeypatch):
    model = build(RPN, *FEW_CLASSES, *opts)
    _, anchors, matches = matched(model, boxes)
    foreground, gt_boxes = labels_of_rpn(model, anchors, boxes, monkeypatch)
    assert matches.num_foreground.sum() == foreground.sum()
    of_object = [(gt_boxes[foreground] == torch.tensor(b)).all(1).sum().item() for b in boxes]
    assert matches.num_foreground.tolist() == of_object


@pytest.mark.parametrize("boxes", [BOXES, BOXES[3:4], []])
def test_foreground_is_that_of_detectron2s_retinanet(boxes):
    model = build(RETINANET, *NARROW, *FEW_CLASSES)
    _, anchors, matches = matched(model, boxes)
    foreground, gt_boxes = labels_of_retinanet(model, anchors, boxes)
    of_object = [(gt_boxes[foreground] == torch.tensor(b)).all(1).sum().item() for b in boxes]
    assert matches.num_foreground.tolist() == of_object
    assert matches.num_foreground.sum() == foreground.sum()


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", [(96, 160), (64, 224)])
def test_anchors_lie_where_the_model_puts_them(config, size):
    """The grids follow from the padded size; here, they are compared with real feature maps."""
    model = build(config, *NARROW, *FEW_CLASSES)
    settings = AnchorSettings.of(model)
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, *size))
    expected = settings.generator([features[level] for level in settings.levels])
    actual = settings.anchors(*size)
    assert [len(a) for a in actual] == [len(a) for a in expected]
    assert all(torch.equal(a.tensor, e.tensor) for a, e in zip(actual, expected))


def test_the_best_anchor_is_the_one_of_the_largest_iou():
    """An object with the place and shape of an anchor: 32 x 32 around the corner of the image."""
    settings, _, matches = matched(build(RPN, *FEW_CLASSES), [[-16.0, -16.0, 16.0, 16.0]])
    assert settings.levels == ("p2", "p3", "p4", "p5", "p6")
    assert matches.best_ious.tolist() == [1.0] and matches.best_levels.tolist() == [0]
    assert matches.best_anchors.tolist() == [[-16.0, -16.0, 16.0, 16.0]]
    # 128 x 128 is the size of the third level.
    _, _, matches = matched(build(RPN, *FEW_CLASSES), [[-16.0, -16.0, 112.0, 112.0]])
    assert matches.best_levels.tolist() == [2] and matches.best_ious.tolist() == [1.0]


def test_what_no_anchor_fits_is_below_the_background_threshold():
    settings, _, matches = matched(build(RPN, *FEW_CLASSES), BOXES)
    assert settings.background_iou == 0.3
    assert (matches.best_ious < 0.3).tolist() == [False, False, False, True, True]
    # It still trains the anchors that overlap it most, which is why it counts as foreground.
    assert matches.num_foreground[3] > 0
    retinanet = AnchorSettings.of(build(RETINANET, *NARROW, *FEW_CLASSES))
    assert retinanet.background_iou == 0.4


def test_anchors_that_are_left_out_fit_nothing():
    """With MODEL.RPN.BOUNDARY_THRESH 0, an anchor that extends beyond the image does not count."""
    edge = [[0.0, 0.0, 20.0, 20.0]]
    _, _, every = matched(build(RPN, *FEW_CLASSES), edge)
    assert every.best_anchors.min() < 0
    _, _, inside = matched(build(RPN, *FEW_CLASSES, "MODEL.RPN.BOUNDARY_THRESH", "0"), edge)
    assert inside.best_anchors.min() >= 0 and inside.num_foreground < every.num_foreground


def test_a_detector_without_anchors_has_none():
    opts = (*NARROW, *FEW_CLASSES)
    assert AnchorSettings.of(build("configs/libra_fast_r50.yaml", *opts)) is None
    assert AnchorSettings.of(torch.nn.Linear(1, 1)) is None


def test_of_equal_anchors_the_nearest_is_shown():
    """A tiny object lies in many anchors of the same size, which overlap it equally."""
    _, _, matches = matched(build(RPN, *FEW_CLASSES), [[79.0, 47.0, 81.0, 49.0]])
    assert matches.num_foreground[0] > 9
    left, top, right, bottom = matches.best_anchors[0].tolist()
    assert abs((left + right) / 2 - 80) <= 2 and abs((top + bottom) / 2 - 48) <= 2
