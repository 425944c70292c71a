import copy

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from libra_d2.engine import load_cfg
from libra_d2.engine.trainer import LibraTrainer
from libra_d2.errors import UserError
from libra_d2.modeling import balanced_l1_loss

from ..support.models import NARROW, batch, build, losses_of

CONFIG = "configs/libra_retinanet_r50.yaml"
LOSS = "MODEL.RETINANET.BBOX_REG_LOSS_TYPE"
SMALL = (*NARROW, "MODEL.RETINANET.NUM_CLASSES", "3")


def test_all_off_is_detectron2_bit_for_bit():
    off = (*SMALL, LOSS, "smooth_l1", "MODEL.BFP.ENABLED", "False")
    scores = ("MODEL.RETINANET.SCORE_THRESH_TEST", "0.0")
    ours = build(CONFIG, *off, *scores)
    upstream = build(
        CONFIG,
        *(*off, *scores, "MODEL.META_ARCHITECTURE", "RetinaNet"),
        *("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"),
    )
    assert list(ours.state_dict()) == list(upstream.state_dict())
    losses = [losses_of(m) for m in (upstream, ours)]
    assert losses[0] == losses[1]
    with torch.no_grad():
        found = [m.eval()(batch())[0]["instances"] for m in (upstream, ours)]
    assert len(found[0]) == 100
    assert torch.equal(found[0].pred_boxes.tensor, found[1].pred_boxes.tensor)
    assert torch.equal(found[0].scores, found[1].scores)


def loss_of(model, anchors, deltas, labels, boxes):
    """Box loss of N images with R anchors, all on one level."""
    logits = torch.zeros(*labels.shape, model.num_classes)
    with EventStorage():
        losses = model.losses([Boxes(anchors)], [logits], list(labels), [deltas], list(boxes))
    return losses["loss_box_reg"]


@pytest.mark.parametrize("form", ["continuous", "mmdet"])
def test_box_loss_is_balanced_l1_of_the_positive_anchors(form):
    model = build(CONFIG, *SMALL, "MODEL.RETINANET.BALANCED_L1.FORM", form)
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 25, 15], [0, 0, 4, 8]])
    boxes = anchors + torch.tensor([1.0, -1, 2, 0.5])
    labels = torch.tensor([[0, 2, 3], [3, -1, 1]])  # 3 is the background, -1 is ignored
    deltas = torch.randn(2, 3, 4, requires_grad=True)
    loss = loss_of(model, anchors, deltas, labels, boxes.expand(2, -1, -1))
    targets = model.box2box_transform.get_deltas(anchors, boxes)
    beta = {"beta": 0.11, "form": form, "reduction": "sum"}
    expected = sum(
        balanced_l1_loss(deltas[image, row], targets[row], **beta)
        for image, row in ((0, 0), (0, 1), (1, 2))
    )
    # Upstream's normaliser: a running mean of the positives that starts at 100.
    torch.testing.assert_close(loss, expected / (0.9 * 100 + 0.1 * 3))
    loss.backward()
    assert (deltas.grad.abs().sum(2) > 0).tolist() == [[True, True, False], [False, False, True]]


def test_forms_differ_and_both_train():
    losses = {
        form: losses_of(build(CONFIG, *SMALL, "MODEL.RETINANET.BALANCED_L1.FORM", form))
        for form in ("continuous", "mmdet")
    }
    assert losses["continuous"]["loss_cls"] == losses["mmdet"]["loss_cls"]
    assert losses["continuous"]["loss_box_reg"] != losses["mmdet"]["loss_box_reg"]


def test_images_without_objects():
    model = build(CONFIG, *SMALL).train()
    with EventStorage():
        losses = model(copy.deepcopy(batch((0, 0))))
    assert losses["loss_box_reg"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_p7_of_mmdetection_has_no_relu():
    torch.manual_seed(0)
    with_relu, without = (
        build(CONFIG, *SMALL, "MODEL.RETINANET.P7_RELU", on).backbone.fpn.top_block
        for on in ("True", "False")
    )
    without.load_state_dict(with_relu.state_dict())
    c5 = torch.randn(1, without.p6.in_channels, 8, 6)
    p6, p7 = without(c5)
    assert torch.equal(p6, with_relu(c5)[0])
    assert torch.equal(p7, without.p7(p6))
    assert not torch.equal(p7, with_relu(c5)[1])


def test_clipping_before_nms_merges_what_reaches_out():
    """Two boxes that are the same inside the image, and overlap too little outside of it."""
    boxes = torch.tensor([[-90.0, 0, 10, 10], [0, 0, 10, 10]])
    for clip, kept in ((False, 2), (True, 1)):
        model = build(CONFIG, *SMALL, "MODEL.RETINANET.CLIP_BEFORE_NMS", str(clip))
        found = model.inference_single_image(
            [Boxes(boxes)],
            [torch.tensor([[0.9, 0, 0], [0.8, 0, 0]])],
            [torch.zeros(2, 4)],
            (20, 20),
        )
        assert isinstance(found, Instances) and len(found) == kept


@pytest.mark.parametrize(
    "opts, message",
    [
        (
            (LOSS, "l3"),
            r"BBOX_REG_LOSS_TYPE must be one of \('balanced_l1', 'smooth_l1'.*, got 'l3'",
        ),
        (("MODEL.RETINANET.BALANCED_L1.FORM", "x"), "form"),
        (("MODEL.RETINANET.BALANCED_L1.BETA", "0.0"), "beta"),
    ],
)
def test_bad_settings_are_refused(opts, message):
    with pytest.raises(UserError, match=message):
        LibraTrainer.build_model(load_cfg(CONFIG, [*SMALL, *opts]))


def test_other_losses_are_upstreams():
    for name in ("giou", "diou", "ciou"):
        model = build(CONFIG, *SMALL, LOSS, name)
        assert model.box_reg_loss_type == name and model.balanced_l1 is None
        assert torch.isfinite(losses_of(model)["loss_box_reg"])
