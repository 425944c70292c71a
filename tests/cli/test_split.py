"""`libra-d2 split`: what it prints, and that training takes what it names."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from libra_d2.cli.main import main
from libra_d2.cli.split import parse_ratios, table
from libra_d2.config import load_cfg
from libra_d2.data.datasets.setup import class_names, setup_datasets
from libra_d2.data.images.packed_store import close_store
from libra_d2.data.packed.packing import pack
from libra_d2.errors import UserError

from ..support.coco_files import write_dataset
from ..support.pictures import picture
from ..support.project import ROOT


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Twenty images, the first two of which are the same; a path with a blank."""
    monkeypatch.chdir(tmp_path)
    _, images = write_dataset(tmp_path / "my data", num_images=20)
    for i in range(20):
        picture(max(i, 1), (60, 40)).save(f"{images}/{i + 1}.jpg")
    return "coco:my data/coco.json,my data/images"


def test_says_what_it_did_and_what_to_give_to_training(data, capsys):
    assert main(["split", data, "--output", "out"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Images that look like others: 2, in 1 group\n" in out
    assert "  1.jpg, 2.jpg\n" in out
    rows = {line.split("  ")[0]: re.findall(r"(\d+) \(", line) for line in out.splitlines()}
    assert rows["images"] == rows["objects"] == rows["class cat"] == ["16", "2", "2"]
    assert rows["class dog"] == [] and re.search(r"class dog +0 +0 +0\n", out)
    train, test = (shlex.split(line) for line in out.splitlines() if "DATASETS." in line)
    assert train == [
        *("DATASETS.TRAIN", "coco:out/train.json,my data/images"),
        *("DATASETS.TEST", "coco:out/val.json,my data/images"),
    ]
    assert test == ["DATASETS.TEST", "coco:out/test.json,my data/images"]
    cfg = load_cfg(str(ROOT / "configs/libra_mobilenet_v2.yaml"), train)
    setup_datasets(cfg, num_classes_given=False)
    assert class_names(cfg) == ("cat", "dog")
    record = json.loads(Path("out/split.json").read_text())
    assert record["near_duplicates"] == [["1.jpg", "2.jpg"]]
    assert record["parts"]["train"]["num_images"] == 16


def test_paths_may_have_commas_and_quotes(data, capsys):
    Path("my data").rename("it's, mine")
    command = ["split", "coco:it's, mine/coco.json,it's, mine/images", "--output", "o, 1"]
    assert main(command) == 0
    (train,) = [shlex.split(s) for s in capsys.readouterr().out.splitlines() if "TRAIN" in s]
    assert train[1] == "coco:o, 1/train.json,it's, mine/images"
    cfg = load_cfg(str(ROOT / "configs/libra_mobilenet_v2.yaml"), train)
    setup_datasets(cfg, num_classes_given=False)
    assert class_names(cfg) == ("cat", "dog")


def test_parts_of_packed_data_are_trained_on(data, capsys):
    pack("my data/coco.json", "my data/images", "all.lmdb")
    assert main(["split", "packed:all.lmdb", "--output", "out", "--ratios", "0.5", "0.5"]) == 0
    (train,) = [shlex.split(s) for s in capsys.readouterr().out.splitlines() if "TRAIN" in s]
    assert train[1] == "coco:out/train.json,all.lmdb"
    cfg = load_cfg(str(ROOT / "configs/libra_mobilenet_v2.yaml"), train)
    setup_datasets(cfg, num_classes_given=False)
    close_store("all.lmdb")


def test_a_seed_gives_the_same_files_and_another_one_others(data):
    files = {}
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["split", data, "--output", name, "--seed", seed]) == 0
        files[name] = [
            Path(f"{name}/{part}.json").read_text() for part in ("train", "val", "split")
        ]
    assert files["a"] == files["b"] and files["a"] != files["c"]


def test_without_imagehash_the_extra_is_named(data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    assert main(["split", data, "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert "need imagehash: pip install libra_d2[split]" in error and error.count("\n") == 1
    assert "--no-near-duplicates" in error
    assert main(["split", data, "--output", "out", "--no-near-duplicates"]) == 0
    assert "look like" not in capsys.readouterr().out


def test_what_is_not_as_expected_is_said(data, capsys):
    content = json.loads(Path("my data/coco.json").read_text())
    for a in content["annotations"][:2]:
        a["category_id"] = 20
    content["annotations"].append({**content["annotations"][0], "id": 77, "image_id": 99})
    Path("my data/coco.json").write_text(json.dumps(content))
    Path("my data/images/7.jpg").write_bytes(b"")
    options = ["--group-by", r"^(1\d|2|.)", "--ratios", "a=0.34,b=0.33", "c=0.33"]
    assert main(["split", data, "--output", "out", *options]) == 0
    out, err = capsys.readouterr()
    assert (
        "images that cannot be read, and are compared with no others: 1, " in err
        and "7.jpg: the file is empty" in err
    )
    assert "annotations that are in no part, " in err and "the first has the id 77" in err
    assert "groups of images have to be in every part: 1, dog (not in " in err
    assert "that stay together; the largest has 3\n" in out
    assert (
        main(["split", data, "--output", "big", "--group-by", "^(.)", "--ratios", "0.5", "0.5"])
        == 0
    )
    error = capsys.readouterr().err
    assert (
        "differ from --ratios by up to" in error and "the largest group of images has 13" in error
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (["--ratios", "0.8", "0.1"], "--ratios must sum to 1, got a sum of 0.9"),
        (["--ratios", "1"], "must be 2 or 3 numbers, or parts with names"),
        (["--ratios", "0.4", "0.2", "0.2", "0.2"], "must be 2 or 3 numbers"),
        (["--ratios", "train=1"], "must name at least two parts, got train=1"),
        (["--ratios", "train=0.5", "0.5"], "must name all parts or none, got train=0.5 0.5"),
        (["--ratios", "a=0.5", "a=0.5"], "must name each part only once, got a=0.5 a=0.5"),
        (["--ratios", "a=0.5", "b=half"], "must be numbers, got 'half'"),
        (["--ratios", "a=0.5", "=0.5"], "must name parts by letters"),
        (["--ratios", *[f"p{i}=0.04" for i in range(25)]], "20 images cannot be divided into 25"),
        (["--group-by", "(x)"], "--group-by: 20 of 20 images have a file name that '(x)' does not"),
        (["--output", "my data/coco.json"], "must be a folder, got the file my data/coco.json"),
        (["--hash-distance", "99"], "--hash-distance must be from 0 to 16 bits, got 99"),
    ],
)
def test_a_users_mistake_is_one_line(data, tmp_path, capsys, options, message):
    before = sorted(tmp_path.rglob("*"))
    assert main(["split", data, "--output", "out", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("libra-d2 split: ") and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("how", ["named", "linked", "hard link"])
def test_the_annotations_are_not_replaced(tmp_path, data, capsys, how):
    (tmp_path / "my data/coco.json").rename("val.json")
    content = (tmp_path / "val.json").read_bytes()
    output = "."
    if how != "named":
        output = "out"
        (tmp_path / "out").mkdir()
        link = tmp_path / "out/val.json"
        (link.symlink_to if how == "linked" else link.hardlink_to)(tmp_path / "val.json")
    command = ["split", "coco:val.json,my data/images", "--output", output]
    assert main(command) == 2
    assert "val.json exists. Give another --output, or --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 2
    assert "val.json would replace the annotations" in capsys.readouterr().err
    assert (tmp_path / "val.json").read_bytes() == content


def test_ratios_are_read_in_every_form():
    named = {"train": 0.7, "val": 0.2, "test": 0.1}
    for values in (["0.7", "0.2", "0.1"], ["0.7,0.2,0.1"], ["train=0.7", "val=0.2,test=0.1"]):
        assert parse_ratios(values) == named
    assert parse_ratios(["x = 0.5, y = 0.5"]) == {"x": 0.5, "y": 0.5}
    with pytest.raises(UserError, match="must be 2 or 3 numbers"):
        parse_ratios([","])


def test_the_table_of_many_classes_has_the_rarest():
    part = {"num_images": 5, "num_images_without_objects": 0, "num_objects": 9, "num_crowd": 0}
    record = {
        "ratios": {"a": 0.5, "b": 0.5},
        "parts": {"a": part, "b": part},
        "classes": {f"c{i:03d}": {"a": 100 - i, "b": 1} for i in range(100)},
    }
    lines = table(record).splitlines()
    assert [line[:10] for line in lines if line.startswith("class")][:2] == [
        "class c099",
        "class c098",
    ]
    assert sum(line.startswith("class") for line in lines) == 20
    assert lines[-1] == "(the 20 rarest of 100 classes; all are in split.json)"
    record["classes"] = {"b\x1b": {"a": 1, "b": 1}}
    assert "class b\\x1b" in table(record) and "crowd" not in table(record)
