"""The pyramid for tracing against the pyramid of training: equal to the last bit."""

import pytest
import torch

from libra_d2.export.traceable_pyramid import TraceablePyramid
from libra_d2.modeling import BalancedFeaturePyramid

RCNN, RETINANET = (4, 8, 16, 32, 64), (8, 16, 32, 64, 128)


def levels(strides, height, width):
    # Sides are rounded up, as by the strided layers that make p6 and p7.
    return [torch.randn(2, 4, -(-height // s), -(-width // s)) for s in strides]


@pytest.mark.parametrize("strides", [RCNN, RETINANET], ids=["rcnn", "retinanet"])
@pytest.mark.parametrize("refine_level", range(5))
def test_equals_the_pyramid_for_every_size(strides, refine_level):
    bfp = BalancedFeaturePyramid(4, 5, refine_level, "conv").eval()
    ours = TraceablePyramid(bfp, strides, 32)
    sizes = [(32 * i, 32 * j) for i, j in [(1, 1), (2, 3), (3, 5), (4, 4), (7, 25), (10, 42)]]
    for height, width in sizes:
        features = levels(strides, height, width)
        with torch.no_grad():
            for ours_level, level in zip(ours(features), bfp(features)):
                assert torch.equal(ours_level, level), (height, width)


@pytest.mark.parametrize("strides", [RCNN, RETINANET], ids=["rcnn", "retinanet"])
def test_one_trace_serves_all_sizes(strides):
    bfp = BalancedFeaturePyramid(4, 5, 2, "non_local").eval()
    with torch.no_grad():
        ours = TraceablePyramid(bfp, strides, 32)
        traced = torch.jit.trace(ours, (levels(strides, 32, 64),), check_trace=False)
        for height, width in [(64, 96), (160, 96), (224, 800)]:
            features = levels(strides, height, width)
            for traced_level, level in zip(traced(features), bfp(features)):
                assert traced_level.shape == level.shape
                assert torch.allclose(traced_level, level, atol=1e-5)
