"""Outputs of all commands: none replaces an input, and none is half there when the disk is full."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from libra_d2.cli.main import main

from ..inference.small_detector import write_detector, write_images
from ..own_disk import run_with_mount
from ..support.coco_files import write_dataset
from ..support.file_size_limit import largest_file


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "run").mkdir()
    write_detector(folder / "run")
    write_images(folder / "photos", 2)
    resnet = torchvision.models.resnet18(weights=None, width_per_group=64)
    torch.save(resnet.state_dict(), folder / "classifier.pth")
    json_file, images = write_dataset(folder, [(10, 10, 20, 20), (30, 10, 20, 20)])
    shutil.move(json_file, folder / "truth.json")
    shutil.move(images, folder / "images")
    data = json.loads((folder / "truth.json").read_text())
    results = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": a["bbox"],
            "score": 0.9,
        }
        for a in data["annotations"]
    ]
    (folder / "predictions.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    root = os.getcwd()
    shutil.copytree(made, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    (tmp_path / "w/config.yaml").write_text(f"_BASE_: {root}/configs/libra_mobilenet_v2.yaml\n")
    return tmp_path / "w"


EVALUATE = "evaluate --predictions predictions.json --annotations truth.json --output {}"
CHECK_DATA = (
    "check-data --config-file config.yaml --report {} DATASETS.TRAIN coco:truth.json,images "
)
CHECK_DATA += "OUTPUT_DIR out"
BROWSE = "browse --config-file config.yaml --num-images 2 --output {} SOLVER.IMS_PER_BATCH 2 "
BROWSE += "DATASETS.TRAIN coco:truth.json,images DATASETS.TEST () OUTPUT_DIR out"
ANALYZE = (
    "analyze --predictions {0}/analysis.json --annotations truth.json --output {0} --no-report"
)
EXPORT = "export --model run --output {} --image photos/0000.png --format torchscript"
CONVERT = "convert classifier.pth {}"
SPLIT = "split coco:truth.json,images --no-near-duplicates --output {}"
SLICE = "slice coco:truth.json,images --output {}"
PACK = "pack --json truth.json --images images --out {}"
INFER = "infer photos --model run --output {}"

REPLACING = [
    (EVALUATE, "predictions.json"),
    (EVALUATE, "truth.json"),
    (CHECK_DATA, "truth.json"),
    (CHECK_DATA, "config.yaml"),
    (CHECK_DATA, "images/{image}"),
    (EXPORT, "run/model_final.pth"),
    (EXPORT, "run/config.yaml"),
    (EXPORT, "photos/0000.png"),
    (CONVERT, "classifier.pth"),
    (PACK, "truth.json"),
    (PACK, "images/{image}"),
    (INFER, "run/model_final.pth"),
    (INFER, "photos/0001.png"),
]


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("how", ["named", "linked", "hard link"])
@pytest.mark.parametrize("command, output", REPLACING)
def test_no_output_replaces_an_input(here, capsys, command, output, how):
    output = output.format(image=sorted(os.listdir("images"))[0])
    name = output
    if how != "named":
        name = os.path.join(os.path.dirname(output), "other" + os.path.splitext(output)[1])
        (os.symlink if how == "linked" else os.link)(os.path.abspath(output), name)
    before = contents(here)
    assert main(command.format(name).split()) == 2
    error = capsys.readouterr().err
    assert re.search(" would replace | must not replace a file among the images ", error)
    assert error.count("\n") == 1
    assert contents(here) == before


@pytest.mark.parametrize("name", ["analysis.json", "classes.csv"])
def test_an_analysis_does_not_replace_its_predictions(here, capsys, name):
    (here / "a").mkdir()
    shutil.copy("predictions.json", f"a/{name}")
    command = f"analyze --predictions a/{name} --annotations truth.json --output a"
    assert main(command.split()) == 2
    assert f"--output a/{name} would replace --predictions a/{name}" in capsys.readouterr().err
    command = "analyze --predictions predictions.json --annotations truth.json --output a "
    assert main(f"{command} --compare a/{name}".split()) == 2
    assert f"would replace --compare a/{name}" in capsys.readouterr().err
    assert Path(f"a/{name}").read_text() == Path("predictions.json").read_text()


FULL = [
    (EVALUATE, "new.json", 200),
    (CHECK_DATA, "new.json", 200),
    (EXPORT, "new.ts", 10_000),
    (CONVERT, "new.pth", 10_000),
    (PACK, "new.lmdb", 10_000),
    (SPLIT, "new", 200),
    (SLICE, "new", 200),
    (BROWSE, "new", 200),
    (INFER, "new.json", 100),
    (
        "analyze --predictions predictions.json --annotations truth.json --no-report --output {}",
        "new",
        200,
    ),
]


@pytest.mark.parametrize("command, output, size", FULL, ids=[c.split()[0] for c, _, _ in FULL])
def test_a_file_that_cannot_be_whole_is_not_there(here, capsys, command, output, size):
    """A limit on the size of files makes writing fail as a full disk does."""
    before = set(contents(here))
    with largest_file(size):
        status = main(command.format(output).split())
    error = capsys.readouterr().err.splitlines()
    assert status == 2 and "Traceback" not in error, error
    reason = "Free disk space" if command == PACK else "File too large. Raise the limit"
    named = re.sub(r"/(analysis|train)\.json|/batches\.png|\.journal", "", error[-1])
    assert f"{output} cannot be written" in named
    assert reason in error[-1], error
    left = {p.name for p in set(contents(here)) - before}
    # These are gone on with by the same command.
    assert left <= {"new.json.journal", "new.lmdb", "new.lmdb-lock"}


# LMDB opens its files itself, and a folder of slices is written elsewhere until it is complete.
OPENED = [(c, o) for c, o, _ in FULL if c not in (PACK, SLICE)]


@pytest.mark.parametrize("command, output", OPENED, ids=[c.split()[0] for c, _ in OPENED])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_place_that_cannot_be_written_to_is_one_line(
    here, capsys, monkeypatch, command, output, number
):
    real = os.open

    def fail(path, flags, *args, **kwargs):
        if flags & os.O_CREAT and str(path).startswith("new"):
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)
    assert main(command.format(output).split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "new" in error and f"cannot be written: {os.strerror(number)}. " in error


def test_devices_and_pipes_are_no_outputs(here, capsys):
    os.mkfifo("pipe")
    for command in (EVALUATE, CHECK_DATA, EXPORT, PACK, INFER):
        for output in ("pipe", "/dev/null"):
            assert main(command.format(output).split()) == 2, command
            assert "pipe or device" in capsys.readouterr().err.splitlines()[-1]
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


DRAW = "draw --predictions found.json --output {}"


@pytest.fixture
def disk(tmp_path):
    """An empty folder to mount at."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def test_a_read_only_disk_is_one_line_that_names_the_path(here, disk):
    """With a disk that is one: root may write to folders that nobody may write to."""
    assert main("infer photos --model run --output found.json".split()) == 0
    train = CHECK_DATA.replace("check-data", "train_net.py").replace("--report {} ", "")
    outputs = {
        EVALUATE: "new.json",
        CHECK_DATA: "new.json",
        EXPORT: "new.ts",
        CONVERT: "new.pth",
        PACK: "new.lmdb",
        SPLIT: "new",
        SLICE: "new",
        INFER: "new.json",
        "infer photos --model run --output here.json --draw {}": "new",
        DRAW: "new",
        "analyze --predictions predictions.json --annotations truth.json --output {}": "new",
        train.replace("OUTPUT_DIR out", "OUTPUT_DIR {}"): "new",
    }
    commands = [command.format(disk / name).split() for command, name in outputs.items()]
    runs = run_with_mount(str(disk), commands, options="ro", cwd=here)
    for command, run in zip(commands, runs):
        last = run["error"].splitlines()[-1]
        assert run["status"] == 2 and "Traceback" not in run["error"], run["error"]
        assert str(disk) in last and "Read-only file system" in last, (command, last)
        assert "Free disk space" not in last


def test_a_full_disk_while_pictures_are_drawn_leaves_whole_ones(here, disk):
    write_images(here / "many", 9)
    for i in range(4):  # a disk that is full takes the beginning of a JPEG, without an error
        Image.open(f"many/000{i}.png").save(f"many/000{i}.jpg")
    assert main("infer many --model run --output found.json".split()) == 0
    infer = "infer many --model run --output here.json --draw {}"
    commands = [c.format(disk / n).split() for n, c in (("infer", infer), ("draw", DRAW))]
    roomy = run_with_mount(str(disk), commands, cwd=here)
    assert [run["status"] for run in roomy] == [0, 0] and len(roomy[1]["files"]) == 26
    whole = roomy[1]["files"]
    for command in commands:
        (run,) = run_with_mount(str(disk), [command], size="40k", cwd=here)
        last = run["error"].splitlines()[-1]
        assert run["status"] == 2 and "Traceback" not in run["error"], run["error"]
        assert f"{disk}/{command[0]}/" in last
        assert " cannot be written: No space left on device. Free disk space" in last
        assert 0 < len(run["files"]) < 13
        assert run["files"].items() <= whole.items(), "a picture of another size"
