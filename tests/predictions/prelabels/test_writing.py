"""Annotations for other tools; our own readers read the data sets among them back as they were."""

import json
import os
import xml.etree.ElementTree as ElementTree
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from libra_d2.config.choices import PRELABEL_FORMATS
from libra_d2.errors import UserError
from libra_d2.predictions.prelabels.selection import LabeledImage, Prelabels
from libra_d2.predictions.prelabels.writing import description, write_prelabels

from ...support.voc_and_yolo_files import records_of

NAMES = ["cat & <dog>", "Zebra ß", "owl"]


@pytest.fixture
def prelabels(tmp_path):
    """Four images of different sizes in two folders, the last without objects."""
    rng = np.random.default_rng(0)
    images = []
    for i, name in enumerate(["a/1 x.png", "a/2.png", "b/1 x.png", "b/3.png"]):
        width, height = 60 + 7 * i, 40 + 5 * i
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), 50 * i, np.uint8)).save(path)
        corners = rng.uniform(0, 1, (3 * (i < 3), 2, 2)) * [width, height]
        boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
        if i == 1:
            boxes[0] = [0, 0, width, height]
        labels = [0, 1, 1][: len(boxes)]
        images.append(
            LabeledImage(
                name, str(path), width, height, boxes, labels, [0.9, 0.8, 0.7][: len(boxes)]
            )
        )
    return Prelabels(NAMES, [7, 3, 90], images, [])


def write(prelabels, tmp_path, format, **kwargs):
    output = str(tmp_path / f"out.{format}")
    write_prelabels(prelabels, format, output, **kwargs)
    return output


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_our_readers_read_what_was_written(prelabels, tmp_path, format):
    output = write(prelabels, tmp_path, format)
    described = description(format, output, str(tmp_path / "source"))
    records, metadata = records_of(tmp_path, described)
    assert list(metadata.thing_classes) == (
        [NAMES[1], NAMES[0], NAMES[2]] if format == "coco" else NAMES  # ids ascend
    )
    assert len(records) == 4
    by_size = {(r["width"], r["height"]): r for r in records}
    for image in prelabels.images:
        record = by_size[image.width, image.height]
        with Image.open(record["file_name"]) as stored:
            assert stored.getpixel((0, 0)) == Image.open(image.path).getpixel((0, 0))
        found = sorted(
            (metadata.thing_classes[a["category_id"]], *a["bbox"]) for a in record["annotations"]
        )
        expected = sorted(
            (NAMES[k], x0, y0, x1 - x0, y1 - y0)
            for (x0, y0, x1, y1), k in zip(image.boxes.tolist(), image.labels)
        )
        assert [f[0] for f in found] == [e[0] for e in expected]
        np.testing.assert_allclose(
            np.array([f[1:] for f in found]).reshape(-1, 4),
            np.array([e[1:] for e in expected]).reshape(-1, 4),
            atol=0.011,
        )
        assert not any(a.get("iscrowd") for a in record["annotations"])


def test_voc_names_the_classes_for_cvat(prelabels, tmp_path):
    output = write(prelabels, tmp_path, "voc")
    head, *lines = (tmp_path / "out.voc/labelmap.txt").read_text("utf-8").splitlines()
    assert head.startswith("# label:") and lines == [f"{name}:::" for name in NAMES]
    assert sorted(os.listdir(output)) == ["Annotations", "ImageSets", "JPEGImages"] + [
        *("labelmap.txt", "labels.txt")
    ]


def test_coco_keeps_ids_and_scores(prelabels, tmp_path):
    with open(write(prelabels, tmp_path, "coco")) as f:
        content = json.load(f)
    assert [c["id"] for c in content["categories"]] == [7, 3, 90]
    assert [a["score"] for a in content["annotations"][:3]] == [0.9, 0.8, 0.7]
    assert content["images"][0]["file_name"] == "a/1 x.png"


def test_cvat(prelabels, tmp_path):
    root = ElementTree.parse(write(prelabels, tmp_path, "cvat")).getroot()
    assert root.findtext("version") == "1.1"
    assert [n.text for n in root.iterfind("meta/task/labels/label/name")] == NAMES
    images = root.findall("image")
    assert [i.get("name") for i in images] == [i.name for i in prelabels.images]
    for found, image in zip(images, prelabels.images):
        assert (found.get("width"), found.get("height")) == (str(image.width), str(image.height))
        boxes = [[float(b.get(k)) for k in ("xtl", "ytl", "xbr", "ybr")] for b in found]
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), image.boxes, atol=0.006)
        assert [b.get("label") for b in found] == [NAMES[k] for k in image.labels]


def test_label_studio(prelabels, tmp_path):
    output = write(prelabels, tmp_path, "label-studio", image_prefix="https://host/x?d=")
    with open(output) as f:
        tasks = json.load(f)
    config = ElementTree.parse(os.path.splitext(output)[0] + ".config.xml").getroot()
    assert [label.get("value") for label in config.iter("Label")] == NAMES
    control, shown = config.find("RectangleLabels"), config.find("Image")
    assert shown.get("value") == "$image"
    for task, image in zip(tasks, prelabels.images):
        url = task["data"]["image"]
        assert " " not in url and unquote(url) == "https://host/x?d=" + image.name
        (prediction,) = task["predictions"]
        boxes = []
        for found, k, score in zip(prediction["result"], image.labels, image.scores):
            value = found["value"]
            assert (found["from_name"], found["to_name"]) == (
                control.get("name"),
                shown.get("name"),
            )
            assert value["rectanglelabels"] == [NAMES[k]] and found["score"] == score
            sides = (found["original_width"], found["original_height"])
            assert sides == (image.width, image.height)
            x, y, w, h = (value[key] / 100 for key in ("x", "y", "width", "height"))
            boxes.append([x * sides[0], y * sides[1], (x + w) * sides[0], (y + h) * sides[1]])
        assert len(prediction["result"]) == len(image.labels)
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), image.boxes, atol=1e-9)
    assert "score" not in tasks[3]["predictions"][0] and tasks[0]["predictions"][0][
        "score"
    ] == pytest.approx(0.8)


def test_fiftyone(prelabels, tmp_path):
    truth = {
        "images": [{"id": i, "width": 1000, "height": 1000} for i in (5, 6, 7, 8)],
        "categories": [{"id": 3, "name": "owl"}],
        "annotations": [
            {"id": 1, "image_id": 6, "category_id": 3, "bbox": [0, 0, 67, 22.5], "iscrowd": 1},
            {"id": 2, "image_id": 6, "category_id": 3, "bbox": [0, 0, 0, 5]},
        ],
    }
    output = write(prelabels, tmp_path, "fiftyone", truth=truth)
    metadata, samples = (
        json.loads((tmp_path / "out.fiftyone" / f"{name}.json").read_text())
        for name in ("metadata", "samples")
    )
    assert "version" not in metadata, "FiftyOne would take it for a copy of its data base"
    assert metadata["info"]["classes"] == NAMES and os.path.isdir(output)
    for sample, image in zip(samples["samples"], prelabels.images):
        assert sample["filepath"] == image.path
        detections = sample["predictions"]["detections"]
        assert [d["label"] for d in detections] == [NAMES[k] for k in image.labels]
        assert [d["confidence"] for d in detections] == image.scores
        boxes = np.reshape([d["bounding_box"] for d in detections], (-1, 4))
        boxes *= [image.width, image.height] * 2
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, image.boxes, atol=1e-9)
    truths = [s["ground_truth"]["detections"] for s in samples["samples"]]
    assert [len(t) for t in truths] == [0, 1, 0, 0]
    assert truths[1][0]["bounding_box"] == [0, 0, 1, 0.5] and truths[1][0]["iscrowd"] is True
    os.remove(os.path.join(output, "metadata.json"))
    os.remove(os.path.join(output, "samples.json"))
    write_prelabels(prelabels, "fiftyone", output)
    assert "ground_truth" not in (tmp_path / "out.fiftyone/samples.json").read_text()


@pytest.mark.parametrize("format", PRELABEL_FORMATS)
def test_without_images_and_without_objects(tmp_path, format):
    write(Prelabels(["cat"], [1], [], []), tmp_path, format)
    assert os.path.exists(tmp_path / f"out.{format}")


def test_labels_without_their_images(prelabels, tmp_path):
    output = write(prelabels, tmp_path, "yolo", copy_images=False)
    assert not any(n.endswith(".png") for _, _, names in os.walk(output) for n in names)
    os.remove(prelabels.images[2].path)
    with pytest.raises(UserError, match=r"b/1 x\.png does not exist. Give the folder"):
        write(prelabels, tmp_path, "voc")


def test_what_is_refused(prelabels, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x").touch()
    source = prelabels.images[0].path
    for format, output, message in [
        ("coco", str(tmp_path / "folder"), "must be a file for --format coco"),
        ("voc", str(tmp_path / "folder"), "must be a new or empty folder for --format voc"),
        ("yolo", str(tmp_path / "folder/x"), "must be a new or empty folder"),
        ("coco", source, "would replace the image"),
    ]:
        with pytest.raises(UserError, match=message):
            write_prelabels(prelabels, format, output)
    first, *others = prelabels.images
    twin = LabeledImage("a/1 x.jpg", first.path, *list(vars(first).values())[2:])
    both = Prelabels(NAMES, [7, 3, 90], [first, twin, *others], [])
    with pytest.raises(UserError, match="would have the same file of labels in YOLO"):
        write(both, tmp_path, "yolo")
    write(both, tmp_path, "voc")
    assert len(os.listdir(tmp_path / "out.voc/Annotations")) == 5
