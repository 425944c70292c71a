import copy
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_model
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from libra_d2.engine import load_cfg
from libra_d2.engine.balance import measures as measures
from libra_d2.engine.balance.monitor import BalanceMonitor, summary
from libra_d2.engine.balance.picture import balance_figure, save_balance_picture
from libra_d2.engine.balance.probe import BalanceProbe
from libra_d2.errors import UserError
from libra_d2.modeling import BFP

from ...support.small_roi_heads import SHAPES, small_cfg

# -- Each quantity, by hand --------------------------------------------------------------------

# One object of 10x10 and another far away. Parts of the first, whose IoU is their area: all, half
# (foreground begins at 0.5), a quarter, and 0.03; and a box that touches nothing.
OBJECTS = Boxes(torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]))
PROPOSALS = Boxes(
    torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 10], [0, 0, 5, 5], [0, 0, 1, 3], [30, 30, 40, 40]])
)
MATCHER = Matcher([0.5], [0, 1])


def test_negatives_and_positives_of_known_ious():
    seen = measures.Matching(MATCHER, OBJECTS, PROPOSALS)
    assert seen.negative_ious.tolist() == pytest.approx([0.25, 0.03, 0])
    assert seen.per_object.tolist() == [2, 0]

    negatives = measures.negatives(seen.negative_ious, end=0.5)
    assert negatives["counts"] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 0]  # of 0.05 each
    assert negatives["edges"] == pytest.approx([i / 20 for i in range(11)])
    assert negatives["hard"] == pytest.approx(1 / 3)

    positives = measures.positives([seen.per_object])
    assert positives["counts"] == [1, 0, 1, 0, 0, 0, 0, 0]  # none; 1; 2 to 3; ...
    assert positives["mean"] == 1 and positives["unevenness"] == 1


def test_unevenness_is_that_within_images():
    """A sampler cannot change how the number of positives per object differs between images."""
    alike = [torch.tensor([2, 2]), torch.tensor([20, 20, 20])]
    assert measures.positives(alike)["unevenness"] == 0
    # 1 and 3 around 2: a standard deviation of half the mean. One object, or no positives, or no
    # objects have no unevenness.
    mixed = [torch.tensor(x, dtype=torch.long) for x in ([1, 3], [7], [0, 0], [])]
    assert measures.positives(mixed)["unevenness"] == pytest.approx(0.5)
    assert measures.positives(mixed)["mean"] == pytest.approx(11 / 5)


def test_images_without_objects():
    nothing = Boxes(torch.empty(0, 4))
    seen = measures.Matching(MATCHER, nothing, PROPOSALS)
    assert seen.negative_ious.tolist() == [0] * 5 and seen.per_object.tolist() == []
    positives = measures.positives([seen.per_object])
    assert sum(positives["counts"]) == 0 and math.isnan(positives["mean"])
    empty = measures.Matching(MATCHER, OBJECTS, nothing)
    assert math.isnan(measures.negatives(empty.negative_ious, 0.5)["hard"])
    assert empty.per_object.tolist() == [0, 0]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1)), st.sampled_from([0.3, 0.4, 0.5, 0.7]))
def test_every_negative_is_in_one_bin(ious, end):
    ious = torch.tensor([x for x in ious if x < end], dtype=torch.float32)
    assert sum(measures.negatives(ious, end)["counts"]) == len(ious)


def test_gradient_shares():
    errors, gradients = torch.tensor([0.5, 0.5, 2, 4]), torch.tensor([1.0, 1, 3, 3])
    shares = measures.gradient(errors, gradients, beta=1.0)
    # Smooth L1 has the gradient of the error below beta, and 1 above it: 0.5, 0.5, 1, 1.
    assert shares == pytest.approx({"in_use": 2 / 8, "smooth_l1": 1 / 3, "samples": 0.5})
    assert measures.gradient(errors, gradients, beta=5.0)["in_use"] == 1
    nothing = measures.gradient(errors[:0], gradients[:0], beta=1.0)
    assert all(math.isnan(x) for x in nothing.values())


class Constant(Backbone):
    """A pyramid whose level p3 (4x4) is all ones and whose level p4 (2x2) is all threes."""

    def forward(self, x):
        return {"p3": torch.full((1, 2, 4, 4), 1.0), "p4": torch.full((1, 2, 2, 2), 3.0)}

    def output_shape(self):
        return {"p3": ShapeSpec(channels=2, stride=8), "p4": ShapeSpec(channels=2, stride=16)}


def test_levels_before_and_after_bfp():
    """The mean of ones and threes, two, is added to both levels."""
    assert measures.level_norm(torch.tensor([[3.0, 4], [0, 0]])) == 2.5
    model = nn.Module()
    for model.backbone, after, spread in (
        (BFP(Constant(), "p4", "none"), [3, 5], 5 / 3),
        (Constant(), [], None),
    ):
        probe = BalanceProbe(model, 0.5, 1.0)
        probe.attach()
        model.backbone(None)
        levels = probe.measurement()["levels"]
        assert levels == {"names": ["p3", "p4"], "before": [1, 3], "after": after}
        scalars = summary({"levels": levels})
        assert scalars["level_spread/before"] == 3 and scalars["levels/before/p4"] == 3
        assert scalars.get("level_spread/after") == (spread and pytest.approx(spread))


@pytest.mark.parametrize("append_gt", ["True", "False"])
def test_what_the_heads_sampled(append_gt):
    """
    There are one positive, ten negatives with IoU 0.25 and 300 boxes that touch no object. All
    positives are drawn (with the two objects, if they are added) and 30 negatives, among them all
    ten hard ones.
    """
    positives = 1 + 2 * (append_gt == "True")
    cfg = small_cfg(
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", str(30 + positives)),
        *("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", append_gt),
    )
    model = nn.Module()
    model.roi_heads = build_roi_heads(cfg, SHAPES)
    target, proposals = Instances((100, 100)), Instances((100, 100))
    target.gt_boxes, target.gt_classes = OBJECTS, torch.zeros(2, dtype=torch.long)
    boxes = PROPOSALS.tensor[[1] + [2] * 10 + [4] * 300]
    proposals.proposal_boxes, proposals.objectness_logits = Boxes(boxes), torch.zeros(311)
    probe = BalanceProbe(model, 0.5, 1.0)
    probe.attach()
    with EventStorage():
        model.roi_heads.label_and_sample_proposals([proposals], [target])
    probe.detach()
    measured = probe.measurement()
    everything, sampled = measured["negatives"]["all"], measured["negatives"]["sampled"]
    assert everything["counts"] == [300, 0, 0, 0, 0, 10, 0, 0, 0, 0]
    assert sampled["counts"] == [20, 0, 0, 0, 0, 10, 0, 0, 0, 0]
    assert measured["positives"]["sampled"] == measured["positives"]["all"]
    assert measured["positives"]["all"]["mean"] == positives / 2


# -- On whole detectors ------------------------------------------------------------------------

NARROW = (
    "MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 "
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN 200 MODEL.RPN.POST_NMS_TOPK_TRAIN 200 "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 32 BALANCE.PERIOD 2"
).split()
DETECTORS = {
    "libra": [],
    "plain": "MODEL.BFP.ENABLED False MODEL.PROPOSAL_GENERATOR.NAME RPN "
    "MODEL.ROI_HEADS.NAME StandardROIHeads MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE smooth_l1".split(),
    "cascade": "MODEL.ROI_HEADS.NAME LibraCascadeROIHeads "
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True".split(),
    "retinanet": [
        *("MODEL.META_ARCHITECTURE", "LibraRetinaNet"),
        *("MODEL.BACKBONE.NAME", "build_libra_retinanet_torchvision_fpn_backbone"),
        *("MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"),
        *("MODEL.RETINANET.IN_FEATURES", "['p3', 'p4', 'p5', 'p6', 'p7']"),
        *("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "balanced_l1"),
    ],
}
QUANTITIES = ["negatives", "positives", "gradient", "levels"]


def config(name, *opts):
    return load_cfg("configs/libra_mobilenet_v2.yaml", [*NARROW, *DETECTORS[name], *map(str, opts)])


def detector_and_batch(cfg):
    torch.manual_seed(0)
    model = build_model(cfg).train()
    batch = []
    for num_objects in (2, 0):
        target = Instances((64, 96))
        target.gt_boxes = Boxes(torch.tensor([[10.0, 5, 38, 33], [40, 20, 70, 60]])[:num_objects])
        target.gt_classes = torch.tensor([1, 4])[:num_objects]
        batch.append({"image": torch.randint(0, 256, (3, 64, 96)).float(), "instances": target})
    return model, batch


def step(model, batch):
    model.zero_grad()
    losses = model(copy.deepcopy(batch))
    sum(losses.values()).backward()
    return losses


def monitor(cfg, model):
    hook = BalanceMonitor(cfg, model)
    hook.trainer = SimpleNamespace(iter=0, storage=None)
    return hook


def run(hook, model, batch, iterations):
    """Train like Detectron2's loop, but without the optimizer."""
    with EventStorage() as storage:
        hook.trainer.storage = storage
        for iteration in iterations:
            storage.iter = hook.trainer.iter = iteration
            hook.before_step()
            losses = step(model, batch)
            hook.after_step()
    return losses, storage


@pytest.mark.parametrize("name", DETECTORS)
def test_measuring_changes_nothing(name, tmp_path):
    """Losses, gradients, buffers and the random state are identical bit for bit."""
    cfg = config(name, "OUTPUT_DIR", tmp_path)
    results = []
    for measured in (False, True):
        model, batch = detector_and_batch(cfg)
        hook = monitor(cfg, model)
        losses, _ = run(hook, model, batch, [1 if measured else 0])
        assert bool(hook.history) == measured
        gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        normalizer = getattr(model, "loss_normalizer", 0)
        results.append((losses, gradients, model.state_dict(), normalizer, torch.rand(1)))
    (losses, gradients, state, *rest), (losses2, gradients2, state2, *rest2) = results
    assert losses.keys() == losses2.keys() and gradients.keys() == gradients2.keys()
    for first, second in ((losses, losses2), (gradients, gradients2), (state, state2)):
        for key, value in first.items():
            assert torch.equal(value, second[key]), key
    assert rest == rest2


@pytest.mark.parametrize("name", DETECTORS)
def test_every_quantity_that_a_detector_has_is_measured(name, tmp_path):
    cfg = config(name, "OUTPUT_DIR", tmp_path)
    model, batch = detector_and_batch(cfg)
    hook = monitor(cfg, model)
    _, storage = run(hook, model, batch, [1])
    expected = QUANTITIES[2:] if name == "retinanet" else QUANTITIES
    assert [k for k in QUANTITIES if k in hook.last] == expected
    assert len(hook.last["levels"]["after"]) == (0 if name == "plain" else 5)
    latest = storage.latest()
    assert {k[len("balance/") :] for k in latest if k.startswith("balance/")} == set(
        hook.history[0]
    ) - {"iteration"}
    assert latest["balance/easy_gradient/in_use"][1] == 1
    assert all(math.isfinite(x) for x in hook.history[0].values())
    names = [x["tag"] for x in storage._histograms]
    assert len(names) == (0 if name == "retinanet" else 2)
    if name != "retinanet":
        num_images = 2
        num_fg, num_bg = (
            num_images * latest[f"roi_head/num_{kind}_samples"][0] for kind in ("fg", "bg")
        )
        assert sum(hook.last["negatives"]["sampled"]["counts"]) == num_bg
        num_objects = 2
        mean = hook.last["positives"]["sampled"]["mean"]
        assert num_objects * mean == pytest.approx(num_fg)


@pytest.mark.parametrize(
    "name,options",
    [
        ("libra", ["MODEL.ROI_BOX_HEAD.BALANCED_L1.BETA", 0.5]),
        ("libra", ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]),
        ("cascade", []),
        ("retinanet", []),
        ("plain", ["MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 0.5]),
    ],
)
def test_gradients_are_those_of_the_loss_in_use(name, options):
    """They equal the formula at the measured errors, up to the normalizer of the loss."""
    cfg = config(name, *options)
    model, batch = detector_and_batch(cfg)
    probe = BalanceProbe(model, 0.5, 1.0)
    probe.attach()
    with EventStorage():
        step(model, batch)
    probe.detach()
    errors = torch.cat(probe._errors)
    gradients = torch.cat([probe._gradients[i] for i in range(len(probe._errors))])
    if name == "plain":
        formula = (errors / 0.5).clamp(max=1)
    else:
        node = cfg.MODEL.RETINANET if name == "retinanet" else cfg.MODEL.ROI_BOX_HEAD
        node = node.BALANCED_L1
        b = math.exp(node.GAMMA / node.ALPHA) - 1
        formula = (node.ALPHA * torch.log(b * errors / node.BETA + 1)).clamp(max=node.GAMMA)
    assert len(errors) >= 4
    formula *= gradients.sum() / formula.sum()
    # 1e-3 of the largest: where the error is next to nothing, so are its digits.
    assert (gradients - formula).abs().max() < 1e-3 * formula.max()


def test_steps_that_are_not_measured_run_untouched(tmp_path):
    """A wrapper that is left behind would measure every step, and wait for the device."""
    cfg = config("libra", "OUTPUT_DIR", tmp_path)
    model, batch = detector_and_batch(cfg)
    hook = monitor(cfg, model)
    before = {name: set(vars(module)) for name, module in model.named_modules()}

    def is_untouched():
        return before == {name: set(vars(m)) for name, m in model.named_modules()} and not any(
            m._forward_hooks for m in model.modules()
        )

    for hook.trainer.iter, measured in ((0, False), (1, True), (2, False)):
        hook.before_step()
        assert is_untouched() != measured
        with EventStorage() as hook.trainer.storage:
            step(model, batch)
            hook.after_step()
        assert is_untouched()
    assert len(hook.history) == 1
    hook.trainer.iter = 3
    hook.before_step()
    hook.after_train()  # a step that raised
    assert is_untouched()


@pytest.mark.parametrize("where", ["label_and_sample_proposals", "bfp", "gradient"])
def test_a_failure_to_measure_ends_no_step(where, tmp_path, caplog, monkeypatch):
    cfg = config("libra", "OUTPUT_DIR", tmp_path)
    model, batch = detector_and_batch(cfg)
    hook = monitor(cfg, model)
    if where == "bfp":
        monkeypatch.setattr(measures, "level_norm", lambda x: 1 / 0)
    elif where == "gradient":
        monkeypatch.setattr(measures, "gradient", lambda *args: 1 / 0)
    else:
        monkeypatch.setattr(measures, "Matching", lambda *args: 1 / 0)
    losses, _ = run(hook, model, batch, range(6))
    assert "loss_box_reg" in losses
    assert caplog.text.count("Could not measure") == 1 and not hook.history


def test_period_is_checked(tmp_path):
    with pytest.raises(UserError, match=r"BALANCE\.PERIOD must be at least 1, got 0"):
        BalanceMonitor(config("libra", "BALANCE.PERIOD", 0), None)


# -- The picture -------------------------------------------------------------------------------

LAST = {
    "iteration": 39,
    "negatives": {
        "all": {"edges": [i / 20 for i in range(11)], "counts": [8, 2] + [0] * 8, "hard": 0.2},
        "sampled": {"edges": [i / 20 for i in range(11)], "counts": [1, 3] + [0] * 8, "hard": 0.75},
    },
    "positives": {
        "all": {"counts": [0, 0, 1, 0, 3, 0, 0, 0], "mean": 9.0, "unevenness": 0.6},
        "sampled": {"counts": [0, 1, 3, 0, 0, 0, 0, 0], "mean": 2.0, "unevenness": 0.1},
    },
    "gradient": {"in_use": 0.4, "smooth_l1": 0.3, "samples": 0.7},
    "levels": {"names": ["p2", "p3"], "before": [1.0, 4.0], "after": [3.0, 6.0]},
}
HISTORY = [
    {"iteration": 19, "hard_negatives/all": 0.1, "hard_negatives/sampled": 0.5},
    {"iteration": 39, **summary(LAST)},
]


def panels(figure):
    return [(part._suptitle.get_text(), *part.axes) for part in figure.subfigs]


def heights(axes):
    return [bar.get_height() for bar in axes.patches]


def test_picture_shows_what_was_measured():
    negatives, positives, gradient, levels = panels(
        balance_figure(LAST, HISTORY, "balanced_l1", 1.0)
    )
    assert heights(negatives[1]) == [0.8, 0.2] + [0] * 8 + [0.25, 0.75] + [0] * 8
    assert "20% of all negatives, 75% of the sampled ones" in negatives[0]
    assert [line.get_ydata().tolist() for line in negatives[2].get_lines()] == [
        [0.1, 0.2],
        [0.5, 0.75],
    ]
    assert heights(positives[1])[8:11] == [0, 0.25, 0.75]
    assert "0.60 for all, 0.10 for the sampled ones" in positives[0]
    assert heights(gradient[1]) == pytest.approx([0.3, 0.7, 0.4, 0.6])
    assert "30% with smooth L1, 40% with balanced_l1" in gradient[0]
    assert heights(levels[1]) == [1, 4, 3, 6]
    assert "4.0 before, 2.0 after BFP" in levels[0]
    grey = {bar.get_facecolor() for bar in levels[1].patches[:2]}
    assert grey == {bar.get_facecolor() for bar in negatives[1].patches[:10]}
    for _, now, course in (negatives, positives, gradient, levels):
        assert now.get_legend() and now.get_ylabel() and course.get_ylabel()


def test_picture_without_bfp_and_of_retinanet():
    last = {"iteration": 0, "gradient": LAST["gradient"], "levels": {**LAST["levels"], "after": []}}
    _, levels = panels(balance_figure(last, [{"iteration": 0, **summary(last)}], "l", 1.0))
    assert heights(levels[1]) == [1, 4] and "weakest is 4.0" in levels[0]


def test_picture_of_a_step_without_objects_and_with_an_overflow(tmp_path):
    nan = math.nan
    last = copy.deepcopy(LAST)
    last["levels"]["before"] = [1.0, math.inf]
    last["gradient"] = dict.fromkeys(last["gradient"], nan)
    for kind in ("all", "sampled"):
        last["positives"][kind] = {"counts": [0] * 8, "mean": nan, "unevenness": nan}
    save_balance_picture(
        last, [{"iteration": 39, **summary(last)}], "l", 1.0, str(tmp_path / "b.png")
    )
    assert min(Image.open(tmp_path / "b.png").size) > 800


@pytest.mark.parametrize(
    "name,option,value,expected",
    [
        ("libra", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 0.0, "balanced_l1"),
        ("plain", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 0.0, "L1"),
        ("plain", "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 0.5, "smooth L1 (beta 0.5)"),
        ("retinanet", "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "smooth_l1", "smooth L1 (beta 0.1)"),
    ],
)
def test_loss_in_use_is_named_as_what_it_is(name, option, value, expected):
    """Detectron2's smooth_l1 is an L1 loss unless its beta is set."""
    assert BalanceMonitor(config(name, option, value), None).loss_name == expected


def test_picture_is_drawn_at_evaluations_and_at_the_end(tmp_path, caplog, monkeypatch):
    cfg = config("libra", "OUTPUT_DIR", tmp_path, "TEST.EVAL_PERIOD", 3)
    model, batch = detector_and_batch(cfg)
    hook, picture = monitor(cfg, model), tmp_path / "balance.png"
    run(hook, model, batch, [0, 1])
    assert not picture.exists()
    run(hook, model, batch, [2])
    assert picture.exists() and [p.name for p in tmp_path.iterdir()] == ["balance.png"]
    picture.unlink()
    hook.after_train()
    assert min(Image.open(picture).size) > 800
    monkeypatch.setattr("libra_d2.engine.balance.monitor.save_balance_picture", lambda *args: 1 / 0)
    with caplog.at_level(logging.WARNING):
        hook.after_train()
    assert "Could not draw the balance" in caplog.text


def test_history_survives_a_resume(tmp_path):
    """The checkpoint file is read without running code."""
    cfg = config("libra", "OUTPUT_DIR", tmp_path)
    model, batch = detector_and_batch(cfg)
    first, second = (monitor(cfg, model) for _ in range(2))
    run(first, model, batch, range(4))
    torch.save(first.state_dict(), tmp_path / "state.pth")
    second.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    run(second, model, batch, [4, 5])
    assert [x["iteration"] for x in second.history] == [1, 3, 5]
    assert second.last["iteration"] == 5
