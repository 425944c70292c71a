import errno
import hashlib
import logging
import os
import pickle
import random
import shutil
import zipfile

import numpy as np
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
    assert "(ImageNet classifier):" in caplog.text
    rows = [line.split() for line in caplog.text.splitlines()]
    assert ["backbone.fpn.bottom_up", "312"] in rows
    assert ["roi_heads.box_predictor", "4"] in rows  # left at its initialisation
    assert "WARNING" not in caplog.text


def test_offline_package_holds_torchvisions_file(model):
    """The setup installs this package, so that the demo needs no download."""
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

    class NoNetwork:
        def open(self, url, timeout):
            asked.append(url)
            raise OSError("no network")

    monkeypatch.setattr("libra_d2.checkpoint.download._opener", NoNetwork)
    with pytest.raises(UserError, match=r"cannot download https://.*mobilenet_v2-b0353104\.pth"):
        torchvision_weights_file("mobilenet_v2")
    assert len(asked) == 1 and asked[0].endswith("mobilenet_v2-b0353104.pth")
    with pytest.raises(UserError, match="torchvision has no such weights"):
        torchvision_weights_file("no_such_model")


def test_damaged_file_is_refused(tmp_path):
    path = tmp_path / "resnet18-f37072fd.pth"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"resnet18-f3.*\.pth is damaged.*must begin with f37072fd"):
        verify_hash_in_name(str(path))


@pytest.mark.parametrize("name", ["model_final.pth", "libra-20250131.pth", "resnet50-20261124.pth"])
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
    """In detectors of Detectron2's model zoo, the keys of the FPN have no prefix `fpn.`."""
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

    def disk_full(data, file):
        file.write(b"half")
        try:
            raise OSError(errno.ENOSPC, "no space left on device")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")  # as torch does

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(UserError, match=r"model\.pth: No space left on device\. Free disk space"):
        checkpointer.save("model", iteration=4)
    assert (tmp_path / "model.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model.pth"]


def small_checkpointer(folder, **kwargs):
    return LibraCheckpointer(torch.nn.Linear(20, 30), str(folder), **kwargs)


def save_three(folder):
    checkpointer = small_checkpointer(folder)
    for i in (9, 19, 29):
        checkpointer.save(f"model_{i:07d}", iteration=i)
        os.utime(folder / f"model_{i:07d}.pth", (i, i))


def test_an_untagged_checkpoint_is_not_the_last(tmp_path):
    checkpointer = small_checkpointer(tmp_path)
    assert not checkpointer.has_checkpoint()
    checkpointer.save("model_0000009", iteration=9)
    checkpointer.save("model_final", tag=False, iteration=7)
    assert checkpointer.get_checkpoint_file().endswith("model_0000009.pth")
    assert checkpointer.load(checkpointer.get_checkpoint_file())["iteration"] == 9


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "gone"])
def test_the_one_before_a_damaged_checkpoint_is_used(tmp_path, caplog, how):
    save_three(tmp_path)
    last = tmp_path / "model_0000029.pth"
    content = bytearray(last.read_bytes())
    if how == "cut":
        last.write_bytes(content[: len(content) // 2])
    elif how == "flipped":  # a single bit, in the weights
        position = content.index(torch.load(last)["model"]["weight"].numpy().tobytes()[:64])
        content[position + 5] ^= 1
        last.write_bytes(content)
        torch.load(last, weights_only=True)  # which torch does not notice
    elif how == "empty":
        last.write_bytes(b"")
    else:
        last.unlink()
    checkpointer = small_checkpointer(tmp_path)
    loaded = checkpointer.resume_or_load("", resume=True)
    assert loaded["iteration"] == 19
    assert "model_0000029.pth is damaged or missing" in caplog.text


def test_flipped_bits_in_the_directory_of_a_checkpoint(tmp_path, caplog):
    """Either the previous checkpoint is used, or exactly what was saved is loaded."""
    save_three(tmp_path)
    last = tmp_path / "model_0000029.pth"
    content, saved = last.read_bytes(), torch.load(last, weights_only=True)["model"]
    with zipfile.ZipFile(last) as file:
        directory = file.start_dir
    end = content.index(b"PK\x06\x06")  # the two end records and the locator between them
    rng = random.Random(0)
    damages = [[rng.randrange(8 * directory, 8 * len(content))] for _ in range(200)]
    damages += [[rng.randrange(8 * end, 8 * len(content))] for _ in range(100)]
    damages += [rng.choices(range(8 * directory, 8 * len(content)), k=5) for _ in range(50)]
    # Marked as a folder, which torch reads nothing of.
    damages += [
        [8 * (position + 38) + 4]
        for position in range(directory, end)
        if content[position:].startswith(b"PK\x01\x02")
    ]
    fallbacks = 0
    for bits in damages:
        damaged = bytearray(content)
        for bit in bits:
            damaged[bit // 8] ^= 1 << bit % 8
        last.write_bytes(damaged)
        caplog.clear()
        checkpointer = small_checkpointer(tmp_path)
        iteration = checkpointer.resume_or_load("", resume=True)["iteration"]
        said = "model_0000029.pth is damaged or missing. The one before it is used" in caplog.text
        assert iteration == (19 if said else 29), bits
        fallbacks += said
        if not said:
            weights = checkpointer.model.state_dict()
            assert all(torch.equal(weights[key], value) for key, value in saved.items()), bits
    assert fallbacks > 150


def test_weights_that_a_flipped_bit_marks_as_a_folder_are_refused(tmp_path):
    """torch would return uninitialized memory for them."""
    torch.save({"model": {"weight": torch.rand(9)}}, tmp_path / "m.pth")
    content = bytearray((tmp_path / "m.pth").read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
    content[entry + 38] ^= 0x10
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.pth: it is cut off or damaged .*data/0 is marked as"):
        LibraCheckpointer(torch.nn.Linear(3, 3)).load(str(tmp_path / "m.pth"))


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "last_checkpoint is missing or damaged. The checkpoint with the most iterations is"),
        (b"\xff\x00\xfe" * 9, "last_checkpoint is missing or damaged"),
        (b"../model_0000029.pth", "last_checkpoint is missing or damaged"),
        (b"model_00000", "last_checkpoint is missing or damaged"),
        (b"model_0000039.pth", "model_0000039.pth is damaged or missing. The one before it is"),
        (None, "last_checkpoint is missing or damaged"),
    ],
)
def test_a_damaged_last_checkpoint_is_said_and_made_up_for(tmp_path, caplog, content, said):
    checkpointer = small_checkpointer(tmp_path)
    for i in (29, 9, 19):  # the last one to be written is not the one to go on from
        checkpointer.save(f"model_{i:07d}", iteration=i, trainer={})
    if content is None:
        (tmp_path / "last_checkpoint").unlink()
    else:
        (tmp_path / "last_checkpoint").write_bytes(content)
    loaded = small_checkpointer(tmp_path).resume_or_load("", resume=True)
    assert loaded["iteration"] == 29
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert said in line and "\n" not in line


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    save_three(tmp_path)
    for path in tmp_path.glob("*.pth"):
        path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
        small_checkpointer(tmp_path).resume_or_load("", resume=True)


def test_a_second_name(tmp_path):
    checkpointer = small_checkpointer(tmp_path)
    for i in (1, 2):
        checkpointer.save(f"model_best_{i}", iteration=i)
        checkpointer.link(f"model_best_{i}", "model_best")
        assert torch.load(tmp_path / "model_best.pth", weights_only=True)["iteration"] == i
    assert sorted(p.name for p in tmp_path.glob("*.partial*")) == []


def test_classes_are_stored_and_compared(tmp_path, caplog):
    small_checkpointer(tmp_path, class_names=["cat", "dog"]).save("model_final")
    path = str(tmp_path / "model_final.pth")
    both = (
        r"has the classes \['cat', 'dog'\], but the data have \['dog', 'cat'\]\. "
        r"They must be the same"
    )
    other = {"class_names": ["dog", "cat"]}
    with pytest.raises(UserError, match=both):
        small_checkpointer(tmp_path, **other).resume_or_load("", resume=True)
    with pytest.raises(UserError, match=both):  # to evaluate
        small_checkpointer(tmp_path, **other, require_classes=True).resume_or_load(
            path, resume=False
        )
    # To start from.
    small_checkpointer(tmp_path, **other).resume_or_load(path, resume=False)
    assert "The class layers are kept, because the number is the same" in caplog.text
    for same in ([], ["cat", "dog"]):
        small_checkpointer(tmp_path, class_names=same).resume_or_load("", resume=True)


def test_tensors_of_another_size_are_named(tmp_path, caplog):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.BFP.ENABLED"]
    narrow = ["MODEL.FPN.OUT_CHANNELS", "16"]
    config = "configs/libra_mobilenet_v2.yaml"
    LibraCheckpointer(build_model(load_cfg(config, [*opts, "False", *narrow])), str(tmp_path)).save(
        "m"
    )
    LibraCheckpointer(build_model(load_cfg(config, [*opts, "True"]))).load(str(tmp_path / "m.pth"))
    assert (
        "Not loaded, because the size differs: backbone.fpn.fpn_lateral2.weight "
        "([16, 24, 1, 1] in the file, [64, 24, 1, 1] here), " in caplog.text
    )


@pytest.fixture
def r50():
    return build_model(load_cfg("configs/libra_r50.yaml", ["MODEL.DEVICE", "cpu"]))


def test_zoo_detector_of_detectron2(tmp_path, caplog):
    """The file is a `.pkl` of arrays with a Faster R-CNN without BFP."""
    opts = ["MODEL.DEVICE", "cpu", "MODEL.BFP.ENABLED", "False"]
    plain = build_model(load_cfg("configs/libra_r50.yaml", opts)).state_dict()
    arrays = {k: v.numpy() for k, v in plain.items()}
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4), np.float32)
    content = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content, protocol=2))
    model = build_model(load_cfg("configs/libra_r50.yaml", ["MODEL.DEVICE", "cpu"]))
    LibraCheckpointer(model).load(str(tmp_path / "model_final.pkl"))
    for key, value in plain.items():
        own = key.replace("backbone.", "backbone.fpn.")
        assert torch.equal(model.state_dict()[own], value), key
    assert "Left at their initial values: backbone.bfp.refine.g.weight" in caplog.text
    assert "cell_anchors" not in caplog.text and "does not fit" not in caplog.text


def test_zoo_backbone_of_detectron2(r50, tmp_path, caplog):
    """The file is a `.pkl` with the names of Caffe2, like those of ImageNetPretrained/MSRA."""
    blobs = {
        "conv1_w": np.full((64, 3, 7, 7), 2, np.float32),
        "res_conv1_bn_s": np.full(64, 3, np.float32),
        "res2_0_branch2a_w": np.full((64, 64, 1, 1), 4, np.float32),
        "res2_0_branch1_bn_b": np.full(256, 5, np.float32),
        "res5_2_branch2c_w": np.full((2048, 512, 1, 1), 6, np.float32),
        "conv1_w_momentum": np.zeros(1, np.float32),
    }
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(blobs))
    checkpointer = LibraCheckpointer(r50)
    with caplog.at_level(logging.INFO):
        checkpointer.load(str(tmp_path / "R-50.pkl"))
    trunk = r50.backbone.fpn.bottom_up
    assert (trunk.stem.conv1.weight == 2).all() and (trunk.stem.conv1.norm.weight == 3).all()
    assert (trunk.res2[0].conv1.weight == 4).all()
    assert (trunk.res2[0].shortcut.norm.bias == 5).all()
    assert (trunk.res5[2].conv3.weight == 6).all()
    assert checkpointer.backbone_only
    assert ["backbone.fpn.bottom_up", "5", "260"] in [t.split() for t in caplog.text.splitlines()]


@pytest.mark.parametrize("wrapped", [True, False])
def test_torchvision_resnet_goes_into_detectron2s(r50, tmp_path, caplog, wrapped):
    net = torchvision.models.resnet50(weights=None)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    weights = (
        {f"module.{k}": v for k, v in net.state_dict().items()} if wrapped else net.state_dict()
    )
    torch.save({"state_dict": weights, "epoch": 3} if wrapped else weights, tmp_path / "m.pth")
    checkpointer = LibraCheckpointer(r50)
    checkpointer.load(str(tmp_path / "m.pth"))
    trunk = r50.backbone.fpn.bottom_up
    assert torch.equal(trunk.res3[2].conv2.weight, net.layer2[2].conv2.weight)
    assert torch.equal(trunk.res3[2].conv2.norm.bias, net.layer2[2].bn2.bias)
    assert torch.equal(trunk.res5[0].shortcut.weight, net.layer4[0].downsample[0].weight)
    assert checkpointer.backbone_only
    assert "(ImageNet classifier): MODEL.RESNETS.STRIDE_IN_1X1 is True" in caplog.text
    assert "fc.weight" not in caplog.text


def test_a_classifier_of_another_depth_is_told(r50, tmp_path, caplog):
    def load(file, detector):
        caplog.clear()
        weights = torchvision.models.get_model(file, weights=None).state_dict()
        torch.save(weights, tmp_path / "m.pth")
        LibraCheckpointer(detector).load(str(tmp_path / "m.pth"))
        return caplog.text

    opts = ["MODEL.DEVICE", "cpu", "MODEL.CLASSIFIER.NAME", "resnet34"]
    deeper = build_model(load_cfg("configs/libra_mobilenet_v2.yaml", opts))
    text = "The weights are of another backbone than the model's: "
    assert f"{text}80 tensors of one have no counterpart" in load("resnet18", deeper)
    assert text not in load("resnet34", deeper)
    assert text in load("resnet101", r50)
    assert text not in load("resnet50", r50)


def test_a_checkpoint_that_fits_nothing_is_an_error(r50, tmp_path):
    torch.save(
        {"encoder.weight": torch.zeros(2, 3), "decoder.weight": torch.zeros(4)}, tmp_path / "m.pth"
    )
    message = (
        r"nothing in .*m\.pth fits the model\. Its first tensors are encoder\.weight \[2, 3\], "
        r"decoder\.weight \[4\], those of the model are backbone\.fpn\.fpn_lateral2\.weight "
    )
    with pytest.raises(UserError, match=message):
        LibraCheckpointer(r50).load(str(tmp_path / "m.pth"))


def test_names_that_fit_with_no_shape_are_an_error(r50, tmp_path):
    weights = {k: torch.zeros(1, 1, 1) for k in r50.state_dict()}
    torch.save({"model": weights}, tmp_path / "m.pth")
    with pytest.raises(
        UserError, match=r"fpn_lateral2\.weight \[1, 1, 1\].*fpn_lateral2\.weight \[256"
    ):
        LibraCheckpointer(r50).load(str(tmp_path / "m.pth"))


def test_missing_checkpoint_is_named(model):
    with pytest.raises(UserError, match=r"checkpoint no/such\.pth does not exist"):
        LibraCheckpointer(model).load("no/such.pth")


def test_bare_backbone_takes_the_same_names():
    backbone = build_backbone(load_cfg("configs/libra_mobilenet_v2.yaml"))
    weights = torchvision.models.mobilenet_v2(weights=None).state_dict()
    own = backbone.fpn.bottom_up.state_dict()
    assert set(own) <= set(weights)
