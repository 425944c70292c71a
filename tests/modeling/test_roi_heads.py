import pytest
import torch
from detectron2.modeling.roi_heads import StandardROIHeads, build_roi_heads
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

from libra_d2.modeling import LibraFastRCNNOutputLayers

from ..support.small_roi_heads import SHAPES, small_cfg

RANDOM = [
    "MODEL.ROI_HEADS.SAMPLER.POSITIVES",
    "random",
    "MODEL.ROI_HEADS.SAMPLER.NEGATIVES",
    "random",
]


def image(num_objects=3, num_proposals=400):
    def boxes(n):
        xy = torch.rand(n, 2) * 80
        return torch.cat([xy, xy + 10 + torch.rand(n, 2) * 30], dim=1)

    target, proposals = Instances((128, 128)), Instances((128, 128))
    target.gt_boxes = Boxes(boxes(num_objects))
    target.gt_classes = torch.arange(num_objects) % 3
    target.gt_extra = torch.arange(num_objects) * 10
    near = target.gt_boxes.tensor.repeat(20, 1)
    near = near + torch.randn_like(near) * 2
    proposals.proposal_boxes = Boxes(torch.cat([near, boxes(num_proposals - len(near))]))
    proposals.objectness_logits = torch.rand(num_proposals)
    return proposals, target


def sample(heads, images):
    proposals, targets = zip(*images)
    with EventStorage() as storage:
        return heads.label_and_sample_proposals(list(proposals), list(targets)), storage


@pytest.mark.parametrize("append_gt", ["True", "False"])
def test_random_mode_is_upstreams(append_gt):
    """Same draws, fields, labels and logged scalars under one seed, with and without objects."""
    cfg = small_cfg("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", append_gt, *RANDOM)
    images = [image(), image(num_objects=0), image(num_objects=1)]
    results = []
    for name in ("StandardROIHeads", "LibraROIHeads"):
        cfg.MODEL.ROI_HEADS.NAME = name
        cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "smooth_l1"
        heads = build_roi_heads(cfg, SHAPES)
        torch.manual_seed(7)
        results.append(sample(heads, images))
    (upstream, upstream_log), (ours, our_log) = results
    for a, b in zip(upstream, ours):
        assert a.get_fields().keys() == b.get_fields().keys()
        for name, value in a.get_fields().items():
            value = value.tensor if isinstance(value, Boxes) else value
            other = b.get(name)
            assert torch.equal(value, other.tensor if isinstance(other, Boxes) else other), name
    assert upstream_log.latest() == our_log.latest()


def test_balanced_draw_labels_what_it_draws():
    heads = build_roi_heads(small_cfg("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "64"), SHAPES)
    (sampled,), storage = sample(heads, [image()])
    foreground = sampled.gt_classes < 3
    assert len(sampled) == 64 and foreground.sum() == 16
    assert (sampled.gt_extra[foreground] % 3 == sampled.gt_classes[foreground]).all()
    assert storage.latest()["roi_head/num_fg_samples"][0] == 16
    assert storage.latest()["roi_head/num_bg_samples"][0] == 48


def test_no_images():
    heads = build_roi_heads(small_cfg(), SHAPES)
    with EventStorage():
        assert heads.label_and_sample_proposals([], []) == []


@pytest.mark.parametrize("num_objects", [0, 2])
def test_trains_with_masks_off_and_images_without_objects(num_objects):
    heads = build_roi_heads(small_cfg(), SHAPES).train()
    features = {k: torch.randn(2, 4, 128 // s.stride, 128 // s.stride) for k, s in SHAPES.items()}
    proposals, targets = zip(image(), image(num_objects))
    images = ImageList(torch.zeros(2, 3, 128, 128), [(128, 128)] * 2)
    with EventStorage():
        _, losses = heads(images, features, list(proposals), list(targets))
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert all(p.grad is not None for p in heads.parameters())


def test_cascade_has_libras_predictors_and_samples_once():
    cfg = small_cfg(
        *("MODEL.ROI_HEADS.NAME", "LibraCascadeROIHeads"),
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
    )
    heads = build_roi_heads(cfg, SHAPES).train()
    assert len(heads.box_predictor) == 3
    weights = [p.box2box_transform.weights for p in heads.box_predictor]
    assert weights == [tuple(w) for w in cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS]
    for predictor in heads.box_predictor:
        assert isinstance(predictor, LibraFastRCNNOutputLayers)
        assert predictor.box_reg_loss_type == "balanced_l1"
    features = {k: torch.randn(1, 4, 128 // s.stride, 128 // s.stride) for k, s in SHAPES.items()}
    proposals, target = image()
    images = ImageList(torch.zeros(1, 3, 128, 128), [(128, 128)])
    with EventStorage():
        _, losses = heads(images, features, [proposals], [target])
    assert set(losses) == {f"{k}_stage{i}" for i in range(3) for k in ("loss_cls", "loss_box_reg")}
    sum(losses.values()).backward()


def test_replacing_the_predictor_leaves_the_random_stream_alone():
    cfg, after = small_cfg(), []
    for name in ("StandardROIHeads", "LibraROIHeads"):
        cfg.MODEL.ROI_HEADS.NAME = name
        torch.manual_seed(0)
        heads = build_roi_heads(cfg, SHAPES)
        after.append((torch.rand(1), heads.box_predictor.cls_score.weight))
    assert torch.equal(after[0][0], after[1][0]) and torch.equal(after[0][1], after[1][1])


def test_explicit_arguments_need_no_config():
    cfg = small_cfg()
    arguments = type(build_roi_heads(cfg, SHAPES)).from_config(cfg, SHAPES)
    heads = type(build_roi_heads(cfg, SHAPES))(**{**arguments, "sampler": {"num_bins": 5}})
    assert isinstance(heads, StandardROIHeads) and heads.sampler == {"num_bins": 5}


@pytest.mark.parametrize(
    "key,value,named",
    [
        ("BIN_RANGE", "whole", "bin_range must be .*, got 'whole'"),
        ("NUM_BINS", "0", "num_bins must be >= 1, got 0"),
    ],
)
def test_bad_setting_is_refused_when_the_model_is_built(key, value, named):
    with pytest.raises(ValueError, match=named):
        build_roi_heads(small_cfg(f"MODEL.ROI_HEADS.SAMPLER.{key}", value), SHAPES)
