"""`libra-d2 browse`: it shows what training sees, and says what the user should do."""

import itertools
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from libra_d2.cli import browse as command
from libra_d2.cli.main import main
from libra_d2.config import load_cfg
from libra_d2.data import register_coco
from libra_d2.engine import LibraTrainer, browsing
from libra_d2.visualization.batches import PAGE, SHEET

from ..support.coco_files import write_dataset

CONFIG = "configs/libra_mobilenet_v2.yaml"
SMALL = (
    "INPUT.MIN_SIZE_TRAIN (96,128) INPUT.MAX_SIZE_TRAIN 200 SOLVER.IMS_PER_BATCH 2 SEED 5 "
    "DATASETS.TEST ()"
).split()


@pytest.fixture
def files(tmp_path):
    """Six images of noise, so that each is known by its pixels."""
    json_file, images = write_dataset(tmp_path / "data", [(10, 10, 20, 20)], num_images=6)
    for i, path in enumerate(sorted(Path(images).iterdir())):
        pixels = np.random.RandomState(i).randint(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return json_file, images


def browse(tmp_path, files, *args, config=CONFIG):
    return main(
        [
            *("browse", "--config-file", config, "--output", str(tmp_path / "out"), *args),
            *("DATASETS.TRAIN", f"coco:{files[0]},{files[1]}", *SMALL),
            *("OUTPUT_DIR", str(tmp_path / "run")),
        ]
    )


@pytest.fixture
def views(monkeypatch):
    """Collects the views that are drawn."""
    seen = []
    write = browsing.write_batches

    def collecting(folder, found, summary, notes):
        found = list(found)
        seen.extend(found)
        write(folder, found, summary, notes)

    monkeypatch.setattr(browsing, "write_batches", collecting)
    return seen


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_images_are_those_of_the_first_batches_of_the_training(tmp_path, files, views, channels):
    """In their order, and with what chance does to them: sizes and flips."""
    assert browse(tmp_path, files, "--num-images", "7", "INPUT.FORMAT", channels) == 0
    cfg = load_cfg(CONFIG, [*SMALL, "INPUT.FORMAT", channels, "DATALOADER.NUM_WORKERS", "2"])
    cfg.DATASETS.TRAIN = (register_coco(*files),)
    torch.manual_seed(77)  # the order does not depend on these
    np.random.seed(77)
    batches = list(itertools.islice(LibraTrainer.build_train_loader(cfg), 4))
    expected = [sample for batch in batches for sample in batch][:7]
    assert [v.file_name for v in views] == [s["file_name"] for s in expected]
    assert [v.batch for v in views] == [1, 1, 2, 2, 3, 3, 4]
    for view, sample in zip(views, expected):
        image = sample["image"].numpy().transpose(1, 2, 0)
        assert np.array_equal(view.image, image if channels == "RGB" else image[:, :, ::-1])
        assert np.array_equal(view.boxes, sample["instances"].gt_boxes.tensor.numpy())
        assert view.class_names == ["cat"]
    heights = [max(s["image"].shape[1] for s in batch) for batch in batches]
    assert [v.padded[0] for v in views[::2]] == [-(-h // 32) * 32 for h in heights]
    assert len({v.image.shape for v in views}) > 1  # the two sizes of the config


def test_another_seed_sees_others(tmp_path, files, views):
    assert browse(tmp_path, files, "--num-images", "4", "SEED", "5") == 0
    assert browse(tmp_path, files, "--num-images", "4") == 0
    first, second = views[:4], views[4:]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second))
    views.clear()
    assert main_with_seed(tmp_path, files, "6") == 0
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(first, views))


def main_with_seed(tmp_path, files, seed):
    data = ["DATASETS.TRAIN", f"coco:{files[0]},{files[1]}", *SMALL, "SEED", seed]
    output = ["--output", str(tmp_path / "out"), "--num-images", "4"]
    return main(["browse", "--config-file", CONFIG, *output, *data])


def test_parts_of_a_batch_are_padded_one_by_one(tmp_path, files, views):
    """As training with SOLVER.ACCUMULATION_STEPS pads them."""
    args = "SOLVER.ACCUMULATION_STEPS 2 SOLVER.IMS_PER_BATCH 2".split()
    data = ["DATASETS.TRAIN", f"coco:{files[0]},{files[1]}", *SMALL, *args]
    assert main(["browse", "--config-file", CONFIG, "--output", str(tmp_path / "o"), *data]) == 0
    assert {v.padded for v in views} == {
        tuple(-(-side // 32) * 32 for side in v.image.shape[:2]) for v in views
    }
    assert len({v.padded for v in views}) == 2


def test_summary_and_files(tmp_path, files, capsys):
    assert browse(tmp_path, files, "--num-images", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"3 images, 3 objects, 0 \(0\.0%\) without an anchor of IoU 0\.3; median of \d+(\.5)? "
        r"foreground anchors per object; objects by the level of their best anchor: "
        r"p2 \d, p3 \d, p4 \d, p5 \d, p6 \d",
        lines[0],
    )
    assert sum(map(int, re.findall(r"p\d (\d)", lines[0]))) == 3
    assert not any("libra-d2 plan" in line for line in lines)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [PAGE, SHEET]
    assert Image.open(tmp_path / "out" / SHEET).width > 3 * 480
    assert not (tmp_path / "run" / "config.yaml").exists()  # the folder is not that of a run


def test_objects_without_an_anchor_are_counted_and_a_plan_is_advised(tmp_path, capsys):
    files = write_dataset(tmp_path / "data", [(10, 10, 20, 20), (50, 30, 2, 2)])
    assert browse(tmp_path, files, "--num-images", "2") == 0
    out = capsys.readouterr().out
    assert "2 images, 4 objects, 2 (50.0%) without an anchor of IoU 0.3" in out
    assert f"libra-d2 plan --config-file {CONFIG} DATASETS.TRAIN coco:" in out
    page = (tmp_path / "out" / PAGE).read_text()
    assert page.count("1 of 2 objects have no anchor of IoU 0.3") == 4  # each also in its alt text
    assert "More than 1% of the objects" in page


@pytest.mark.parametrize(
    "config, levels, iou",
    [
        ("configs/libra_cascade_r50.yaml", "p2 p3 p4 p5 p6", "0.3"),
        ("configs/libra_retinanet_r50.yaml", "p3 p4 p5 p6 p7", "0.4"),
    ],
)
def test_other_detectors(tmp_path, files, capsys, config, levels, iou):
    assert browse(tmp_path, files, "--num-images", "1", config=config) == 0
    out = capsys.readouterr().out
    assert f"without an anchor of IoU {iou}" in out
    assert re.findall(r"(p\d) \d", out) == levels.split()


def test_images_without_objects_are_shown_as_such(tmp_path, files, capsys):
    data = json.loads(Path(files[0]).read_text())
    data["annotations"] = data["annotations"][:1]
    Path(files[0]).write_text(json.dumps(data))
    args = ("--num-images", "6", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False")
    assert browse(tmp_path, files, *args) == 0
    assert "6 images, 1 object, 0 (0.0%)" in capsys.readouterr().out
    page = (tmp_path / "out" / PAGE).read_text()
    assert page.count(": no objects") == 5


def test_unreadable_images_are_named_and_skipped(tmp_path, files, capsys, caplog):
    bad = sorted(Path(files[1]).iterdir())[2]
    bad.write_bytes(b"no image")
    assert browse(tmp_path, files, "--num-images", "6") == 0
    out = capsys.readouterr().out
    assert out.startswith("6 images, 6 objects") and "; 1 unreadable image skipped" in out
    assert f"cannot use image {bad}" in caplog.text
    assert str(bad) not in (tmp_path / "out" / PAGE).read_text()


def test_with_precomputed_proposals_there_are_no_anchors(tmp_path, files, capsys, views):
    proposals = {
        "ids": list(range(1, 7)),
        "boxes": [np.array([[0, 0, 20, 20]], np.float32)] * 6,
        "objectness_logits": [np.zeros(1, np.float32)] * 6,
        "bbox_mode": 0,
    }
    (tmp_path / "proposals.pkl").write_bytes(pickle.dumps(proposals))
    key = ("DATASETS.PROPOSAL_FILES_TRAIN", f"('{tmp_path / 'proposals.pkl'}',)")
    config = "configs/libra_fast_r50.yaml"
    assert browse(tmp_path, files, "--num-images", "2", *key, config=config) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 images, 2 objects\n")
    said = "precomputed proposals (MODEL.LOAD_PROPOSALS), so there are no anchors to show"
    page = (tmp_path / "out" / PAGE).read_text()
    assert said in out and said in page
    assert "no anchor of IoU" not in page and [v.matches for v in views] == [None, None]


def test_without_a_seed_it_says_that_each_run_differs(tmp_path, files, capsys):
    data = ["DATASETS.TRAIN", f"coco:{files[0]},{files[1]}", *SMALL, "SEED", "-1"]
    assert main(["browse", "--config-file", CONFIG, "--output", str(tmp_path / "o"), *data]) == 0
    assert "SEED is -1, so each run sees the images in another order" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args, named",
    [
        (("--num-images", "0"), "--num-images must be from 1 to 256, got 0"),
        (("--num-images", "999"), "--num-images must be from 1 to 256, got 999"),
        (("DATASETS.TRAIN", "()"), "DATASETS.TRAIN must name the training data"),
        (("DATASETS.TRAIN", "coco:none.json,."), "none.json does not exist"),
        (("SOLVER.IMS_PER_BATCH", "0"), "SOLVER.IMS_PER_BATCH must be"),
        (("SOLVER.IMS_PER_BATCHES", "2"), "did you mean SOLVER.IMS_PER_BATCH"),
        (("MODEL.ROI_HEADS.NUM_CLASSES", "80"), "MODEL.ROI_HEADS.NUM_CLASSES must be 2, got 80"),
        (("--output", "/dev/null/x"), "/dev/null/x"),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, files, capsys, args, named):
    data = ["DATASETS.TRAIN", f"coco:{files[0]},{files[1]}", *SMALL]
    data += ["OUTPUT_DIR", str(tmp_path / "run")]
    option = args if args[0].startswith("--") else ()
    opts = () if option else args
    assert main(["browse", "--config-file", CONFIG, *option, *data, *opts]) == 2
    error = capsys.readouterr().err
    assert error.startswith("libra-d2 browse: ") and named in error
    assert error.count("\n") == 1


def test_no_output_replaces_an_image(tmp_path, capsys):
    """The folder of the pictures may be that of the images by mistake."""
    json_file, images = write_dataset(tmp_path / "data")
    victim = Path(images) / SHEET
    (Path(images) / "1.jpg").rename(victim)
    text = Path(json_file).read_text().replace('"1.jpg"', f'"{SHEET}"')
    Path(json_file).write_text(text)
    before = victim.read_bytes()
    assert browse(tmp_path, (json_file, images), "--output", images) == 2
    assert "--output must not replace a file among the images" in capsys.readouterr().err
    assert victim.read_bytes() == before and not (Path(images) / PAGE).exists()


def test_the_largest_number_of_images_is_documented():
    text = Path("docs/browse.md").read_text()
    assert f"at most {command._MAX_IMAGES}" in text
