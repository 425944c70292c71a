"""`libra-d2 infer`: what it writes, what it refuses, and what becomes of bad images."""

import csv
import json
import os
import re
import shutil
import threading
from contextlib import nullcontext

import cv2
import jsonschema
import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from PIL import Image

from libra_d2.cli.main import main
from libra_d2.data.images.reader import read_image
from libra_d2.data.images.sources import ImageItem, find_images
from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.inference.fused_model import fuse_for_cpu
from libra_d2.inference.infer import InferOptions, infer
from libra_d2.inference.pipeline import DetectionPipeline
from libra_d2.inference.torch_runner import BatchRunner
from libra_d2.inference.trained_detector import (
    Preprocessor,
    TrainedDetector,
    load_detector,
    trained_config,
)
from libra_d2.predictions.reading import read_predictions
from libra_d2.predictions.writing import Journal
from libra_d2.utils.files import replacing
from libra_d2.utils.package_versions import package_versions

from ..support.odd_images import BAD, SAME_AS_DETECTRON2
from ..support.project import ROOT
from .small_detector import CLASSES, CONFIG, OPTIONS, blots, write_images


def run(model, *args):
    return main(["infer", *map(str, args), "--model", model])


def entries(path="predictions.json"):
    with open(path) as f:
        return json.load(f)


def test_json_is_of_the_schema_and_of_the_instances(model, here):
    paths = write_images(here / "images", 3)
    assert run(model, "images", "--no-fuse", "--workers", 1) == 0
    content = entries()
    schema = json.loads((ROOT / "docs/predictions.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    assert (here / "predictions.json").read_text() == json.dumps(content, indent=1) + "\n"
    assert list(content) == [f"images/{p.name}" for p in paths]

    predictor = DefaultPredictor(trained_config(model))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as infer does; other sums of floats differ
    try:
        for name, entry in content.items():
            instances = predictor(read_image(name))["instances"]
            assert (entry["height"], entry["width"]) == instances.image_size == (60, 80)
            boxes = instances.pred_boxes.tensor.double().numpy()
            assert len(boxes) == len(entry["predictions"]) > 0
            for p, box, label, score in zip(
                entry["predictions"], boxes, instances.pred_classes, instances.scores
            ):
                expected = [*box[:2], *(box[2:] - box[:2])]
                assert list(p["bbox"].values()) == expected  # to the last bit
                assert p["score"] == score.item()
                assert p["class"]["label"] == label
                assert p["class"]["category_id"] == (7, 3, 90)[label]
                assert p["class"]["name"] == ("cat", "dog", "owl")[label]
    finally:
        torch.set_num_threads(threads)


def test_faster_forms_give_the_same(model, here):
    """Fused, and in batches of images of several sizes, which are not padded to one another."""
    write_images(here / "images/a", 5)
    write_images(here / "images/b", 4, size=(80, 60))
    base = ["images", "--recursive"]
    assert run(model, *base, "--no-fuse", "--workers", 1) == 0
    plain = entries()
    for options in ([], ["--batch-size", 3, "--no-fuse"], ["--batch-size", 2, "--workers", 3]):
        assert run(model, *base, *options) == 0
        other = entries()
        assert list(other) == list(plain) and len(plain) == 9
        for name in plain:
            pairs = list(zip(plain[name]["predictions"], other[name]["predictions"]))
            assert len(plain[name]["predictions"]) == len(other[name]["predictions"])
            for a, b in pairs:
                assert a["class"] == b["class"]
                assert a["score"] == pytest.approx(b["score"], abs=1e-5)
                assert list(a["bbox"].values()) == pytest.approx(list(b["bbox"].values()), abs=0.01)


def test_fusing_removes_the_batch_norms(model):
    plain, fused = load_detector(model).model, load_detector(model).model
    assert fuse_for_cpu(fused) == 52  # of MobileNetV2
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(plain.backbone(image).values(), fused.backbone(image).values()):
            assert (a - b).abs().max() < 1e-4 * a.abs().max()


def test_coco_and_csv_agree_with_the_json(model, here):
    write_images(here / "images", 2)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save("images/,\n.png")
    assert run(model, "images", "--coco", "new/c.json", "--csv", "p.csv") == 0
    assert [i["predictions"] == [] for i in entries().values()].count(True) < 3
    by_json, by_csv = read_predictions("predictions.json"), read_predictions("p.csv")
    assert [p.file_name for p in by_csv] == ["images/,\n.png", "images/0000.png", "images/0001.png"]
    for a, b in zip(by_json, by_csv):
        assert np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)
        assert (a.category_ids, a.class_names, a.height) == (
            b.category_ids,
            b.class_names,
            b.height,
        )
    coco = entries("new/c.json")
    assert {p["image_id"] for p in coco} <= {1, 2, 3} and {p["category_id"] for p in coco} <= {
        7,
        3,
        90,
    }
    assert len(coco) == sum(map(len, by_json))
    assert coco[-1]["bbox"] == list(
        list(entries().values())[-1]["predictions"][-1]["bbox"].values()
    )

    # An image without detections: a line with empty fields, and nothing in COCO's results.
    options = ["--score-threshold", "1", "--coco", "c.json", "--csv", "p.csv"]
    assert run(model, "images/0000.png", *options) == 0
    with open("p.csv", newline="") as f:
        assert list(csv.reader(f))[1:] == [["images/0000.png", "60", "80", *[""] * 8]]
    assert entries("c.json") == [] and entries()["images/0000.png"]["predictions"] == []


def test_ids_of_annotations(model, here, capsys):
    write_images(here / "images", 3)
    images = [{"id": f"id{i}", "file_name": f"000{i}.png"} for i in range(2)]
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "owl"}]
    (here / "a.json").write_text(json.dumps({"images": images, "categories": categories}))
    options = ["--coco", "c.json", "--annotations", "a.json"]
    assert run(model, "images", *options) == 0
    assert "because they are not in a.json. The first is " in capsys.readouterr().err
    coco = entries("c.json")
    assert {p["image_id"] for p in coco} == {"id0", "id1"}
    ids = {"dog": 1, "cat": 2, "owl": 3}
    expected = [
        ids[p["class"]["name"]] for e in list(entries().values())[:2] for p in e["predictions"]
    ]
    assert [p["category_id"] for p in coco] == expected
    images.append({"id": 5, "file_name": "b/0000.png"})
    images[0]["file_name"] = "a/0000.png"
    (here / "a.json").write_text(json.dumps({"images": images, "categories": categories}))
    os.rename("images/0000.png", "0000.png")
    assert run(model, "0000.png", *options) == 2
    assert (
        "0000.png fits several images of the annotations: a/0000.png or b/0000.png"
        in capsys.readouterr().err
    )


def test_images_of_one_id_are_refused_before_anything_is_done(model, here, capsys):
    write_images(here / "a", 1)
    write_images(here / "b", 1)
    assert run(model, "b") == 0
    before = [p.read_bytes() for p in sorted(here.glob("predictions.json*"))]
    images = [{"id": 4, "file_name": "0000.png"}]
    (here / "ids.json").write_text(json.dumps({"images": images, "categories": []}))
    assert run(model, "a", "b", "--coco", "c.json", "--annotations", "ids.json") == 2
    error = capsys.readouterr().err
    assert "a/0000.png and b/0000.png are both image 4 of annotations ids.json" in error
    assert before == [p.read_bytes() for p in sorted(here.glob("predictions.json*"))]


def test_thresholds_classes_and_best(model, here):
    write_images(here / "images", 1)
    assert run(model, "images") == 0
    everything = entries()["images/0000.png"]["predictions"]
    middle = everything[3]["score"]
    assert run(model, "images", "--score-threshold", middle) == 0
    kept = entries()["images/0000.png"]["predictions"]
    assert 0 < len(kept) < len(everything) and all(p["score"] > middle for p in kept)
    assert run(model, "images", "--top-k", 2) == 0
    assert len(entries()["images/0000.png"]["predictions"]) == 2
    name = everything[0]["class"]["name"]
    assert run(model, "images", "--classes", name) == 0
    kept = entries()["images/0000.png"]["predictions"]
    assert kept == [p for p in everything if p["class"]["name"] == name]
    assert run(model, "images", "--nms-threshold", 0, "--nms", "gaussian") == 0
    assert entries()["images/0000.png"]["predictions"] != everything


def test_bad_images_are_named_and_skipped(model, here, capsys):
    folder = here / "images"
    folder.mkdir()
    for name, content in SAME_AS_DETECTRON2.items():
        (folder / name).write_bytes(content)
    for name, (content, _) in BAD.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "link.png").symlink_to("rgb.png")
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(folder / "deep.png")
    assert run(model, "images", "--draw", "drawn") == 1
    out, err = capsys.readouterr()
    bad = {*BAD, "folder.jpg", "loop.jpg", "broken.jpg", "long.png"}  # no row would be left
    good = {*SAME_AS_DETECTRON2, "link.png", "deep.png"} - bad
    assert {os.path.basename(k) for k in entries()} == good
    assert f"{len(bad | good)} images: {len(good)} done, {len(bad)} skipped" in out
    lines = err.splitlines()
    for name in bad:
        assert sum(line.startswith(f"skipped images/{name}: ") for line in lines) == 1
    assert len(list((here / "drawn").iterdir())) == len(good)
    # Sizes are those of the picture as it looks.
    assert (entries()["images/exif6.jpg"]["height"], entries()["images/rgb.jpg"]["height"]) == (
        80,
        60,
    )


def test_sources(model, here):
    write_images(here / "images", 2)
    write_images(here / "images/sub", 2)
    (here / "images/notes.md").write_text("no image")

    def keys(*inputs, **options):
        return [item.key for item in find_images(inputs, **options)]

    flat = ["images/0000.png", "images/0001.png"]
    nested = ["images/sub/0000.png", "images/sub/0001.png"]
    assert keys("images") == keys("images/*.png") == flat
    assert (
        keys("images", recursive=True) == keys("images/**/*.png", recursive=True) == flat + nested
    )
    os.symlink(here / "images", here / "images/sub/again")  # no endless walk
    assert keys("images", recursive=True) == flat + nested
    assert keys("images/0001.png", "images", "./images/0001.png") == flat[::-1]
    (here / "images/list.txt").write_bytes(b"0001.png\r\n\nsub/0000.png\n0001.png\nmissing.png")
    assert keys("images/list.txt") == [flat[1], nested[0], "images/missing.png"]
    assert keys("-", stdin=b"a\nb\0images/0000.png\0") == ["a\nb", flat[0]]
    names = [i.name for i in find_images(["images/0000.png", "images/sub/0000.png"])]
    assert names == ["0000.png", "0000_2.png"]  # pictures of them do not replace one another
    (here / "all.txt").write_text("images/0000.png\nmissing.png\n")
    assert run(model, "all.txt", "all.txt") == 1
    assert list(entries()) == flat[:1]


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "name at least one image"),
        (["nowhere"], "input nowhere does not exist"),
        (["*.gif"], "matches no file"),
        (["empty"], r"folder empty has no images .*--recursive"),
        (["empty.txt"], "list empty.txt is empty"),
        (
            ["a.png", "--classes", "cow"],
            r"--classes must be among \['cat', 'dog', 'owl'\], got 'cow'",
        ),
        (["a.png", "--score-threshold", "2"], r"--score-threshold must be in \[0, 1\], got 2.0"),
        (["a.png", "--top-k", "0"], "--top-k must be at least 1, got 0"),
        (["a.png", "--batch-size", "-1"], "--batch-size must be at least 0, got -1"),
        (["a.png", "--output", "a.png"], "would replace the input a.png"),
        (
            ["a.png", "--csv", "predictions.json"],
            "--csv predictions.json would replace --output pred",
        ),
        (["a.png", "--output", "empty"], "an output must be a file, but empty is a folder"),
        (["a.png", "--output", "a.png/b/c.json"], "cannot be written"),
        (["a.png", "--draw", "."], "--draw ./a.png would replace the input a.png"),
        (["a.png", "--draw", "a.png"], "--draw must name a folder, but a.png is a file"),
        (["a.png", "--annotations", "empty.txt"], "--annotations can only be used with --coco"),
        (["a.png", "--coco", "c.json", "--annotations", "empty.txt"], "empty.txt is not a JSON"),
    ],
)
def test_mistakes_are_named(model, here, capsys, args, message):
    (here / "empty").mkdir()
    (here / "empty.txt").write_text("\n")
    Image.new("RGB", (80, 60)).save("a.png")
    assert run(model, *args) == 2
    err = capsys.readouterr().err
    assert re.search(message, err) and "Traceback" not in err
    assert Image.open("a.png").size == (80, 60)


def test_no_input_is_replaced(model, here, capsys):
    write_images(here / "photos/sub", 2)
    write_video(here / "vid/c.mp4", 2)
    os.symlink("photos", "link")
    shutil.copytree(model, "run")
    (here / "list.txt").write_text("photos/sub/0000.png\n")
    (here / "ids.json").write_text('{"images": [], "categories": []}')
    video, photo = "vid/c.mp4", "photos/sub/0000.png"
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    for args in (
        [video, "--draw", "vid"],
        [video, "photos/sub", "--draw", "photos/sub"],
        ["photos", "--recursive", "--draw", "photos"],
        ["photos/sub", "--draw", "link/sub"],
        ["link/sub", "--draw", "photos/sub"],
        ["photos/sub", "--csv", "link/sub/0001.png"],
        *([[p, f"--{o}", "list.txt"] for p in ["list.txt"] for o in ("output", "coco", "csv")]),
        [photo, "--coco", "c.json", "--annotations", "ids.json", "--csv", "ids.json"],
        [photo, "--output", "run/model_final.pth"],
        [photo, "--csv", "run/config.yaml"],
        [photo, "--config-file", "run/config.yaml", "--csv", "run/../run/config.yaml"],
    ):
        assert run("run", *args) == 2, args
        assert re.search(
            r"--\w+ .* would replace (the input|--annotations) ", capsys.readouterr().err
        )
    assert before == {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    os.rename("run/config.yaml", "other.yaml")
    assert run("run", photo, "--config-file", "other.yaml", "--csv", "other.yaml") == 2
    assert "would replace the input other.yaml" in capsys.readouterr().err
    assert run(model, photo, "--draw", "photos") == 0  # beside it is well
    assert (here / "photos/0000.png").exists()


def test_annotated_copies_have_their_own_names(model, here):
    for path in ("x.mp4", "x.avi", "x.mp4.png", "a.tif", "a.tif.png", "b/x.mp4", "b/A.JPG"):
        (here / path).parent.mkdir(exist_ok=True)
        (here / path).write_bytes(b"")
    found = find_images(["x.mp4", "x.avi", "x.mp4.png", "a.tif", "a.tif.png", "b/x.mp4", "b/A.JPG"])
    assert [i.name for i in found] == (
        ["x.mp4", "x_2.mp4", "x.mp4.png", "a.tif.png", "a.tif_2.png", "x_3.mp4", "A.JPG"]
    )
    write_video(here / "x.mp4", 2)
    write_video(here / "x.avi", 3)
    assert run(model, "x.mp4", "x.avi", "--draw", "drawn") == 0
    captures = [cv2.VideoCapture(f"drawn/{name}") for name in ("x.mp4", "x_2.mp4")]
    assert [c.get(cv2.CAP_PROP_FRAME_COUNT) for c in captures] == [2, 3]


def test_resume_takes_new_and_changed_images(model, here, capsys):
    paths = write_images(here / "images", 4)
    paths[1].write_bytes(b"no image")
    assert run(model, "images") == 1
    capsys.readouterr()
    os.rename(paths[3], here / "images/00000.png")  # now it is the first
    Image.fromarray(blots(9)).save(paths[0])
    Image.fromarray(blots(1)).save(paths[1])
    Image.fromarray(blots(8)).save(here / "images/new.png")
    assert run(model, "images", "--resume") == 0
    assert "5 images: 5 done (1 by an earlier run), 0 skipped" in capsys.readouterr().out
    resumed = (here / "predictions.json").read_bytes()
    assert run(model, "images") == 0
    assert (here / "predictions.json").read_bytes() == resumed
    assert run(model, "images", "--resume") == 0
    assert "(5 by an earlier run)" in capsys.readouterr().out
    paths[1].write_bytes(b"no image")  # what was found in the file that was is not kept
    assert run(model, "images", "--resume") == 1
    assert len(entries()) == 4


def test_resume_with_other_settings_is_refused(model, here, monkeypatch, capsys):
    write_images(here / "images", 1)
    assert run(model, "images") == 0
    before = (here / "predictions.json").read_bytes()
    to_resume = "to resume the run of predictions.json.journal"
    for options, message in (
        (["--score-threshold", "0.2"], f"score_threshold must be 0.05 {to_resume}, got 0.2. "),
        (["--classes", "owl"], f"classes must be [] {to_resume}, got ['owl']. "),
        (["--opts", "MODEL.RPN.POST_NMS_TOPK_TEST", "9"], "config must be '"),
        (["camera:0"], "--resume cannot be combined with camera:0"),
    ):
        assert main(["infer", "--model", model, "--resume", "images", *options]) == 2
        assert message in capsys.readouterr().err
    detector = load_detector(model)
    detector.model.proposal_generator.rpn_head.conv.weight.data[0] += 1
    with pytest.raises(ValueError, match="weights must be '"):
        infer(detector, ["images"], InferOptions(resume=True))
    others = {**package_versions(), "torch": "1.0"}
    monkeypatch.setattr("libra_d2.inference.infer.package_versions", lambda: others)
    assert run(model, "images", "--resume") == 2
    error = capsys.readouterr().err
    assert f"torch must be {package_versions()['torch']!r} {to_resume}, got '1.0'. " in error
    assert (here / "predictions.json").read_bytes() == before


def test_what_may_have_changed_unseen_is_done_again(model, here, monkeypatch, capsys):
    """Of `packed://` paths, there is no size or time."""
    (path,) = write_images(here / "images", 1)
    item = ImageItem("packed://store/0000.png", "0000.png")
    monkeypatch.setattr("libra_d2.inference.infer.find_images", lambda *_, **__: [item])
    monkeypatch.setattr(
        "libra_d2.data.images.sources.read_image", lambda _, format: read_image(path, format)
    )
    for options in ([], ["--resume"]):
        assert run(model, "x", *options) == 0
        assert "1 images: 1 done, 0 skipped" in capsys.readouterr().out


def test_the_detector_stays_as_it_was(model, here):
    write_images(here / "images", 1)
    detector = load_detector(model)
    infer(detector, ["images"], InferOptions(fuse=False))
    plain = entries()
    before = [*detector.model.state_dict()]
    for resume in (False, True):
        summary = infer(detector, ["images"], InferOptions(resume=resume))
        assert summary.num_resumed == resume
    assert entries() != plain and before == [*detector.model.state_dict()]
    infer(detector, ["images"], InferOptions(fuse=False))
    assert entries() == plain


def test_remains_of_killed_runs_are_removed(model, here):
    """Files that a living run writes, and those that somebody else has named, stay."""
    write_images(here / "images", 1)
    write_video(here / "v.mp4", 2)
    (here / "drawn").mkdir()
    outputs = ["predictions.json", "c.json", "t.csv", "drawn/0000.png", "drawn/v.mp4"]
    remains = [here / f"{path}.{'0a' * 16}.libra-partial" for path in outputs]
    remains.append(here / f"drawn/v.mp4.{'0a' * 16}.libra-partial.mp4")
    others = [here / "predictions.json.partial2", here / "predictions.json.libra-partial"]
    for path in remains + others:
        path.write_text("")
    options = ["--coco", "c.json", "--csv", "t.csv", "--draw", "drawn"]
    with replacing("predictions.json") as living:
        assert run(model, "images", "v.mp4", *options) == 0
        assert os.path.exists(living)
    assert not any(p.exists() for p in remains) and all(p.exists() for p in others)
    assert sorted(os.listdir("drawn")) == ["0000.png", "v.mp4"]


def test_a_cut_journal_is_continued(model, here):
    write_images(here / "images", 5)
    assert run(model, "images", "--batch-size", 1) == 0
    whole = (here / "predictions.json").read_bytes()
    journal = (here / "predictions.json.journal").read_bytes()
    ends = [0, 30, journal.index(b"\n"), len(journal) // 2, len(journal) - 1]
    for end in ends:
        (here / "predictions.json.journal").write_bytes(journal[:end])
        assert run(model, "images", "--batch-size", 1, "--resume") == 0
        assert (here / "predictions.json").read_bytes() == whole
        assert (here / "predictions.json.journal").read_bytes() == journal
    first, second, rest = journal.split(b"\n", 2)
    for broken in (b"{}", b'{"key": "images/0000.png"}', b'{"key": "a", "stamp": []}', b"[]"):
        (here / "predictions.json.journal").write_bytes(b"\n".join((first, second, broken, rest)))
        assert run(model, "images", "--batch-size", 1, "--resume") == 0
        assert (here / "predictions.json.journal").read_bytes() == journal


def test_interrupted(model, here, monkeypatch, capsys):
    """Ctrl-C: the files are valid, no worker is left, and the run can go on."""
    write_images(here / "images", 6)
    assert run(model, "images") == 0
    whole = (here / "predictions.json").read_bytes()
    threads = threading.active_count()
    add, calls = Journal.add, []

    def add_two(self, results):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(add(self, results))

    monkeypatch.setattr(Journal, "add", add_two)
    assert run(model, "images") == 130
    assert "Give --resume to continue" in capsys.readouterr().err
    assert len(entries()) == 2 and threading.active_count() == threads
    assert torch.get_num_threads() >= 1
    monkeypatch.setattr(Journal, "add", add)
    assert run(model, "images", "--resume") == 0
    assert (here / "predictions.json").read_bytes() == whole


def write_video(path, count):
    path.parent.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for i in range(count):
        writer.write(np.ascontiguousarray(blots(i, (64, 96))[:, :, ::-1]))
    writer.release()


def test_video(model, here, capsys):
    write_video(here / "v.mp4", 5)
    assert run(model, "v.mp4", "--draw", "drawn", "--max-frames", 4) == 0
    assert list(entries()) == [f"v.mp4#{i}" for i in range(4)]
    capture = cv2.VideoCapture("drawn/v.mp4")
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and capture.get(cv2.CAP_PROP_FPS) == 10
    assert os.listdir("drawn") == ["v.mp4"]
    jsonschema.validate(entries(), json.loads((ROOT / "docs/predictions.schema.json").read_text()))
    assert [e["time"] for e in entries().values()] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert run(model, "v.mp4", "--draw", "drawn", "--resume") == 2
    assert "drawn video" in capsys.readouterr().err

    assert run(model, "v.mp4", "--max-frames", 2) == 0
    assert run(model, "v.mp4", "--resume") == 0
    resumed = (here / "predictions.json").read_bytes()
    assert "5 images: 5 done (2 by an earlier run)" in capsys.readouterr().out
    assert run(model, "v.mp4") == 0
    assert (here / "predictions.json").read_bytes() == resumed
    (here / "bad.mp4").write_bytes(b"no video")
    assert run(model, "bad.mp4") == 1
    assert "skipped bad.mp4: not a video of a supported format" in capsys.readouterr().err


class OneBadFrame:
    def __init__(self, path, capture=cv2.VideoCapture):
        self.capture = capture(path)

    def __getattr__(self, name):
        return getattr(self.capture, name)

    def retrieve(self):
        good, image = self.capture.retrieve()
        return (False, None) if self.get(cv2.CAP_PROP_POS_FRAMES) == 4 else (good, image)


def test_a_video_goes_on_in_batches(model, here, monkeypatch, capsys):
    """Frames that are there are found again where another of their window is not."""
    write_video(here / "v.mp4", 20)
    options = ["v.mp4", "--batch-size", 4, "--max-frames"]
    assert run(model, *options, 20) == 0
    whole = (here / "predictions.json").read_bytes()
    assert run(model, *options, 10) == 0
    assert run(model, *options, 20, "--resume") == 0
    assert (here / "predictions.json").read_bytes() == whole

    monkeypatch.setattr(cv2, "VideoCapture", OneBadFrame)
    for more in ([], ["--resume"]):
        capsys.readouterr()
        assert run(model, *options, 20, *more, "--output", "bad.json") == 1
        assert "skipped v.mp4#3: the frame cannot be decoded" in capsys.readouterr().err
        assert list(entries("bad.json")) == [f"v.mp4#{i}" for i in range(20) if i != 3]


def test_pictures_show_the_detections(model, here):
    write_images(here / "images", 1, size=(480, 640))
    assert run(model, "images", "--draw", "drawn", "--score-threshold", 0) == 0
    drawn = np.asarray(Image.open("drawn/0000.png").convert("RGB")).astype(int)
    different = np.abs(drawn - np.asarray(Image.open("images/0000.png"))).max(2) > 20
    assert 0.001 < different.mean() < 0.9


class NeedsMemory(torch.nn.Module):
    """Runs out of memory above a number of pixels; an image's box tells the size that came in."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.calls = limit, []
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs):
        shapes = [tuple(i["image"].shape[1:]) for i in inputs]
        self.calls.append(shapes)
        if sum(h * w for h, w in shapes) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [{"instances": torch.tensor(shape)} for shape in shapes]


def test_less_memory(caplog):
    inputs = [{"image": torch.zeros(3, 10, 20, dtype=torch.uint8)} for _ in range(8)]
    model = NeedsMemory(400)
    runner = BatchRunner(model)
    assert len(runner(inputs)) == 8
    assert [len(c) for c in model.calls] == [8, 4, 2, 2, 4, 2, 2]
    assert "A batch of 8 images does not fit in memory. Trying 4" in caplog.text
    assert len(runner(inputs)) == 8
    assert [len(c) for c in model.calls[7:]] == [2, 2, 2, 2]  # it has learnt

    model = NeedsMemory(60)
    found = BatchRunner(model)(inputs[:2])
    assert [tuple(f.tolist()) for f in found] == [(5, 10)] * 2
    assert "An image of 20x10 does not fit in memory. Trying half its size" in caplog.text
    assert BatchRunner(NeedsMemory(10))(inputs[:1]) == [None]


def test_no_memory_to_resize_skips_the_image(model, here, monkeypatch, capsys):
    write_images(here / "images", 2)
    write_images(here / "large", 1, (90, 90))
    preprocess = Preprocessor.__call__

    def fails(self, image):
        if len(image) == 90:
            raise MemoryError
        return preprocess(self, image)

    monkeypatch.setattr(Preprocessor, "__call__", fails)
    assert run(model, "large", "images") == 1
    assert "skipped large/0000.png: there is not enough memory" in capsys.readouterr().err
    assert list(entries()) == ["images/0000.png", "images/0001.png"]


def test_masks_are_not_computed(here, monkeypatch):
    write_images(here / "images", 3)
    cfg = load_cfg(str(ROOT / CONFIG), [*OPTIONS, *CLASSES, "MODEL.MASK_ON", "True"])
    network, calls = LibraTrainer.build_model(cfg).eval(), []
    detector = TrainedDetector(cfg, network, ("a", "b", "c"), (1, 2, 3))
    network.roi_heads.mask_head.register_forward_hook(lambda *_: calls.append(1))
    options = InferOptions(fuse=False, batch_size=2, workers=1)
    assert infer(detector, ["images"], options).num_detections > 0
    assert not calls and network.roi_heads.mask_on  # the detector is as it was
    without = (here / "predictions.json").read_bytes()
    monkeypatch.setattr("libra_d2.inference.torch_runner._without_masks", lambda _: nullcontext())
    infer(detector, ["images"], options)
    assert calls and (here / "predictions.json").read_bytes() == without


def test_other_errors_of_the_model_are_not_hidden(model, here):
    write_images(here / "images", 2)
    detector = load_detector(model)

    def fail(_):
        raise RuntimeError("a mistake in the model")

    detector.model.forward = fail
    with pytest.raises(RuntimeError, match="a mistake in the model"):
        list(DetectionPipeline(detector)([[i] for i in find_images(["images"])]))


def test_resume_without_anything_says_so(model, here, capsys):
    write_images(here / "images", 1)
    assert run(model, "images", "--resume") == 0
    assert "predictions.json.journal has nothing to resume from" in capsys.readouterr().err
    assert run(model, "images", "--resume") == 0
    assert "nothing to resume" not in capsys.readouterr().err
