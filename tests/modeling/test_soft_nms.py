"""Soft-NMS against a plain loop, and in the detectors."""

import functools
import math
import warnings

import numpy as np
import pytest
import torch
from detectron2.export import scripting_with_instances
from detectron2.structures import Boxes, Instances

from libra_d2.modeling import LibraRetinaNet, batched_soft_nms, soft_nms

from ..support.models import NARROW, build
from ..support.soft_nms_cases import CASCADE, FASTER, LOW, RETINANET, SPREAD, reference

FAMILY = (FASTER, CASCADE, RETINANET)  # the cascade with masks


def random_boxes(counts, dtype=torch.float64, size=40.0):
    """Crowded, so that most boxes overlap several others."""
    n = sum(counts)
    xy = torch.rand(n, 2, dtype=dtype) * size
    boxes = torch.cat([xy, xy + 5 + torch.rand(n, 2, dtype=dtype) * 30], dim=1)
    idxs = torch.repeat_interleave(torch.arange(len(counts)) * 7, torch.tensor(counts))
    shuffle = torch.randperm(n)
    return boxes, torch.rand(n, dtype=dtype), idxs[shuffle]


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("iou_thresh, sigma, min_score", [(0.5, 0.5, 0.001), (0.2, 1.5, 0.05)])
# The last: classes that end long before the largest, which takes more than 64 steps.
@pytest.mark.parametrize("counts", [[1], [30], [20, 1, 7], [150, 3, 70, 1]])
def test_equals_the_plain_algorithm(method, iou_thresh, sigma, min_score, counts):
    settings = (method, iou_thresh, sigma, min_score)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        boxes, scores, idxs = random_boxes(counts, dtype)
        before = boxes.clone(), scores.clone()
        keep, decayed = batched_soft_nms(boxes, scores, idxs, *settings)
        expected_keep, expected = reference(boxes, scores, idxs, *settings)
        assert keep.tolist() == expected_keep
        np.testing.assert_allclose(decayed.numpy(), expected, rtol=0, atol=tolerance)
        assert decayed.dtype == dtype and keep.dtype == torch.int64
        assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


def test_weights_by_hand():
    """Half of the first box: IoU 0.5. A quarter: IoU 0.25. Beside it: 0."""
    boxes = torch.tensor(
        [[0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 4, 4], [20, 20, 28, 28.0]]  # 64, 32, 16 and 64 pixels
    )
    scores = torch.tensor([0.8, 0.4, 0.9, 0.6])
    # From the quarter: IoU 0.25 with the whole, 0.5 with the half. A threshold is reached by
    # what equals it. Then from the whole: IoU 0.5 with the half.
    keep, decayed = soft_nms(boxes, scores, "linear", 0.5)
    assert keep.tolist() == [2, 0, 3, 1]
    torch.testing.assert_close(decayed, torch.tensor([0.9, 0.8, 0.6, 0.4 * 0.5 * 0.5]))

    keep, decayed = soft_nms(boxes, scores, "gaussian", sigma=0.5)
    quarter, half = math.exp(-(0.25**2) / 0.5), math.exp(-(0.5**2) / 0.5)
    assert keep.tolist() == [2, 0, 3, 1]
    expected = torch.tensor([0.9, 0.8 * quarter, 0.6, 0.4 * half * half])
    torch.testing.assert_close(decayed, expected)


def test_min_score_drops_what_has_decayed_below_it():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 2 + [[50, 50, 60, 60.0]])
    scores = torch.tensor([0.9, 0.8, 0.04])
    assert soft_nms(boxes, scores, "linear", min_score=0.001)[0].tolist() == [0, 2]
    assert soft_nms(boxes, scores, "linear", min_score=0.05)[0].tolist() == [0]
    keep, decayed = soft_nms(boxes, scores, "linear", min_score=0.0)  # drops nothing
    assert keep.tolist() == [0, 2, 1] and decayed.tolist()[2] == 0.0


def test_classes_do_not_touch_each_other():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 2)
    scores = torch.tensor([0.5, 0.9])
    keep, decayed = batched_soft_nms(boxes, scores, torch.tensor([4, 1]), "gaussian")
    assert keep.tolist() == [1, 0] and torch.equal(decayed, scores[[1, 0]])


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("topk", [0, 1, 5, 10_000])
def test_topk_is_the_beginning_of_all(method, topk):
    args = (*random_boxes([60, 20, 5]), method)
    every, best = batched_soft_nms(*args), batched_soft_nms(*args, topk=topk)
    assert len(every[0]) > 20
    for a, b in zip(every, best):
        assert torch.equal(a[:topk], b)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_empty_degenerate_and_half_precision(method):
    keep, decayed = soft_nms(torch.zeros(0, 4), torch.zeros(0), method)
    assert keep.shape == decayed.shape == (0,) and keep.dtype == torch.int64

    point = torch.tensor([[5.0, 5, 5, 5]] * 2)  # without area: IoU 0, not 0 / 0
    _, decayed = soft_nms(point, torch.tensor([0.9, 0.8]), method)
    torch.testing.assert_close(decayed, torch.tensor([0.9, 0.8]))

    # In float16, areas of this size are infinite.
    boxes, scores, idxs = random_boxes([40], torch.float32)
    half = (boxes * 20).half(), scores.half()
    keep, decayed = batched_soft_nms(*half, idxs, method)
    expected = batched_soft_nms(half[0].float(), half[1].float(), idxs, method)
    assert decayed.dtype == torch.float16 and torch.equal(keep, expected[0])
    assert torch.equal(decayed, expected[1].half())


@pytest.mark.parametrize(
    "config, key, value",
    [
        (FASTER, "TYPE", "soft"),
        (FASTER, "SIGMA", 0.0),
        (FASTER, "MIN_SCORE", -0.1),
        (FASTER, "MIN_SCORE", 1.0),
        (RETINANET, "TYPE", "soft"),
    ],
)
def test_bad_settings_are_refused_by_name(config, key, value):
    with pytest.raises(ValueError, match=rf"TEST\.NMS\.{key} .*{value}"):
        build(config, *NARROW, f"TEST.NMS.{key}", str(value))


def test_the_function_refuses_other_methods():
    for method in ("hard", "soft"):
        with pytest.raises(ValueError, match=method):
            soft_nms(torch.zeros(1, 4), torch.zeros(1), method)


def images():
    return [{"image": torch.full((3, 64, 64), v), "height": 64, "width": 64} for v in (30, 200)]


@functools.cache
def model_of(config):
    opts = "TEST.NMS.TYPE gaussian TEST.NMS.SIGMA 0.7 TEST.NMS.MIN_SCORE 0.003".split()
    if config == CASCADE:
        opts += ["MODEL.MASK_ON", "True"]
    model = build(config, *NARROW, *LOW, *opts).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "cls_score.weight" in name:
                parameter.mul_(SPREAD[config])
    return model


def parts_with_nms(model):
    """What holds the settings of NMS: the predictors, or the RetinaNet itself."""
    if not hasattr(model, "roi_heads"):
        return [model]
    predictor = model.roi_heads.box_predictor
    return list(predictor) if isinstance(predictor, torch.nn.ModuleList) else [predictor]


@torch.no_grad()
def detections(monkeypatch, config, nms_thresh, topk, **settings):
    model = model_of(config)
    for part in parts_with_nms(model):
        is_retinanet = part is model
        settings["max_detections_per_image" if is_retinanet else "test_topk_per_image"] = topk
        for name, value in {**settings, "test_nms_thresh": nms_thresh}.items():
            monkeypatch.setattr(part, name, value)
    return [x["instances"] for x in model(images())]


@pytest.mark.parametrize("config", FAMILY)
def test_config_reaches_every_predictor(config):
    parts = parts_with_nms(model_of(config))
    assert len(parts) == (3 if config == CASCADE else 1)
    for part in parts:
        assert (part.nms_type, part.nms_sigma, part.nms_min_score) == ("gaussian", 0.7, 0.003)


@pytest.mark.parametrize("config", FAMILY)
def test_detector_without_decay_equals_hard_nms_without_suppression(config, monkeypatch):
    """Pins the soft path to upstream's in all but NMS: the filter, the stages, the masks."""
    never = {"nms_sigma": 1e30, "nms_min_score": 0.0}
    soft = detections(monkeypatch, config, 0.5, 40, nms_type="gaussian", **never)
    hard = detections(monkeypatch, config, 1.0, 40, nms_type="hard")
    for a, b in zip(hard, soft):
        assert len(a) == len(b) > 0
        assert torch.equal(a.pred_classes, b.pred_classes)
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        assert a.has("pred_masks") == b.has("pred_masks") == (config == CASCADE)
        if a.has("pred_masks"):
            assert torch.equal(a.pred_masks, b.pred_masks)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("config", FAMILY)
def test_detector_applies_its_settings(config, method, monkeypatch):
    """Of all candidates, what the plain algorithm makes with the detector's settings."""
    every = detections(monkeypatch, config, 1.0, 500, nms_type="hard")[0]
    settings = {"nms_sigma": 0.7, "nms_min_score": 0.001}
    soft = detections(monkeypatch, config, 0.1, 30, nms_type=method, **settings)[0]
    keep, scores = reference(
        every.pred_boxes.tensor, every.scores, every.pred_classes, method, 0.1, 0.7, 0.001
    )
    assert 10 < len(soft) == min(30, len(keep))
    np.testing.assert_allclose(soft.scores.numpy(), scores[:30], rtol=1e-4)
    decayed = every.scores[keep[:30]] - soft.scores > 1e-5
    assert decayed.any(), "nothing overlaps: the test would pass without any NMS"


def test_retinanet_hard_is_detectron2s_bit_for_bit(monkeypatch):
    monkeypatch.setattr(model_of(RETINANET), "clip_before_nms", False)  # the default
    ours = detections(monkeypatch, RETINANET, 0.5, 100, nms_type="hard")[0]
    with monkeypatch.context() as m:
        m.delattr(LibraRetinaNet, "inference_single_image")
        upstream = detections(monkeypatch, RETINANET, 0.5, 100, nms_type="hard")[0]
    assert len(ours) > 0
    assert torch.equal(ours.pred_boxes.tensor, upstream.pred_boxes.tensor)
    assert torch.equal(ours.scores, upstream.scores)


class Raw(torch.nn.ModuleList):
    """A GeneralizedRCNN without the resizing of its results, which cannot be scripted."""

    def forward(self, inputs: list[dict[str, torch.Tensor]]):
        return self[0].inference(inputs, do_postprocess=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [FASTER, RETINANET])
def test_hard_mode_scripts(config, monkeypatch):
    model = model_of(config)
    for part in parts_with_nms(model):
        monkeypatch.setattr(part, "nms_type", "hard")
    if config == FASTER:
        model = Raw([model]).eval()
    tensors = ("objectness_logits", "scores", "pred_classes", "pred_masks")
    fields = {"proposal_boxes": Boxes, "pred_boxes": Boxes, **dict.fromkeys(tensors, torch.Tensor)}
    inputs = [{"image": x["image"]} for x in images()]
    with torch.no_grad():
        scripted = scripting_with_instances(model, fields)(inputs)[0]
        eager = model(inputs)[0]
    if not isinstance(eager, Instances):
        eager = eager["instances"]
    assert len(scripted) == len(eager) > 0
    torch.testing.assert_close(scripted.scores, eager.scores)


def crowd(device, num_boxes=1000, num_classes=80):
    boxes = random_boxes([num_boxes], torch.float32, size=600.0)[0].to(device)
    boxes = boxes.repeat(num_classes, 1)
    scores = torch.rand(len(boxes), device=device)
    idxs = torch.arange(num_classes, device=device).repeat_interleave(num_boxes)
    return boxes, scores, idxs


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_on_cuda_without_a_synchronisation_per_box(method):
    boxes, scores, idxs = crowd("cuda", 300, 20)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            keep, decayed = batched_soft_nms(boxes, scores, idxs, method)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert keep.is_cuda and decayed.is_cuda
    assert len(caught) < 30  # 300 steps
    expected = batched_soft_nms(boxes.cpu(), scores.cpu(), idxs.cpu(), method)
    torch.testing.assert_close(decayed.cpu(), expected[1], rtol=1e-4, atol=1e-6)
