"""Large images in slices: what the network sees, and what becomes of it."""

import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

import libra_d2
from libra_d2.cli.main import main
from libra_d2.data.images.sources import find_images
from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.errors import UserError
from libra_d2.inference.infer import InferOptions, infer
from libra_d2.inference.pipeline import DetectionPipeline
from libra_d2.inference.slicing import Slicing, merge_detections
from libra_d2.inference.trained_detector import Preprocessor, TrainedDetector
from libra_d2.predictions.detections import Detections
from libra_d2.predictions.merging import merge_slices

from ..support.project import ROOT
from .small_detector import CLASSES, CONFIG, OPTIONS, blots, write_images


class FindsBright(torch.nn.Module):
    """Detects red, green and blue rectangles exactly, as the classes 0, 1 and 2."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = []

    def forward(self, inputs):
        self.batches.append([tuple(x["image"].shape[1:]) for x in inputs])
        return [{"instances": self.found(x["image"].numpy())} for x in inputs]

    def found(self, image):
        boxes, labels = [], []
        for k, channel in enumerate(image):
            stats = cv2.connectedComponentsWithStats((channel > 127).astype(np.uint8))[2][1:]
            boxes += [[x, y, x + w, y + h] for x, y, w, h, _ in stats.tolist()]
            labels += [k] * len(stats)
        found = Instances(image.shape[1:])
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.scores = torch.linspace(0.9, 0.6, len(boxes))
        found.pred_classes = torch.tensor(labels, dtype=torch.int64)
        return found


@pytest.fixture
def exact():
    """It sees images as they are: they are not resized."""
    no_resize = ["INPUT.MIN_SIZE_TEST", "0", "INPUT.FORMAT", "RGB"]
    cfg = load_cfg(str(ROOT / CONFIG), [*OPTIONS, *CLASSES, *no_resize])
    return TrainedDetector(cfg, FindsBright().eval(), ("a", "b", "c"), (1, 2, 3))


def write_rectangles(path, size=(230, 310), count=14, seed=0):
    """Draw rectangles of up to 150 pixels that do not touch. Return (class, box) of each."""
    rng = np.random.default_rng(seed)
    image, taken, objects = np.zeros((*size, 3), np.uint8), np.zeros(size, bool), []
    while len(objects) < count:
        h, w = rng.integers(8, (120, 150) if len(objects) < 3 else (50, 50))
        y, x = rng.integers(0, np.subtract(size, (h, w)))
        near = taken[max(0, y - 4) : y + h + 4, max(0, x - 4) : x + w + 4]
        if not near.any():
            label = int(rng.integers(3))
            image[y : y + h, x : x + w, label] = 255
            taken[y : y + h, x : x + w] = True
            objects.append((label, [x, y, x + w, y + h]))
    Image.fromarray(image).save(path)
    return sorted((label, list(map(float, box))) for label, box in objects)


def of_entry(entry):
    found = []
    for p in entry["predictions"]:
        x, y, w, h = p["bbox"].values()
        found.append((p["class"]["label"], [x, y, x + w, y + h]))
    return sorted(found)


def entries(path="predictions.json"):
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize("overlap", [0.1, 0.3])
@pytest.mark.parametrize("batch_size, workers", [(1, 2), (4, 1), (3, 3)])
def test_every_object_is_found_once(exact, here, batch_size, workers, overlap):
    objects = {f"{i}.png": write_rectangles(f"{i}.png", seed=i) for i in range(4)}
    options = InferOptions(
        slice=100, overlap=overlap, batch_size=batch_size, workers=workers, fuse=False
    )
    summary = infer(exact, list(objects), options)
    assert {name: of_entry(e) for name, e in entries().items()} == objects
    assert summary.num_done == 4 and summary.num_detections == 4 * 14
    shapes = [shape for batch in exact.model.batches for shape in batch]
    assert set(shapes) == {(100, 100)}
    sizes = {len(batch) for batch in exact.model.batches}
    assert max(sizes) == batch_size, "slices of one image share batches"
    for entry in entries().values():
        assert (entry["height"], entry["width"]) == (230, 310)
        scores = [p["score"] for p in entry["predictions"]]
        assert scores == sorted(scores, reverse=True)


def test_on_a_gpu_threads_resize_the_slices_of_a_batch(exact, here):
    """The order of work is another one there, which is tested here on a CPU."""
    objects = write_rectangles("a.png")
    slicing = Slicing(100, 0.25)
    pipeline = DetectionPipeline(exact, batch_size=4, workers=2, slicing=slicing, keep_images=True)
    pipeline.on_cpu = False
    ((result,),) = pipeline([[i] for i in find_images(["a.png"])])
    assert of_entry(result.detections.entry("abc", (1, 2, 3))) == objects
    assert result.image.shape == (230, 310, 3)


def test_classes_are_selected_and_pictures_are_drawn(exact, here):
    objects = write_rectangles("a.png")
    infer(exact, ["a.png"], InferOptions(slice=100, classes=["b"], draw="drawn"))
    assert of_entry(entries()["a.png"]) == [o for o in objects if o[0] == 1]
    assert os.listdir("drawn") == ["a.png"]


def test_the_predictor_finds_every_object_once(exact, here, monkeypatch):
    objects = [write_rectangles(f"{i}.png", seed=i) for i in range(2)]
    monkeypatch.setattr("libra_d2.inference.predictor.open_detector", lambda *_, **__: exact)
    predictor = libra_d2.Predictor("x", batch_size=5, slice_size=100)
    for found, expected in zip(
        predictor(["0.png", np.asarray(Image.open("1.png"))[..., ::-1]]), objects
    ):
        labels, boxes = found.pred_classes.tolist(), found.pred_boxes.tensor.tolist()
        assert sorted(zip(labels, boxes)) == [tuple(o) for o in expected]
        assert found.image_size == (230, 310) and found.pred_boxes.tensor.dtype == torch.float32
        assert list(found.class_names) == ["abc"[k] for k in labels]
    empty = predictor(np.zeros((150, 150, 3), np.uint8))
    assert len(empty) == 0 and empty.pred_boxes.tensor.shape == (0, 4)
    assert {len(b) for b in exact.model.batches} == {5, 2, 4}
    with pytest.raises(UserError, match="image 1: the array must have the type uint8"):
        predictor([np.zeros((150, 150, 3), np.uint8), np.zeros((150, 150, 3))])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"slice_size": 0}, "slice_size must be at least 32 pixels, got 0"),
        ({"slice_size": 64, "slice_overlap": 1}, r"slice_overlap must be in \[0, 0.9\], got 1"),
        ({"slice_overlap": 0.2}, "slice_overlap can only be used with slice_size"),
    ],
)
def test_the_predictor_refuses_impossible_slices(options, message):
    with pytest.raises(UserError, match=message):
        libra_d2.Predictor("no such model", **options)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--slice", "0"], "--slice must be at least 32 pixels, got 0"),
        (["--slice", "64", "--overlap", "1"], "--overlap must be in [0, 0.9], got 1"),
        (["--overlap", "0.2"], "--overlap can only be used with --slice"),
    ],
)
def test_mistakes_are_named(model, here, capsys, options, message):
    write_images(here / "images", 1)
    assert main(["infer", "images", "--model", model, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("predictions.json").exists()


def test_an_image_of_one_slice_is_as_without_slices(model, here):
    write_images(here / "images", 3)
    assert main(["infer", "images", "--model", model]) == 0
    without = Path("predictions.json").read_bytes()
    assert main(["infer", "images", "--model", model, "--slice", "80"]) == 0
    assert Path("predictions.json").read_bytes() == without


def test_slices_are_detected_like_images(model, here):
    """The network sees each slice as an image of its own, resized as usual."""
    image = blots(5, (100, 150))
    Image.fromarray(image).save("a.png")
    assert main(["infer", "a.png", "--model", model, "--slice", "64", "--no-fuse"]) == 0
    slices, pixels = Slicing(64).cut(image[..., ::-1])
    found = libra_d2.Predictor(model)(pixels)
    assert len(slices) == 2 * 3
    parts = [Detections.from_instances(x) for x in found]
    expected = merge_detections(parts, slices, 100, 150)
    assert len(expected) > 8  # TEST.DETECTIONS_PER_IMAGE is that of a slice
    names, ids = ("cat", "dog", "owl"), (7, 3, 90)
    actual, expected = entries()["a.png"], expected.entry(names, ids)
    assert len(actual["predictions"]) == len(expected["predictions"])
    for a, b in zip(actual["predictions"], expected["predictions"]):
        assert a["class"] == b["class"] and a["score"] == pytest.approx(b["score"], abs=1e-5)
        assert list(a["bbox"].values()) == pytest.approx(list(b["bbox"].values()), abs=1e-2)


def test_resume_needs_the_same_slices(exact, here):
    write_rectangles("a.png")

    def resume(**options):
        return infer(exact, ["a.png"], InferOptions(resume=True, **options))

    resume(slice=64)
    for options, given in (
        ({}, "None"),
        ({"slice": 80}, r"\[80, 0.2\]"),
        ({"slice": 64, "overlap": 0.3}, r"\[64, 0.3\]"),
    ):
        message = rf"slice must be \[64, 0.2\] to resume the run of .*, got {given}\. "
        with pytest.raises(UserError, match=message):
            resume(**options)
    assert resume(slice=64, overlap=0.2).num_resumed == 1


def test_frames_of_videos_are_cut_too(model, here):
    writer = cv2.VideoWriter("v.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for i in range(3):
        writer.write(np.ascontiguousarray(blots(i, (64, 96))))
    writer.release()
    assert main(["infer", "v.mp4", "--model", model, "--slice", "48"]) == 0
    assert [e["time"] for e in entries().values()] == pytest.approx([0, 0.1, 0.2])
    assert all(len(e["predictions"]) > 8 for e in entries().values())


def test_bad_images_are_skipped(exact, here, monkeypatch, capsys):
    for name in ("a.png", "c.png"):
        write_rectangles(name)
    Path("b.png").write_bytes(b"no image")
    real, failing = Preprocessor.__call__, [MemoryError()]

    def fails_once(self, image):
        if failing:
            raise failing.pop()
        return real(self, image)

    monkeypatch.setattr(Preprocessor, "__call__", fails_once)
    summary = infer(exact, ["a.png", "b.png", "c.png"], InferOptions(slice=100, workers=1))
    assert [key for key, _ in summary.skipped] == ["a.png", "b.png"] and summary.num_done == 1
    error = capsys.readouterr().err
    assert re.search("skipped a.png: there is not enough memory", error)
    assert re.search("skipped b.png: not an image", error)


def test_an_image_of_which_a_slice_does_not_fit_in_memory_is_skipped(exact, here, monkeypatch):
    write_rectangles("a.png")
    monkeypatch.setattr(exact.model, "forward", lambda _: exec("raise torch.OutOfMemoryError()"))
    (result,) = infer(exact, ["a.png"], InferOptions(slice=100, fuse=False)).skipped
    assert result == ("a.png", "there is not enough memory for this image")


def test_masks_are_not_computed_for_slices(here, monkeypatch):
    cfg = load_cfg(str(ROOT / CONFIG), [*OPTIONS, *CLASSES, "MODEL.MASK_ON", "True"])
    network = LibraTrainer.build_model(cfg).eval()
    detector = TrainedDetector(cfg, network, ("a", "b", "c"), (1, 2, 3))
    monkeypatch.setattr("libra_d2.inference.predictor.open_detector", lambda *_, **__: detector)
    found = libra_d2.Predictor("x", slice_size=64)(blots(0, (100, 100)))
    assert len(found) and not found.has("pred_masks")


def test_merged_detections_are_those_of_the_rule():
    slices = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])
    left = Detections(100, 100, [[50.0, 10, 100, 30]], [0.9], [1])
    right = Detections(100, 100, [[0.0, 10, 40, 30], [60.0, 5, 70, 9]], [0.8, 0.95], [1, 0])
    merged = merge_detections([left, right], slices, 100, 180)
    boxes = [[50, 10, 100, 30], [80, 10, 120, 30], [140, 5, 150, 9]]
    scores, labels = np.array([0.9, 0.8, 0.95]), np.array([1, 1, 0])
    rule = merge_slices(np.array(boxes), scores, labels, np.array([0, 1, 1]), slices)
    assert merged.boxes == rule.boxes.tolist() == [[140, 5, 150, 9], [50, 10, 120, 30]]
    assert merged.scores == [0.95, 0.9] and merged.labels == [0, 1]
    empty = Detections(100, 100, [], [], [])
    assert len(merge_detections([empty, empty], slices, 100, 180)) == 0
