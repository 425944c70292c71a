import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from libra_d2.engine import load_cfg
from libra_d2.modeling import LibraFastRCNNOutputLayers, balanced_l1_loss

TRANSFORM = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))


def layers(cls=LibraFastRCNNOutputLayers, **kwargs):
    torch.manual_seed(0)
    return cls(ShapeSpec(channels=6), box2box_transform=TRANSFORM, num_classes=3, **kwargs)


def sampled_proposals(gt_classes):
    boxes = torch.rand(len(gt_classes), 4) * 50
    boxes[:, 2:] += boxes[:, :2] + 5
    proposals = Instances((120, 120))
    proposals.proposal_boxes = Boxes(boxes)
    proposals.gt_boxes = Boxes(boxes + torch.randn_like(boxes))
    proposals.gt_classes = torch.tensor(gt_classes, dtype=torch.int64)
    return proposals


def losses(predictor, proposals):
    with EventStorage():
        return predictor.losses(predictor(torch.randn(sum(map(len, proposals)), 6)), proposals)


@pytest.mark.parametrize("agnostic", [False, True])
def test_loss_is_balanced_l1_of_the_foreground_over_all_samples(agnostic):
    predictor = layers(box_reg_loss_type="balanced_l1", cls_agnostic_bbox_reg=agnostic)
    proposals = sampled_proposals([0, 2, 3, 3, 1, -1])  # 3 is background, -1 is ignored
    _, deltas = predictor(torch.randn(6, 6))
    foreground = [0, 1, 4]
    targets = TRANSFORM.get_deltas(proposals.proposal_boxes.tensor, proposals.gt_boxes.tensor)
    expected = 0
    for i in foreground:
        k = 0 if agnostic else proposals.gt_classes[i]
        expected += balanced_l1_loss(deltas[i, 4 * k : 4 * k + 4], targets[i]).sum()
    actual = predictor.box_reg_loss(
        proposals.proposal_boxes.tensor, proposals.gt_boxes.tensor, deltas, proposals.gt_classes
    )
    assert actual.item() == pytest.approx((expected / 6).item(), rel=1e-5)


def test_parameters_of_the_loss_are_used():
    proposals = sampled_proposals([0, 1, 2])
    values = set()
    for setting in (
        {},
        {"alpha": 0.2},
        {"gamma": 1.0},
        {"beta": 0.3},
        {"beta": 0.3, "form": "mmdet"},
    ):
        torch.manual_seed(1)
        predictor = layers(box_reg_loss_type="balanced_l1", balanced_l1=setting)
        values.add(losses(predictor, [proposals])["loss_box_reg"].item())
    assert len(values) == 5


@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou"])
def test_other_losses_are_detectron2s(loss_type):
    proposals = [sampled_proposals([0, 3, 1])]
    values = []
    for cls in (FastRCNNOutputLayers, LibraFastRCNNOutputLayers):
        predictor = layers(cls, box_reg_loss_type=loss_type)
        torch.manual_seed(3)
        values.append(losses(predictor, proposals))
    assert values[0] == values[1]


def test_keys_and_weights_of_losses_are_kept():
    proposals, values = [sampled_proposals([0, 3, 1])], []
    for weight in (1.0, 2.0):
        predictor = layers(box_reg_loss_type="balanced_l1", loss_weight={"loss_box_reg": weight})
        torch.manual_seed(3)
        values.append(losses(predictor, proposals))
    assert set(values[0]) == {"loss_cls", "loss_box_reg"}
    assert values[1]["loss_box_reg"] == 2 * values[0]["loss_box_reg"] > 0


@pytest.mark.parametrize("gt_classes", [[], [3, 3]])
def test_no_foreground_gives_a_zero_that_backpropagates(gt_classes):
    predictor = layers(box_reg_loss_type="balanced_l1")
    loss = losses(predictor, [sampled_proposals(gt_classes)])["loss_box_reg"]
    loss.backward()
    assert loss == 0
    assert predictor.bbox_pred.weight.grad.abs().max() == 0


def test_config_reaches_the_predictor():
    cfg = load_cfg(
        "configs/libra_r50.yaml",
        ["MODEL.ROI_BOX_HEAD.CLS_LOSS_WEIGHT", "0.5", "MODEL.ROI_BOX_HEAD.BALANCED_L1.BETA", "0.2"],
    )
    predictor = LibraFastRCNNOutputLayers(cfg, ShapeSpec(channels=6))
    assert predictor.box_reg_loss_type == "balanced_l1"
    assert predictor.loss_weight == {"loss_cls": 0.5, "loss_box_reg": 1.0}
    assert predictor.balanced_l1 == {"alpha": 0.5, "gamma": 1.5, "beta": 0.2, "form": "continuous"}


@pytest.mark.parametrize(
    "kwargs,named",
    [
        ({"box_reg_loss_type": "balanced"}, "BBOX_REG_LOSS_TYPE must be .*, got 'balanced'"),
        ({"balanced_l1": {"alpha": 0.0}}, "alpha must be > 0"),
        ({"balanced_l1": {"form": "mmdetection"}}, "form must be one of .*, got 'mmdetection'"),
    ],
)
def test_bad_setting_is_refused_when_the_model_is_built(kwargs, named):
    with pytest.raises(ValueError, match=named):
        layers(**kwargs)
