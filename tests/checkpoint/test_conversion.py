import pickle

import numpy as np
import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from libra_d2.checkpoint import LibraCheckpointer, read_checkpoint
from libra_d2.cli.main import main
from libra_d2.engine import load_cfg

from .mmdet_models import state_dict

FASTER = "libra-faster-rcnn_r50_fpn_1x_coco"


@pytest.fixture(scope="module")
def published():
    weights = state_dict(FASTER)
    weights["backbone.bn1.num_batches_tracked"] = torch.tensor(12)
    return weights


def run(*args):
    return main(["convert", *map(str, args)])


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_there_and_back_is_the_identity(tmp_path, published, suffix, capsys):
    meta = {"mmdet_version": "3.3.0", "dataset_meta": {"classes": ["a", "b"]}, "epoch": 12}
    source, ours, back = (tmp_path / n for n in ("a.pth", f"b{suffix}", "c.pth"))
    torch.save({"state_dict": published, "meta": meta, "optimizer": {}}, source)
    assert run(source, ours) == 0 and run(ours, back, "--to", "mmdet") == 0
    assert "303 tensors in the format of detectron2" in capsys.readouterr().out
    loaded = torch.load(back, weights_only=True)
    assert loaded["meta"] == meta
    assert list(loaded["state_dict"]) == list(published)
    assert all(torch.equal(v, published[k]) for k, v in loaded["state_dict"].items())


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_detectron2_itself_reads_the_converted_file(tmp_path, published, suffix, caplog):
    """Detectron2's checkpointer and its DefaultPredictor read it."""
    torch.save({"state_dict": published}, tmp_path / "a.pth")
    assert run(tmp_path / "a.pth", tmp_path / f"b{suffix}") == 0
    model = build_model(load_cfg("configs/mmdet/libra_r50.yaml", ["MODEL.DEVICE", "cpu"]))
    DetectionCheckpointer(model).load(str(tmp_path / f"b{suffix}"))
    assert "not found" not in caplog.text and "not used" not in caplog.text
    assert torch.equal(
        model.backbone.bfp.refine.theta.weight, published["neck.1.refine.theta.conv.weight"]
    )


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_torchvision_resnets_become_detectron2s(tmp_path, name, caplog):
    net = torchvision.models.get_model(name, weights=None)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(net.state_dict(), tmp_path / "a.pth")
    assert run(tmp_path / "a.pth", tmp_path / "b.pth") == 0
    opts = ["MODEL.DEVICE", "cpu"]
    if name != "resnet50":
        opts += ["MODEL.RESNETS.NUM_GROUPS", "32", "MODEL.RESNETS.WIDTH_PER_GROUP", "4"]
    model = build_model(load_cfg("configs/libra_r50.yaml", opts))
    DetectionCheckpointer(model).load(str(tmp_path / "b.pth"))
    trunk = model.backbone.fpn.bottom_up
    assert torch.equal(trunk.stem.conv1.weight, net.conv1.weight)
    assert torch.equal(trunk.res4[5].conv3.weight, net.layer3[5].conv3.weight)
    assert torch.equal(trunk.res2[0].shortcut.norm.bias, net.layer1[0].downsample[1].bias)


def test_whatever_is_in_the_meta_data_the_files_can_be_read(tmp_path, published):
    """The metadata may contain a score as a NumPy number, and the weights may be Parameters."""
    meta = {
        "hook_msgs": {"best_score": np.float64(0.5), "list": [1, ("a", None)]},
        "CLASSES": ("a",),
    }
    weights = {**published, "extra": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    torch.save({"state_dict": weights, "meta": meta}, tmp_path / "a.pth")
    for name in ("b.pth", "b.pkl"):
        assert run(tmp_path / "a.pth", tmp_path / name) == 0
        kept = read_checkpoint(str(tmp_path / name))["mmdet"]["meta"]
        assert kept["CLASSES"] == ("a",) and kept["hook_msgs"]["list"] == [1, ("a", None)]
    assert run(tmp_path / "b.pth", tmp_path / "c.pth", "--to", "mmdet") == 0
    torch.load(tmp_path / "c.pth", weights_only=True)


def test_a_config_that_a_converted_file_does_not_fit_is_told(tmp_path, published, caplog):
    torch.save({"state_dict": published}, tmp_path / "a.pth")
    assert run(tmp_path / "a.pth", tmp_path / "b.pth") == 0
    model = build_model(load_cfg("configs/libra_r50.yaml", ["MODEL.DEVICE", "cpu"]))
    LibraCheckpointer(model).load(str(tmp_path / "b.pth"))
    assert "does not fit the published weights (mmdetection): INPUT.FORMAT is BGR" in caplog.text


@pytest.mark.parametrize(
    "args, message",
    [
        (("missing.pth", "b.pth"), "missing.pth does not exist"),
        (
            ("other.pth", "b.pth"),
            "must be a checkpoint of mmdetection or of torchvision's ResNet, got",
        ),
        (("other.pth", "b.pth", "--to", "mmdet"), "must be a checkpoint of a Detectron2 detector"),
        (("resnet.pth", "b.txt"), "must end in .pth or .pkl, got b.txt"),
        (("resnet.pth", "no/b.pth"), "no/b.pth cannot be written"),
        (("evil.pkl", "b.pth"), "cannot read the checkpoint evil.pkl"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    torch.save({"a.b": torch.zeros(1)}, "other.pth")
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, "resnet.pth")
    with open("evil.pkl", "wb") as f:
        pickle.dump({"model": print}, f)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert run(*args) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == before
