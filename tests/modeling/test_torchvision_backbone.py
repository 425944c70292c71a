import warnings

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from libra_d2.checkpoint.foreign import CLASSIFIER, adapt
from libra_d2.engine import load_cfg
from libra_d2.modeling import BFP, TorchvisionBackbone
from libra_d2.modeling.torchvision_backbone import NAMES

from ..support.torchvision_models import RES, randomise_norms

RESNET = (["layer1", "layer2", "layer3", "layer4"], [256, 512, 1024, 2048])
BASIC_RESNET = (RESNET[0], [64, 128, 256, 512])
CONVNEXT = ([1, 3, 5, 7], [96, 192, 384, 768])
# The last layer of each stride (if a number, of `features`), and its channels.
LAYERS = {
    "convnext_small": CONVNEXT,
    "convnext_tiny": CONVNEXT,
    "efficientnet_b0": ([2, 3, 5, 8], [24, 40, 112, 1280]),
    "efficientnet_v2_s": ([2, 3, 5, 7], [48, 64, 160, 1280]),
    "mobilenet_v2": ([3, 6, 13, 18], [24, 32, 96, 1280]),
    "mobilenet_v3_large": ([3, 6, 12, 16], [24, 40, 112, 960]),
    "mobilenet_v3_small": ([1, 3, 8, 12], [16, 24, 48, 576]),
    "resnet101": RESNET,
    "resnet18": BASIC_RESNET,
    "resnet34": BASIC_RESNET,
    "resnet50": RESNET,
    "resnext50_32x4d": RESNET,
}
FAMILIES = ("resnet18", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny")


def layer_name(layer):
    return f"features.{layer}" if isinstance(layer, int) else layer


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    """A classifier of torchvision, and the backbone with its weights."""
    torch.manual_seed(0)
    name = request.param
    classifier = randomise_norms(torchvision.models.get_model(name, weights=None)).eval()
    backbone = TorchvisionBackbone(name).eval()
    backbone.load_state_dict(backbone.from_classifier(classifier.state_dict()))
    return name, classifier, backbone


@pytest.mark.parametrize("size", [(64, 64), (75, 97)])
def test_features_are_those_of_torchvision(pair, size):
    """In evaluation mode FrozenBN computes what BN computes."""
    name, classifier, backbone = pair
    nodes = dict(zip(map(layer_name, LAYERS[name][0]), RES))
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = create_feature_extractor(classifier, nodes)(x)
        outputs = backbone(x)
    assert list(outputs) == list(RES)
    shapes = backbone.output_shape()
    for (feature, stride), channels in zip(
        {"res2": 4, "res3": 8, "res4": 16, "res5": 32}.items(), LAYERS[name][1]
    ):
        error = (outputs[feature] - expected[feature]).abs().max()
        assert error < 1e-4 * expected[feature].abs().max(), feature
        assert (shapes[feature].channels, shapes[feature].stride) == (channels, stride)
        assert outputs[feature].shape[1] == channels
        rounded = [s // stride if "convnext" in name else -(-s // stride) for s in size]
        assert list(outputs[feature].shape[2:]) == rounded


def test_parameters_have_the_names_of_torchvision(pair):
    _, classifier, backbone = pair
    theirs = {k: v.shape for k, v in classifier.state_dict().items()}
    ours = {k: v.shape for k, v in backbone.state_dict().items()}
    assert ours.items() <= theirs.items()
    left = {k for k in theirs.keys() - ours.keys() if not k.endswith("num_batches_tracked")}
    assert left and all(k.startswith(("fc.", "classifier.")) for k in left)
    assert set(backbone.from_classifier(classifier.state_dict())) == set(ours)


def test_weights_of_another_classifier_do_not_belong():
    other = torchvision.models.resnet18(weights=None).state_dict()
    assert TorchvisionBackbone("mobilenet_v2").from_classifier(other) == {}


def test_weights_of_dropped_layers_do_not_belong():
    backbone = TorchvisionBackbone("resnet18", out_features=("res2", "res3"))
    weights = backbone.from_classifier(torchvision.models.resnet18(weights=None).state_dict())
    assert {k.split(".")[0] for k in weights} == {"conv1", "bn1", "layer1", "layer2"}


@pytest.mark.parametrize("name", FAMILIES)
def test_norm_is_frozen_or_trained(name):
    def kinds(norm):
        return {type(m) for m in TorchvisionBackbone(name, norm=norm).modules()}

    has_batch_norm = "convnext" not in name
    assert nn.BatchNorm2d not in kinds("FrozenBN")
    assert (FrozenBatchNorm2d in kinds("FrozenBN")) == has_batch_norm
    assert FrozenBatchNorm2d not in kinds("BN")
    assert (nn.BatchNorm2d in kinds("BN")) == has_batch_norm
    assert nn.BatchNorm2d not in kinds("SyncBN")
    assert (nn.SyncBatchNorm in kinds("SyncBN")) == has_batch_norm


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("freeze_at", [0, 1, 2, 4, 5])
def test_freezing_by_stage(name, freeze_at):
    """What is behind the frozen stages trains, and its norms too; nothing in them does."""
    backbone = TorchvisionBackbone(name, norm="BN", freeze_at=freeze_at).train()
    outputs = backbone(torch.randn(2, 3, 64, 64))
    frozen_stride = 2**freeze_at if freeze_at else 0
    for feature, spec in backbone.output_shape().items():
        assert outputs[feature].requires_grad == (spec.stride > frozen_stride), feature
    for module_name, module in backbone.named_modules():
        trains = [p.requires_grad for p in module.parameters(recurse=False)]
        if isinstance(module, nn.BatchNorm2d):
            assert all(trains), f"{module_name} updates its statistics in a frozen stage"
        if isinstance(module, FrozenBatchNorm2d):
            assert freeze_at, module_name


def test_first_frozen_stages_of_a_resnet():
    def trained(freeze_at):
        backbone = TorchvisionBackbone("resnet18", norm="BN", freeze_at=freeze_at)
        return {n.split(".")[0] for n, p in backbone.named_parameters() if p.requires_grad}

    deep = {"layer2", "layer3", "layer4"}
    assert trained(0) == {"conv1", "bn1", "layer1"} | deep
    assert trained(1) == {"layer1"} | deep
    assert trained(2) == deep


def tiny_cfg(**model):
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml")
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    for key, value in model.items():
        cfg.merge_from_list([f"MODEL.{key.replace('__', '.')}", value])
    return cfg


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "builder,first",
    [
        ("build_libra_torchvision_fpn_backbone", 2),
        ("build_libra_retinanet_torchvision_fpn_backbone", 3),
    ],
)
def test_every_parameter_gets_a_gradient_behind_fpn_and_bfp(name, builder, first):
    features = list(RES[first - 2 :])
    cfg = tiny_cfg(
        BACKBONE__NAME=builder, CLASSIFIER__NAME=name, FPN__IN_FEATURES=features, BFP__ENABLED=True
    )
    backbone = build_backbone(cfg)
    assert isinstance(backbone, BFP)
    outputs = backbone(torch.randn(1, 3, 64, 96))
    strides = [2**i for i in range(first, first + 5)]
    assert {k: tuple(v.shape[1:]) for k, v in outputs.items()} == {
        f"p{i}": (16, -(-64 // s), -(-96 // s)) for i, s in enumerate(strides, first)
    }
    sum(f.sum() for f in outputs.values()).backward()
    parameters = dict(backbone.named_parameters())
    assert all(p.requires_grad for p in parameters.values())
    assert [k for k, p in parameters.items() if p.grad is None] == []


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_every_parameter_trains_without_the_last_stage(name):
    backbone = TorchvisionBackbone(name, out_features=("res4", "res2"))
    assert list(backbone.output_shape()) == ["res2", "res4"]
    sum(f.sum() for f in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_retinanet_top_block_follows_p7_relu():
    def top_block(p7_relu):
        cfg = tiny_cfg(
            BACKBONE__NAME="build_libra_retinanet_torchvision_fpn_backbone",
            FPN__IN_FEATURES=["res3", "res4", "res5"],
            RETINANET__P7_RELU=p7_relu,
        )
        return build_backbone(cfg).fpn.top_block

    with_relu, without = top_block(True), top_block(False)
    without.load_state_dict(with_relu.state_dict())
    c5 = torch.randn(1, 1280, 4, 4)
    p6, p7 = with_relu(c5)
    assert torch.allclose(p7, with_relu.p7(p6.relu()))
    assert torch.allclose(without(c5)[1], with_relu.p7(p6))


def test_retinanet_without_res5_is_named():
    cfg = tiny_cfg(
        BACKBONE__NAME="build_libra_retinanet_torchvision_fpn_backbone",
        FPN__IN_FEATURES=["res3", "res4"],
    )
    with pytest.raises(
        ValueError, match=r"MODEL.FPN.IN_FEATURES must contain 'res5'.*got \['res3', 'res4'\]"
    ):
        build_backbone(cfg)


def test_without_bfp():
    cfg = tiny_cfg(BFP__ENABLED=False, CLASSIFIER__NAME="resnet18")
    assert not isinstance(build_backbone(cfg), BFP)


def test_a_classifier_is_recognised_by_the_checkpointer():
    cfg = tiny_cfg(CLASSIFIER__NAME="resnet18")
    model = nn.ModuleDict({"backbone": build_backbone(cfg)})
    weights, origin = adapt(torchvision.models.resnet18(weights=None).state_dict(), model)
    assert origin == CLASSIFIER
    assert set(weights) == {k for k in model.state_dict() if ".bottom_up." in k}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_scripted_equals_eager(name):
    backbone = TorchvisionBackbone(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch: scripting is deprecated
        scripted = torch.jit.script(backbone)
    x = torch.randn(1, 3, 64, 64)
    for feature, expected in backbone(x).items():
        assert torch.allclose(scripted(x)[feature], expected, atol=1e-5)


@pytest.mark.parametrize(
    "kwargs,named",
    [
        ({"name": "vgg"}, "MODEL.CLASSIFIER.NAME must be .*'mobilenet_v2'.*, got 'vgg'"),
        ({"norm": "GN"}, "MODEL.CLASSIFIER.NORM must be .*'SyncBN'.*, got 'GN'"),
        ({"freeze_at": 6}, "MODEL.BACKBONE.FREEZE_AT must be .*, got 6"),
        ({"out_features": ["res1"]}, "MODEL.FPN.IN_FEATURES must be .*'res2'.*, got 'res1'"),
        ({"out_features": []}, "MODEL.FPN.IN_FEATURES must have at least one feature, got none"),
    ],
)
def test_bad_setting_is_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        TorchvisionBackbone(**{"name": "mobilenet_v2", **kwargs})
