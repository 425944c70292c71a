import warnings

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import (
    build_resnet_fpn_backbone,
    build_retinanet_resnet_fpn_backbone,
)

from libra_d2.engine import load_cfg
from libra_d2.modeling import BFP, BalancedFeaturePyramid

from ..support.project import Golden, assert_close

GOLDEN = Golden("components")
REFINE_TYPES = ["none", "conv", "non_local"]


def maps(sizes, channels=8):
    return [torch.randn(2, channels, *s) for s in sizes]


@pytest.mark.parametrize("case", GOLDEN.of_kind("bfp"))
def test_equals_reference_with_gradients(case):
    # 1e-5 and 1e-4: sums of float32 in another order.
    name = case["name"]
    inputs = [GOLDEN.array(name, f"in{i}").requires_grad_() for i in range(5)]
    neck = BalancedFeaturePyramid(
        inputs[0].shape[1], 5, case["refine_level"], case["refine_type"] or "none"
    )
    neck.load_state_dict(GOLDEN.parameters(name))
    outputs = neck(inputs)
    for i, output in enumerate(outputs):
        assert_close(output.detach(), GOLDEN.array(name, f"out{i}"), 1e-5)
    sum((o * GOLDEN.array(name, f"cotangent{i}")).sum() for i, o in enumerate(outputs)).backward()
    for i, x in enumerate(inputs):
        assert_close(x.grad, GOLDEN.array(name, f"grad{i}"), 1e-4)


@pytest.mark.parametrize("refine_type", REFINE_TYPES)
@pytest.mark.parametrize(
    "sizes",
    [
        [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6)],
        [(25, 38), (13, 19), (7, 10), (4, 5), (2, 3)],
        [(9, 5), (5, 3), (3, 2), (2, 1), (1, 1)],
        [(8, 36), (4, 18), (2, 9), (1, 5), (1, 3)],
    ],
)
def test_keeps_shapes(sizes, refine_type):
    features = maps(sizes)
    for level in range(5):
        outputs = BalancedFeaturePyramid(8, 5, level, refine_type)(features)
        assert [o.shape for o in outputs] == [f.shape for f in features]


@pytest.mark.parametrize("level", range(5))
def test_gathers_and_scatters_by_the_order_of_levels(level):
    """The reference's rule, by index: finer ones are pooled, coarser ones repeated; flat images."""
    features = maps([(8, 36), (4, 18), (2, 9), (1, 5), (1, 3)])
    size = features[level].shape[-2:]
    down = torch.nn.functional.adaptive_max_pool2d
    up = torch.nn.functional.interpolate
    mean = sum(down(f, size) if i < level else up(f, size) for i, f in enumerate(features)) / 5
    outputs = BalancedFeaturePyramid(8, 5, level, "none")(features)
    for i, (feature, output) in enumerate(zip(features, outputs)):
        to = feature.shape[-2:]
        expected = feature + (up(mean, to) if i < level else down(mean, to))
        assert_close(output, expected, 1e-6)


def test_is_a_mean_added_to_every_level():
    """Constant maps: the gathered map is the mean of the constants, at any size."""
    features = [torch.full((1, 2, s, s), float(v)) for v, s in enumerate([16, 8, 4, 2, 1])]
    outputs = BalancedFeaturePyramid(2, 5, 2, "none")(features)
    for value, output in enumerate(outputs):
        assert torch.equal(output, torch.full_like(output, value + 2.0))


def test_starts_away_from_the_identity():
    neck = BalancedFeaturePyramid(8, 5, 2, "non_local")
    assert neck.refine.conv_out.weight.abs().max() > 0
    x = torch.randn(1, 8, 6, 6)
    assert (neck.refine(x) - x).abs().max() > 0.01


def test_parameter_count_of_the_paper():
    """Four 1x1 convolutions of 256 channels: 42,069,344 - 41,806,176."""
    neck = BalancedFeaturePyramid(256, 5, 2, "non_local")
    assert sum(p.numel() for p in neck.parameters()) == 263_168


@pytest.mark.parametrize("refine_type", REFINE_TYPES)
def test_scripted_and_traced_equal_eager(refine_type):
    neck = BalancedFeaturePyramid(8, 3, 1, refine_type).requires_grad_(False)
    features, other = maps([(16, 12), (8, 6), (4, 3)]), maps([(9, 7), (5, 4), (3, 2)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(neck)
        traced = torch.jit.trace(lambda a, b, c: neck([a, b, c]), features)
    for expected, actual in zip(neck(other), scripted(other)):
        assert_close(actual, expected, 1e-6)
    for expected, actual in zip(neck(features), traced(*features)):
        assert_close(actual, expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    neck = BalancedFeaturePyramid(8, 3, 1, "non_local")
    features = maps([(16, 12), (8, 6), (4, 3)])
    with torch.autocast("cpu", dtype):
        outputs = neck(features)
    for output, expected in zip(outputs, neck(features)):
        assert (output - expected).abs().max() < 0.05  # of values up to 4: 8 bits of mantissa


def test_empty_batch():
    outputs = BalancedFeaturePyramid(8, 3, 1, "non_local")(
        [f[:0] for f in maps([(8, 8), (4, 4), (2, 2)])]
    )
    assert [o.shape for o in outputs] == [(0, 8, 8, 8), (0, 8, 4, 4), (0, 8, 2, 2)]


@pytest.mark.parametrize(
    "kwargs", [{"refine_level": 3}, {"refine_level": -1}, {"refine_type": "x"}]
)
def test_bad_setting_is_named(kwargs):
    (name, value) = next(iter(kwargs.items()))
    settings = {"in_channels": 8, "num_levels": 3, "refine_level": 1, **kwargs}
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        BalancedFeaturePyramid(**settings)


class Levels(Backbone):
    """A stand-in for somebody's own pyramid: names and strides of its own, coarse level first."""

    def __init__(self, channels=(4, 4)):
        super().__init__()
        self.channels = channels

    @property
    def size_divisibility(self):
        return 16

    @property
    def padding_constraints(self):
        return {"square_size": 0}

    def output_shape(self):
        return {
            "top": ShapeSpec(channels=self.channels[0], stride=16),
            "base": ShapeSpec(channels=self.channels[1], stride=8),
        }

    def forward(self, x):
        return {"top": x[:, :4, ::16, ::16], "base": x[:, :4, ::8, ::8]}


def test_wraps_any_backbone():
    backbone = BFP(Levels(), refine_level="top", refine_type="conv")
    outputs = backbone(torch.randn(1, 4, 48, 32))
    assert {k: v.shape for k, v in outputs.items()} == {
        "base": (1, 4, 6, 4),
        "top": (1, 4, 3, 2),
    }
    assert backbone.output_shape() == Levels().output_shape()
    assert backbone.size_divisibility == 16
    assert backbone.padding_constraints == {"square_size": 0}


def test_wrong_level_or_channels_are_named():
    with pytest.raises(
        ValueError, match=r"REFINE_LEVEL must be one of .*\['base', 'top'\], got 'p9'"
    ):
        BFP(Levels(), refine_level="p9")
    with pytest.raises(ValueError, match="'top': 8"):
        BFP(Levels(channels=(8, 4)), refine_level="top")


@pytest.mark.parametrize(
    "build,names",
    [
        (build_resnet_fpn_backbone, ["p2", "p3", "p4", "p5", "p6"]),
        (build_retinanet_resnet_fpn_backbone, ["p3", "p4", "p5", "p6", "p7"]),
    ],
)
def test_wraps_detectron2s_pyramids_and_loads_their_weights(build, names):
    cfg = load_cfg("configs/libra_r50.yaml")
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    if "p7" in names:
        cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    fpn, other = (build(cfg, ShapeSpec(channels=3)) for _ in range(2))
    backbone = BFP(other, refine_level="p4").eval()
    x = torch.randn(1, 3, 96, 64)
    assert list(backbone(x)) == names

    incompatible = backbone.load_state_dict(fpn.state_dict(), strict=False)
    assert not incompatible.unexpected_keys
    assert all(k.startswith("bfp.") for k in incompatible.missing_keys)
    for name, feature in fpn.eval()(x).items():
        assert torch.equal(backbone.fpn(x)[name], feature)
    # Its own weights load as they are.
    backbone.load_state_dict(backbone.state_dict())
