import sys

import pytest
import timm
import torch
from detectron2.modeling import build_backbone
from torch import nn

from libra_d2.checkpoint import LibraCheckpointer, timm_weights_file
from libra_d2.checkpoint.foreign import CLASSIFIER, adapt
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError
from libra_d2.modeling import BFP, TimmBackbone

from ..support.torchvision_models import RES, randomise_norms

# Wrapped by timm as a list of layers, by stages; their channels.
LISTS = {
    "resnet18": (64, 128, 256, 512),
    "convnext_atto": (40, 80, 160, 320),
    "regnety_002": (24, 56, 152, 368),
    "repvgg_a0": (48, 96, 192, 1280),
}
# Each by another class of timm; twins has no feature of stride 2 and no batch norm.
OTHERS = {
    "efficientnet_b0": (24, 40, 112, 320),
    "hrnet_w18_small": (128, 256, 512, 1024),
    "xception41": (256, 728, 1024, 2048),
    "twins_svt_small": (64, 128, 256, 512),
}
CHANNELS = {**LISTS, **OTHERS}


@pytest.fixture(scope="module", params=CHANNELS)
def pair(request):
    """A classifier of timm, and the backbone with its weights."""
    torch.manual_seed(0)
    name = request.param
    classifier = randomise_norms(timm.create_model(name)).eval()
    backbone = TimmBackbone(name).eval()
    backbone.load_state_dict(backbone.from_classifier(classifier.state_dict()))
    return name, classifier, backbone


@pytest.mark.parametrize("size", [(64, 64), (75, 97)])
def test_features_are_those_of_the_classifier(pair, size):
    """timm computes them in another way there, without a wrapper."""
    name, classifier, backbone = pair
    if name == "hrnet_w18_small":
        size = (64, 96)  # timm's own needs multiples of 32, to which Detectron2 pads images
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        outputs = backbone(x)
        expected = classifier.forward_intermediates(x, intermediates_only=True)[-4:]
    assert list(outputs) == list(RES) and len(expected) == 4
    shapes = backbone.output_shape()
    for feature, stride, channels, e in zip(RES, (4, 8, 16, 32), CHANNELS[name], expected):
        assert (outputs[feature] - e).abs().max() < 1e-4 * e.abs().max(), feature
        assert (shapes[feature].channels, shapes[feature].stride) == (channels, stride)
        assert outputs[feature].shape[1] == channels
        for ours, s in zip(outputs[feature].shape[2:], size):
            assert ours in (s // stride, -(-s // stride))


def test_weights_fit_by_name(pair):
    _, classifier, backbone = pair
    weights = classifier.state_dict()
    ours = backbone.from_classifier(weights)
    assert {k: v.shape for k, v in ours.items()} == {
        k: v.shape for k, v in backbone.state_dict().items()
    }
    assert len(ours) < len(weights)


def test_weights_of_another_classifier_do_not_belong():
    other = timm.create_model("convnext_atto").state_dict()
    assert TimmBackbone("resnet18").from_classifier(other) == {}


def test_weights_of_dropped_layers_do_not_belong():
    backbone = TimmBackbone("convnext_atto", out_features=("res2", "res3"))
    weights = backbone.from_classifier(timm.create_model("convnext_atto").state_dict())
    assert {k.split(".")[1] for k in weights} == {"stem_0", "stem_1", "stages_0", "stages_1"}


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_atto"])
def test_norm_is_frozen_or_trained(name):
    def statistics(norm):
        modules = TimmBackbone(name, norm=norm).modules()
        return [m for m in modules if hasattr(m, "running_mean")]

    trained, synced, frozen = statistics("BN"), statistics("SyncBN"), statistics("FrozenBN")
    assert len(trained) == len(synced) == len(frozen)
    assert bool(frozen) == (name != "convnext_atto")
    assert all(isinstance(m, nn.BatchNorm2d) for m in trained)
    assert all(isinstance(m, nn.SyncBatchNorm) for m in synced)
    assert not any(list(m.parameters()) for m in frozen)


@pytest.mark.parametrize("norm", ["FrozenBN", "SyncBN"])
def test_converted_norms_compute_the_same(norm):
    """efficientnet_b0 has its activations in its norms, which other conversions drop."""
    trained = randomise_norms(TimmBackbone("efficientnet_b0", norm="BN")).eval()
    converted = TimmBackbone("efficientnet_b0", norm=norm).eval()
    converted.load_state_dict(trained.state_dict(), strict=norm == "SyncBN")
    x = torch.randn(1, 3, 64, 64)
    for feature, expected in trained(x).items():
        error = (converted(x)[feature] - expected).abs().max()
        assert error < 1e-4 * expected.abs().max(), feature


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("freeze_at", [0, 1, 2, 4, 5])
def test_freezing_by_stage(name, freeze_at):
    backbone = TimmBackbone(name, norm="BN", freeze_at=freeze_at).train()
    outputs = backbone(torch.randn(2, 3, 64, 64))
    frozen_stride = 2**freeze_at if freeze_at else 0
    for feature, spec in backbone.output_shape().items():
        assert outputs[feature].requires_grad == (spec.stride > frozen_stride), feature
    for module_name, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.requires_grad, f"{module_name} updates its frozen statistics"


def test_first_frozen_stages():
    def trained(name, freeze_at):
        backbone = TimmBackbone(name, norm="BN", freeze_at=freeze_at)
        return {n.split(".")[1] for n, p in backbone.named_parameters() if p.requires_grad}

    deep = {"layer2", "layer3", "layer4"}
    assert trained("resnet18", 0) == {"conv1", "bn1", "layer1"} | deep
    assert trained("resnet18", 1) == {"layer1"} | deep
    assert trained("resnet18", 2) == deep
    assert trained("convnext_atto", 2) == {"stages_1", "stages_2", "stages_3"}


@pytest.mark.parametrize("name", OTHERS)
def test_stages_that_cannot_be_frozen_are_named(name):
    with pytest.raises(ValueError, match=f"FREEZE_AT must be 0 for MODEL.CLASSIFIER.NAME '{name}'"):
        TimmBackbone(name, freeze_at=2)


def tiny_cfg(name, builder, features=RES):
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml")
    cfg.MODEL.BACKBONE.NAME = builder
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.FPN.IN_FEATURES = list(features)
    cfg.MODEL.CLASSIFIER.NAME = name
    return cfg


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize(
    "builder,first",
    [("build_libra_timm_fpn_backbone", 2), ("build_libra_retinanet_timm_fpn_backbone", 3)],
)
def test_every_trained_parameter_gets_a_gradient_behind_fpn_and_bfp(name, builder, first):
    backbone = build_backbone(tiny_cfg(name, builder, RES[first - 2 :]))
    assert isinstance(backbone, BFP)
    outputs = backbone(torch.randn(1, 3, 64, 96))
    strides = [2**i for i in range(first, first + 5)]
    assert {k: tuple(v.shape[1:]) for k, v in outputs.items()} == {
        f"p{i}": (16, -(-64 // s), -(-96 // s)) for i, s in enumerate(strides, first)
    }
    sum(f.sum() for f in outputs.values()).backward()
    parameters = dict(backbone.named_parameters())
    assert [k for k, p in parameters.items() if p.requires_grad and p.grad is None] == []
    frozen = [k for k, p in parameters.items() if not p.requires_grad]
    assert not frozen or name == "hrnet_w18_small"  # whose unused branches are frozen


@pytest.mark.parametrize("name", ["convnext_atto", "efficientnet_b0"])
def test_nothing_trains_behind_the_last_feature(name):
    backbone = TimmBackbone(name, out_features=("res4", "res3"))
    assert list(backbone.output_shape()) == ["res3", "res4"]
    sum(f.sum() for f in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
    trained = {k: p for k, p in backbone.named_parameters() if p.requires_grad}
    assert trained and all(p.grad is not None for p in trained.values())
    assert backbone.training


def test_without_bfp():
    cfg = tiny_cfg("resnet18", "build_libra_timm_fpn_backbone")
    cfg.MODEL.BFP.ENABLED = False
    assert not isinstance(build_backbone(cfg), BFP)


@pytest.mark.parametrize(
    "kwargs,named",
    [
        ({"name": ""}, "MODEL.CLASSIFIER.NAME must be .*, got ''"),
        ({"name": "resnet19"}, "MODEL.CLASSIFIER.NAME must be .*, got 'resnet19'.*resnet18"),
        ({"norm": "GN"}, "MODEL.CLASSIFIER.NORM must be .*'SyncBN'.*, got 'GN'"),
        ({"freeze_at": -1}, "MODEL.BACKBONE.FREEZE_AT must be .*, got -1"),
        ({"out_features": ["p2"]}, "MODEL.FPN.IN_FEATURES must be .*, got 'p2'"),
        ({"name": "vit_tiny_patch16_224"}, r"stride 4 \(res2 .* strides \[16, 16, 16\]"),
        ({"name": "swin_tiny_patch4_window7_224"}, "in NCHW layout, got 'swin_.*NHWC"),
    ],
)
def test_bad_setting_is_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        TimmBackbone(**{"name": "resnet18", **kwargs})


def test_missing_timm_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "timm", None)
    for use in (lambda: TimmBackbone("resnet18"), lambda: timm_weights_file("resnet18")):
        with pytest.raises(UserError, match=r"pip install libra_d2\[timm\]"):
            use()


@pytest.fixture
def pretrained(monkeypatch, tmp_path):
    """resnet18's "pre-trained" weights, made here, and how often they were asked for."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    classifier = randomise_norms(timm.create_model("resnet18"))
    asked = []
    create_model = timm.create_model

    def fake(name, pretrained=False, **kwargs):
        if not pretrained:
            return create_model(name, **kwargs)
        asked.append(name)
        return classifier

    monkeypatch.setattr(timm, "create_model", fake)
    return classifier, asked


def test_weights_are_got_once(pretrained, tmp_path):
    classifier, asked = pretrained
    for _ in range(2):
        path = timm_weights_file("resnet18.a1_in1k")
        assert path == str(tmp_path / "timm" / "resnet18.a1_in1k.pth")
        for key, value in torch.load(path, weights_only=True).items():
            assert torch.equal(value, classifier.state_dict()[key])
    assert asked == ["resnet18.a1_in1k"]


def test_weights_are_loaded_through_the_config_key(pretrained):
    classifier, _ = pretrained
    backbone = build_backbone(tiny_cfg("resnet18", "build_libra_timm_fpn_backbone"))
    model = nn.ModuleDict({"backbone": backbone})
    LibraCheckpointer(model).load("timm://resnet18")
    body = backbone.fpn.bottom_up.body
    assert torch.equal(body.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)
    assert torch.equal(body.bn1.running_mean, classifier.bn1.running_mean)
    weights, origin = adapt(classifier.state_dict(), model)
    assert origin == CLASSIFIER
    assert set(weights) == {k for k in model.state_dict() if ".bottom_up." in k}


def test_weights_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="timm://resnet19: timm has no such weights"):
        timm_weights_file("resnet19")

    def offline(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"timm://resnet18: .*no route to host"):
        timm_weights_file("resnet18")
    assert not list(tmp_path.rglob("*.pth*"))
