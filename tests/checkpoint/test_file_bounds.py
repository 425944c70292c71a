"""Files that are not checkpoints, or would take more memory than their size, are refused."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from libra_d2.checkpoint import read_checkpoint
from libra_d2.checkpoint.safe_pickle import load_pkl
from libra_d2.errors import UserError


def saved(content, **kwargs):
    buffer = io.BytesIO()
    torch.save(content, buffer, **kwargs)
    return buffer.getvalue()


WEIGHTS = {"model": {"weight": torch.rand(64, 64)}}


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n",
            "Run `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page"),
        (b"\xef\xbb\xbf\n<html>", "it is a web page"),
        (struct.pack("<Q", 30) + b'{"weight":{"dtype":"F32"}}', "a safetensors file"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "a tar archive"),
        (b"IMAGES = 3\n", "cannot read the checkpoint"),
        (saved(WEIGHTS)[:9000], "cut off or damaged"),
        (
            saved(WEIGHTS, _use_new_zipfile_serialization=False)[:50],
            "cut off or dam|must contain a dict, got a int",
        ),
        (pickle.dumps({"model": {"a": np.zeros(100)}})[:300], "cut off or damaged"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, suffix, content, message):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as e:
        read_checkpoint(str(path))
    assert str(path) in str(e.value) and "\n" not in str(e.value)


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "m.pth")
    for path in (tmp_path / "m.pth", "/dev/zero"):
        with pytest.raises(UserError, match="not a regular file"):
            read_checkpoint(str(path))


SIZE = 5 << 30
EIGHT = struct.pack("<Q", SIZE)
FOUR = struct.pack("<I", (1 << 32) - 1)
# Of a few bytes each; what they would take is behind them.
BOMBS = {
    "memo": b"\x80\x02Nr" + FOUR + b".",  # 34 GB of table
    "memo in text": b"Np4000000000\n.",
    "bytearray": b"\x80\x05\x96" + EIGHT + b".",  # 5 GB
    "bytes": b"\x80\x04\x8e" + EIGHT + b".",
    "text": b"\x80\x04\x8d" + EIGHT + b".",
    "short text": b"\x80\x02X" + FOUR + b".",
    "number": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b".",
    "frame": b"\x80\x04\x95" + EIGHT + b"N.",
    "zeros": b"\x80\x02cbuiltins\nbytearray\n(I5368709120\ntR.",
    "zeros of Python 2": b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\0\0\0\x40\x01\x85R.",
    "zero bytes": b"\x80\x02cbuiltins\nbytes\n(I5368709120\ntR.",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("place", ["m.pkl", "legacy.pth", "zip.pth"])
def test_few_bytes_do_not_take_gigabytes(tmp_path, name, place):
    path = tmp_path / place
    if place == "zip.pth":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", BOMBS[name])
            archive.writestr("m/version", "3\n")
    else:
        path.write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="cannot read the checkpoint"):
            read_checkpoint(str(path))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_lists_of_the_same_lists_are_looked_at_once(tmp_path):
    """If each of 60 levels contains the level before twice, a naive visit takes 2^60 steps."""
    deep = []
    for _ in range(60):
        deep = [deep, deep]
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"model": deep, "a": (np.ones(2),) * 2}))
    content = load_pkl(str(tmp_path / "m.pkl"))
    assert content["a"][1].tolist() == [1, 1]
    with pytest.raises(UserError):
        read_checkpoint(str(tmp_path / "m.pkl"))


def test_a_zip_that_unpacks_to_more_than_its_size(tmp_path):
    source = io.BytesIO(saved(WEIGHTS))
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            content = bytes(1 << 24) if "/data/" in member.filename else old.read(member)
            new.writestr(member.filename, content)
    with pytest.raises(UserError, match="its content would be larger than the file"):
        read_checkpoint(str(tmp_path / "m.pth"))


def test_a_tensor_that_repeats_one_number(tmp_path):
    """Each copy of the tensor, on its way into a model, would take terabytes."""
    wide = torch.zeros(1).expand(1 << 40)
    torch.save({"model": {"weight": wide}}, tmp_path / "m.pth")
    with pytest.raises(UserError, match="is refused: its tensors would take"):
        read_checkpoint(str(tmp_path / "m.pth"))
    shared = torch.rand(100)
    torch.save({"model": {"a": shared, "b": shared}}, tmp_path / "m.pth")
    assert len(read_checkpoint(str(tmp_path / "m.pth"))["model"]) == 2


@pytest.mark.parametrize("kind", ["sparse", "meta", "quantised"])
def test_other_kinds_of_tensors(tmp_path, kind):
    tensor = {
        "sparse": lambda: torch.eye(3).to_sparse(),
        "meta": lambda: torch.empty(3, device="meta"),
        "quantised": lambda: torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8),
    }[kind]()
    torch.save({"model": {"weight": tensor}}, tmp_path / "m.pth")
    with pytest.raises(UserError, match="all tensors must be dense, but weight is sparse"):
        read_checkpoint(str(tmp_path / "m.pth"))
