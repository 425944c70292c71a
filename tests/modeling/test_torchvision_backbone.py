import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone

from libra_d2.engine import load_cfg
from libra_d2.modeling import BFP, TorchvisionBackbone


def test_features_are_those_of_torchvision():
    """The last layer of each stride; in evaluation mode FrozenBN computes what BN computes."""
    net = torchvision.models.mobilenet_v2(weights=None).eval()
    backbone = TorchvisionBackbone("mobilenet_v2").eval()
    backbone.load_state_dict(
        {k: v for k, v in net.state_dict().items() if k in backbone.state_dict()}
    )
    x = torch.randn(1, 3, 70, 64)
    outputs = backbone(x)
    for name, layer in {"res2": 3, "res3": 6, "res4": 13, "res5": 18}.items():
        expected = net.features[: layer + 1](x)
        assert torch.allclose(outputs[name], expected, atol=1e-5), name
        shape = backbone.output_shape()[name]
        assert expected.shape[1] == shape.channels
        assert expected.shape[2] == -(-70 // shape.stride)


def test_norm_is_frozen_or_trained():
    frozen = TorchvisionBackbone("mobilenet_v2", norm="FrozenBN")
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in frozen.modules())
    trained = TorchvisionBackbone("mobilenet_v2", norm="BN")
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in trained.modules())
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in trained.modules())


def test_freezing_by_stage():
    for freeze_at, stride in ((0, 1), (1, 2), (2, 4), (5, 32)):
        backbone = TorchvisionBackbone("mobilenet_v2", norm="BN", freeze_at=freeze_at).train()
        outputs = backbone(torch.randn(1, 3, 64, 64))
        for name, spec in backbone.output_shape().items():
            assert outputs[name].requires_grad == (spec.stride > stride), (freeze_at, name)


def test_every_parameter_trains():
    backbone = TorchvisionBackbone("mobilenet_v2", out_features=("res2", "res3", "res4"))
    sum(f.sum() for f in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_behind_fpn_and_bfp():
    backbone = build_backbone(load_cfg("configs/libra_mobilenet_v2.yaml"))
    assert isinstance(backbone, BFP)
    outputs = backbone(torch.randn(1, 3, 64, 96))
    assert {k: tuple(v.shape[1:]) for k, v in outputs.items()} == {
        "p2": (64, 16, 24),
        "p3": (64, 8, 12),
        "p4": (64, 4, 6),
        "p5": (64, 2, 3),
        "p6": (64, 1, 2),
    }


@pytest.mark.parametrize(
    "kwargs,named",
    [
        ({"name": "vgg"}, "MODEL.TORCHVISION.NAME 'vgg'"),
        ({"norm": "GN"}, "MODEL.TORCHVISION.NORM 'GN'"),
        ({"freeze_at": 6}, "MODEL.BACKBONE.FREEZE_AT 6"),
        ({"out_features": ["res1"]}, "MODEL.FPN.IN_FEATURES 'res1'"),
    ],
)
def test_bad_setting_is_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        TorchvisionBackbone(**{"name": "mobilenet_v2", **kwargs})
