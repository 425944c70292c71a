import hashlib
import logging
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.modeling import build_backbone, build_model
from detectron2.utils.file_io import PathManager

from libra_d2.checkpoint import LibraCheckpointer, torchvision_weights_file
from libra_d2.checkpoint.torchvision_weights import verify_hash_in_name
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError


@pytest.fixture
def model():
    return build_model(load_cfg("configs/libra_mobilenet_v2.yaml", ["MODEL.DEVICE", "cpu"]))


def named_by_hash(folder, state_dict, stem="mobilenet_v2"):
    path = folder / "weights.pth"
    torch.save(state_dict, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(folder / f"{stem}-{digest[:8]}.pth")


def test_weights_of_a_torchvision_file_reach_the_backbone(model, tmp_path, caplog):
    net = torchvision.models.mobilenet_v2(weights=None)
    checkpointer = LibraCheckpointer(model)
    with caplog.at_level(logging.INFO):
        checkpointer.load(str(named_by_hash(tmp_path, net.state_dict())))
    features = model.backbone.fpn.bottom_up.features
    for key, value in features.state_dict().items():
        assert torch.equal(value, net.features.state_dict()[key]), key
    assert checkpointer.backbone_only
    assert "ImageNet weights: 312 tensors into backbone.fpn.bottom_up" in caplog.text
    assert "not found in the checkpoint" not in caplog.text


def test_offline_package_holds_torchvisions_file(model):
    """Installed by the set-up, so that the demo needs no download."""
    path = torchvision_weights_file("mobilenet_v2")
    assert path.endswith("mobilenet_v2-b0353104.pth")
    assert PathManager.get_local_path("torchvision://mobilenet_v2") == path
    LibraCheckpointer(model).load("torchvision://mobilenet_v2")
    first = torch.load(path, weights_only=True)["features.0.0.weight"]
    assert torch.equal(model.backbone.fpn.bottom_up.features[0][0].weight, first)


def test_file_in_torch_hubs_cache_is_used(monkeypatch, tmp_path):
    source = torchvision_weights_file("mobilenet_v2")
    monkeypatch.setattr(
        "libra_d2.checkpoint.torchvision_weights._OFFLINE_PACKAGE", "no_such_package"
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    cached = tmp_path / "checkpoints" / os.path.basename(source)
    shutil.copy(source, cached)
    assert torchvision_weights_file("mobilenet_v2") == str(cached)
    cached.write_bytes(cached.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is damaged"):
        torchvision_weights_file("mobilenet_v2")


def test_url_is_torchvisions_and_a_failure_names_it(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "libra_d2.checkpoint.torchvision_weights._OFFLINE_PACKAGE", "no_such_package"
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked = []

    def download(url, destination, hash_prefix):
        asked.append((url, hash_prefix))
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(UserError, match=r"cannot download https://.*mobilenet_v2-b0353104\.pth"):
        torchvision_weights_file("mobilenet_v2")
    assert asked[0][0].endswith("mobilenet_v2-b0353104.pth") and asked[0][1] == "b0353104"
    with pytest.raises(UserError, match="torchvision has no such weights"):
        torchvision_weights_file("no_such_model")


def test_damaged_file_is_refused(tmp_path):
    path = tmp_path / "resnet18-0123456789.pth"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"resnet18-01.*\.pth is damaged.*not with 0123456789"):
        verify_hash_in_name(str(path))


@pytest.mark.parametrize("name", ["model_final.pth", "libra-20250131.pth", "my-0123456789.pth"])
def test_other_names_promise_no_hash(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    verify_hash_in_name(str(tmp_path / name))


def test_checkpoint_comes_back_as_it_was(model, tmp_path):
    LibraCheckpointer(model, str(tmp_path)).save("model_final")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    checkpointer = LibraCheckpointer(model)
    checkpointer.load(str(tmp_path / "model_final.pth"))
    assert not checkpointer.backbone_only
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_without_bfp_load_into_a_model_with_it(tmp_path, caplog):
    """Detectron2's zoo detectors: the FPN's keys have no `fpn.` before them."""
    opts = ["MODEL.DEVICE", "cpu", "MODEL.BFP.ENABLED"]
    plain, libra = (
        build_model(load_cfg("configs/libra_mobilenet_v2.yaml", [*opts, on]))
        for on in ("False", "True")
    )
    LibraCheckpointer(plain, str(tmp_path)).save("plain")
    LibraCheckpointer(libra).load(str(tmp_path / "plain.pth"))
    ours = libra.backbone.fpn.state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in plain.backbone.state_dict().items())
    heads = libra.roi_heads.state_dict()
    assert all(torch.equal(v, heads[k]) for k, v in plain.roi_heads.state_dict().items())


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_checkpoint_does_not_run(model, tmp_path):
    torch.save({"model": Evil(str(tmp_path / "written"))}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*evil\.pth"):
        LibraCheckpointer(model).load(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps([1, 2])])
def test_what_is_no_checkpoint_is_named(model, tmp_path, content):
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint .*m\.pth"):
        LibraCheckpointer(model).load(str(tmp_path / "m.pth"))


@pytest.mark.parametrize("path", ["tochvision://mobilenet_v2", "http://127.0.0.1:9/m.pth"])
def test_unreachable_weights_are_named(model, path):
    with pytest.raises(UserError, match=path.replace(".", "[.]")):
        LibraCheckpointer(model).load(path)


def test_a_failed_write_leaves_the_checkpoint_alone(model, tmp_path, monkeypatch):
    checkpointer = LibraCheckpointer(model, str(tmp_path))
    checkpointer.save("model", iteration=3)
    before = (tmp_path / "model.pth").read_bytes()

    def disk_full(data, path):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError):
        checkpointer.save("model", iteration=4)
    assert (tmp_path / "model.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model.pth"]


def test_the_best_checkpoint_is_not_the_last(model, tmp_path):
    checkpointer = LibraCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    checkpointer.save("model_best", iteration=7)
    assert checkpointer.get_checkpoint_file().endswith("model_0000009.pth")
    assert checkpointer.load(checkpointer.get_checkpoint_file())["iteration"] == 9


def test_narrower_fpn_is_skipped_as_upstream_does(tmp_path, caplog):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.BFP.ENABLED"]
    narrow = ["MODEL.FPN.OUT_CHANNELS", "16"]
    config = "configs/libra_mobilenet_v2.yaml"
    LibraCheckpointer(build_model(load_cfg(config, [*opts, "False", *narrow])), str(tmp_path)).save(
        "m"
    )
    LibraCheckpointer(build_model(load_cfg(config, [*opts, "True"]))).load(str(tmp_path / "m.pth"))
    assert "Skip loading parameter 'backbone.fpn.fpn_lateral2.weight'" in caplog.text


def test_missing_checkpoint_is_named(model):
    with pytest.raises(UserError, match=r"checkpoint no/such\.pth does not exist"):
        LibraCheckpointer(model).load("no/such.pth")


def test_bare_backbone_takes_the_same_names():
    backbone = build_backbone(load_cfg("configs/libra_mobilenet_v2.yaml"))
    weights = torchvision.models.mobilenet_v2(weights=None).state_dict()
    own = backbone.fpn.bottom_up.state_dict()
    assert set(own) <= set(weights)
