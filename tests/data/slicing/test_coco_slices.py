"""A data set of slices: its images, its annotations, and what is left out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libra_d2.data.datasets.coco import load_coco
from libra_d2.data.images.packed_store import close_store
from libra_d2.data.images.reader import read_image
from libra_d2.data.packed.packing import pack
from libra_d2.data.slicing import coco_slices
from libra_d2.data.slicing.coco_slices import SliceOptions, slice_dataset
from libra_d2.errors import UserError

OPTIONS = SliceOptions(size=64, overlap=0.25, empty=1)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A PNG image of 150x100 with objects, a small JPEG image with one, and an empty image."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("photos/b")
    rng = np.random.default_rng(0)
    sizes = {"a.png": (150, 100), "b/a.jpg": (50, 40), "c d.png": (100, 64)}
    images = []
    for i, (name, (width, height)) in enumerate(sizes.items(), start=1):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{name}")
        images.append({"id": i, "file_name": name, "width": width, "height": height, "city": "x"})
    boxes = [(1, [10, 10, 20, 20]), (1, [40, 30, 60, 50]), (1, [5, 90, 9, 9]), (2, [5, 5, 10, 10])]
    annotations = [
        {"id": 10 * k, "image_id": i, "category_id": 3, "bbox": box, "iscrowd": int(k == 2)}
        for k, (i, box) in enumerate(boxes)
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
    write({"images": images, "annotations": annotations, "categories": categories, "info": "text"})
    return "coco:coco.json,photos"


def write(content):
    Path("coco.json").write_text(json.dumps(content))


def read(path="coco.json"):
    return json.loads(Path(path).read_text())


def test_slices_have_the_pixels_and_places_of_their_image(data):
    sliced = slice_dataset(data, "out", OPTIONS)
    content = read("out/annotations.json")
    assert content["info"] == {"slices": {"size": 64, "overlap": 0.25}}
    assert content["categories"] == read()["categories"]
    assert len(content["images"]) == sliced.record["num_slices"] == 3 * 2 + 1 + 2
    assert [i["id"] for i in content["images"]] == list(range(1, 10))
    for image in content["images"]:
        source = read_image(f"photos/{image['source_file_name']}")
        x, y = image["offset"]
        pixels = read_image(f"out/images/{image['file_name']}")
        assert pixels.shape == (image["height"], image["width"], 3) and image["city"] == "x"
        assert source.shape[:2] == (image["source_height"], image["source_width"])
        expected = source[y : y + image["height"], x : x + image["width"]]
        lossy = image["file_name"].endswith(".jpg")
        assert np.abs(pixels.astype(int) - expected).mean() <= (8 if lossy else 0)
    names = {i["file_name"] for i in content["images"]}
    assert sorted(names) == sorted(os.listdir("out/images"))
    assert {"1_a_0_0.png", "1_a_86_36.png", "2_a_0_0.jpg", "c_d_36_0.png"} <= names
    dicts = load_coco("out/annotations.json", "out/images", "test_slices")
    assert sum(len(d["annotations"]) for d in dicts) == len(content["annotations"])


def test_annotations_lead_back_to_their_objects(data):
    slice_dataset(data, "out", OPTIONS)
    content, objects = read("out/annotations.json"), {a["id"]: a for a in read()["annotations"]}
    images = {image["id"]: image for image in content["images"]}
    assert {a["source_id"] for a in content["annotations"]} == set(objects)
    for a in content["annotations"]:
        image, own = images[a["image_id"]], objects[a["source_id"]]
        assert image["source_id"] == own["image_id"] and a["iscrowd"] == own["iscrowd"]
        low = np.add(a["bbox"][:2], image["offset"])
        assert (low >= own["bbox"][:2]).all()
        assert (low + a["bbox"][2:] <= np.add(own["bbox"][:2], own["bbox"][2:])).all()


def test_a_share_of_the_empty_slices_is_kept_by_the_seed(data):
    kept = {}
    for i, (empty, seed) in enumerate([(0, 0), (0.5, 0), (0.5, 0), (0.5, 1), (1, 0)]):
        options = SliceOptions(size=64, overlap=0.25, empty=empty, seed=seed)
        record = slice_dataset(data, f"out{i}", options).record
        kept[i] = [image["file_name"] for image in read(f"out{i}/annotations.json")["images"]]
        number = record["num_empty_slices"]
        assert record["num_empty_slices_kept"] == round(empty * number)
        assert len(kept[i]) == record["num_slices_with_objects"] + round(empty * number)
        assert number + record["num_slices_with_objects"] == record["num_slices"]
        assert len(os.listdir(f"out{i}/images")) == len(kept[i])
    assert kept[1] == kept[2] != kept[3] and set(kept[0]) < set(kept[1]) < set(kept[4])
    assert Path("out1/annotations.json").read_bytes() == Path("out2/annotations.json").read_bytes()


def test_the_record_counts_by_class(data):
    content = read()
    content["annotations"] += [
        {"id": 50, "image_id": 1, "category_id": 4, "bbox": [0, 0, 150, 100], "iscrowd": 0},
        {"id": 51, "image_id": 9, "category_id": 4, "bbox": [0, 0, 5, 5], "iscrowd": 0},
        {"id": 52, "image_id": 1, "category_id": 4, "bbox": [0, 0, 0, 5], "iscrowd": 0},
    ]
    content["annotations"][0]["segmentation"] = [[1, 2]]
    write(content)
    record = slice_dataset(data, "out", OPTIONS).record
    assert record == read("out/slices.json")
    cats = record["classes"]["cat"]
    assert cats["lost"] == 0 and cats["whole"] == 2 and cats["crowd"] == 1
    assert record["classes"]["dog"] == {
        **{"whole": 0, "cut": 0, "crowd": 0},
        **{"dropped": 6, "lost": 1},
    }
    assert record["left_out_annotations"] == [51, 52] and record["bad_masks"] == [0]


def test_images_that_cannot_be_used_are_skipped_with_the_reason(data):
    content = read()
    content["images"][1]["width"] = 51
    write(content)
    Path("photos/c d.png").write_bytes(b"nothing")
    record = slice_dataset(data, "out", OPTIONS).record
    reasons = {os.path.relpath(path): why for path, why in record["skipped_images"]}
    assert reasons["photos/b/a.jpg"] == "its size is 50x40, but 51x40 in the annotations"
    assert "not an image" in reasons["photos/c d.png"] and len(reasons) == 2
    written = read("out/annotations.json")
    assert {image["source_id"] for image in written["images"]} == {1}
    assert {a["image_id"] for a in written["annotations"]} <= {i["id"] for i in written["images"]}
    assert record["num_images"] == 1 and len(os.listdir("out/images")) == 6


def test_an_image_of_which_nothing_is_cut_is_reported_too(data):
    Path("photos/c d.png").write_bytes(b"nothing")
    record = slice_dataset(data, "out", SliceOptions(size=64, empty=0)).record
    assert [os.path.basename(path) for path, _ in record["skipped_images"]] == ["c d.png"]


def test_without_readable_images_nothing_is_written(data):
    for name in ("a.png", "b/a.jpg", "c d.png"):
        Path(f"photos/{name}").write_bytes(b"nothing")
    before = sorted(os.listdir())
    with pytest.raises(UserError, match=r"none of the 3 images can be read. The first is .*/a"):
        slice_dataset(data, "out", OPTIONS)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_run_leaves_nothing(data, monkeypatch, error):
    before = sorted(os.listdir())

    def fail(*args):
        raise error

    monkeypatch.setattr(coco_slices, "_content", fail)
    with pytest.raises((KeyboardInterrupt, UserError), match=r"out cannot be written|^$"):
        slice_dataset(data, "out", OPTIONS)
    assert sorted(os.listdir()) == before


def test_packed_images_and_images_of_other_places_are_cut(data, tmp_path):
    packed = str(tmp_path / "all.lmdb")  # a relative path is resolved once in a process
    pack("coco.json", "photos", packed)
    slice_dataset(f"packed:{packed}", "from_packed", OPTIONS)
    close_store(packed)
    slice_dataset(data, "out", OPTIONS)
    content = read()
    for image in content["images"]:
        image["file_name"] = "C:\\data\\" + image["file_name"].replace("/", "\\")
    write(content)
    slice_dataset(data, "elsewhere", OPTIONS)
    names = sorted(os.listdir("out/images"))
    for other in ("from_packed", "elsewhere"):
        assert sorted(os.listdir(f"{other}/images")) == names
        for name in names:
            same = Path(f"{other}/images/{name}").read_bytes()
            assert same == Path(f"out/images/{name}").read_bytes()


def test_an_empty_folder_and_a_link_to_one_are_filled(data):
    os.mkdir("empty")
    os.symlink("empty", "link")
    slice_dataset(data, "link", OPTIONS)
    assert os.path.islink("link") and "annotations.json" in os.listdir("empty")
