"""Packed data that was made to do harm, or that is damaged in its structure."""

import hashlib
import json
import os
import re
import struct
from pathlib import Path

import lmdb
import pytest

from libra_d2.cli.main import main
from libra_d2.data.datasets.packed import register_packed
from libra_d2.data.images.packed_store import (
    ANNOTATIONS,
    COMPLETE,
    PREFIX,
    close_store,
    image_key,
    open_packed_image,
)
from libra_d2.data.packed.packing import pack
from libra_d2.data.packed.verification import verify
from libra_d2.errors import UserError
from libra_d2.utils.cache import cache_folder

from ...support.coco_files import write_dataset


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LIBRA_D2_CACHE", str(tmp_path / "cache"))
    path = str(tmp_path / "x.lmdb")
    pack(*write_dataset(tmp_path, num_images=40), path)
    yield path
    close_store(path)


def rewrite(path, **changes):
    """Change the summary of a store, and its annotations."""
    with lmdb.open(path, subdir=False) as env, env.begin(write=True) as transaction:
        summary = json.loads(transaction.get(COMPLETE))
        if "content" in changes:
            transaction.put(ANNOTATIONS, changes.pop("content"))
        transaction.put(COMPLETE, json.dumps({**summary, **changes}).encode())


def cached():
    folder = cache_folder() / "packed"
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}


def test_the_cache_is_named_by_what_the_annotations_are(store, tmp_path):
    """A store that claims the hash of another one would serve its own annotations for it."""
    other = str(tmp_path / "other.lmdb")
    json_file, images = write_dataset(tmp_path / "o", num_images=2)
    pack(json_file, images, other)
    theirs = hashlib.sha256(Path(json_file).read_bytes()).hexdigest()
    rewrite(store, annotations=theirs)
    with pytest.raises(UserError, match="its annotations are not those that it was packed with"):
        register_packed(store)
    assert cached() == {}
    register_packed(other)
    ((name, content),) = cached().items()
    assert name == f"other_{theirs[:32]}.json" and content == Path(json_file).read_bytes()
    close_store(other)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"annotations": "../../../evil"}, "its annotations are not those"),
        ({"annotations": 3}, "its summary is damaged"),
        ({"sha256": None}, "its summary is damaged"),
        ({"images": "many"}, "its summary is damaged"),
        ({"skipped": {"a": 1}}, "its summary is damaged"),
        ({"skipped": [1]}, "its summary is damaged"),
        ({"version": 7}, r"packed by another version of libra_d2 \(format 7, expected 1\)"),
        ({"version": None}, "its summary is damaged"),
        ({"extra": json.loads("[" * 100 + "]" * 100)}, "nested deeper than"),
    ],
)
def test_what_a_store_says_of_itself_is_checked(store, tmp_path, changes, message):
    rewrite(store, **changes)
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message) as e:
        register_packed(store)
    assert "\n" not in str(e.value)
    after = [p for p in tmp_path.rglob("*") if p not in before and "cache" not in p.parts]
    assert after == [] and cached() == {}


@pytest.mark.parametrize("summary", [b"[" * 10_000, b"3", b"{}", b'{"skipped": []}', b"\xff"])
def test_packing_over_a_store_with_a_damaged_summary(store, tmp_path, summary):
    """It goes on as with an unfinished one, or says no in one line."""
    with lmdb.open(store, subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(COMPLETE, summary)
    files = (str(tmp_path / "coco.json"), str(tmp_path / "images"))
    try:
        pack(*files, store)
    except UserError as e:
        assert "\n" not in str(e) and store in str(e)
    else:
        assert verify(store)[1] == []


def test_annotations_of_the_wrong_kind_are_a_problem(store):
    for content in (b"[]", b"{}", b'{"images": 3}', b'{"images": [{"a": 1}]}', b"[" * 10_000):
        rewrite(store, content=content)
        _, problems = verify(store)
        assert len(problems) == 1 and "are damaged" in problems[0]


@pytest.mark.parametrize("seed", range(6))
def test_checking_survives_damaged_pages(store, capfd, seed):
    """Pages that point outside of the file would end the command's own process."""
    content = bytearray(Path(store).read_bytes())
    page = 4096
    for start in range(2 * page, len(content), page):
        # Lower and upper bound of a page's entries, and the entries' sizes.
        if seed < 3:
            content[start + 12 : start + 16] = bytes([255, 15, 255, (seed * 5 + 1) % 16])
        else:
            at = start + 16 + 2 * seed
            content[at : at + 200] = bytes([0xF0 + seed]) * 200
    with open(store, "wb") as f:
        f.write(content)
    assert main(["pack", "--verify", store]) in (1, 2)
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err and store in captured.err


def test_a_value_that_is_longer_than_the_file(store, capfd):
    """Some versions of LMDB hand out what a page claims, two gigabytes here, others refuse it."""
    content = bytearray(Path(store).read_bytes())
    for page in range(0, len(content), 4096):
        flags, lower = struct.unpack_from("<HH", content, page + 10)
        if flags == 2:  # a leaf, with nodes of size (low, high), flags, and length of the key
            for place in struct.unpack_from(f"<{(lower - 16) // 2}H", content, page + 16):
                if struct.unpack_from("<HH", content, page + place + 4) == (0, len(image_key(""))):
                    struct.pack_into("<HH", content, page + place, 0xFFFF, 0x7FFF)
    Path(store).write_bytes(content)
    assert main(["pack", "--verify", store]) == 1
    captured = capfd.readouterr()
    assert re.search("point outside of the file|structure of the file are damaged", captured.err)
    assert f"{store} is damaged. Pack the data set again" in captured.out


def test_a_file_that_ends_before_its_pages_do(store):
    with open(store, "r+b") as f:
        f.truncate(os.path.getsize(store) // 2)
    with pytest.raises(UserError, match="is truncated"):
        verify(store)


def test_a_process_that_the_system_ends_is_a_problem(store, monkeypatch):
    monkeypatch.setattr(
        "libra_d2.data.packed.verification._verify", lambda path: os.kill(os.getpid(), 7)
    )
    _, problems = verify(store)
    assert problems == [
        "reading it failed with SIGBUS, because its pages point outside of the file"
    ]


def test_a_damaged_page_is_a_bad_image(store, monkeypatch):
    """So that training skips it, as it skips any image that cannot be read."""
    path = f"{PREFIX}{store}/1.jpg"
    assert open_packed_image(path).read(2) == b"\xff\xd8"

    def damaged(*_, **__):
        raise lmdb.CorruptedError("a page")

    monkeypatch.setattr("libra_d2.data.images.packed_store.image_key", damaged)
    with pytest.raises(OSError, match=r"is damaged at the image 1\.jpg"):
        open_packed_image(path)


def test_pipes_are_no_images(tmp_path):
    """Reading one would wait for ever."""
    json_file, images = write_dataset(tmp_path)
    os.remove(f"{images}/2.jpg")
    os.mkfifo(f"{images}/2.jpg")
    packed = pack(json_file, images, str(tmp_path / "x.lmdb"))
    assert packed.num_images == 2 and packed.skipped[0][0] == "2.jpg"
    assert "not a regular file" in packed.skipped[0][1]
