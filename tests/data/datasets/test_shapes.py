import json
from collections import Counter

import cv2
import numpy as np
import pytest

from libra_d2.data import ensure_shapes, load_coco
from libra_d2.data.datasets.shapes import CLASSES, SPLITS, draw_scene, shapes_root, write_shapes


def test_same_seed_draws_the_same_scene():
    (a, objects_a), (b, objects_b), (c, _) = (
        draw_scene(np.random.default_rng(s)) for s in (3, 3, 4)
    )
    assert np.array_equal(a, b) and objects_a == objects_b
    assert a.shape != c.shape or not np.array_equal(a, c)


def test_scenes_are_as_described():
    """Frequencies differ, sizes reach from 8 pixels to half the image, boxes lie within."""
    classes, sizes = Counter(), []
    for i in range(150):
        image, objects = draw_scene(np.random.default_rng([5, i]))
        height, width = image.shape[:2]
        assert image.dtype == np.uint8 and max(height, width) == 256 and min(height, width) >= 192
        for o in objects:
            x, y, w, h = o["bbox"]
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height and o["area"] > 0
            classes[o["category_id"]] += 1
            sizes.append(max(w, h))
    assert set(classes) == set(range(1, len(CLASSES) + 1))
    assert classes[1] > 3 * classes[6]
    assert min(sizes) <= 10 and 96 <= max(sizes) <= 130


def test_boxes_are_those_of_visible_pixels():
    _, objects = draw_scene(np.random.default_rng(8))
    for o in objects:
        points = np.concatenate([np.array(p).reshape(-1, 2) for p in o["segmentation"]])
        x, y, w, h = o["bbox"]
        assert points.min(0).tolist() == [x, y]
        assert points.max(0).tolist() == [x + w - 1, y + h - 1]


def test_written_as_coco_with_real_images(tmp_path):
    write_shapes(tmp_path, "tiny", 3, seed=1)
    data = json.loads((tmp_path / "tiny.json").read_text())
    assert [c["name"] for c in data["categories"]] == list(CLASSES)
    assert len({a["id"] for a in data["annotations"]}) == len(data["annotations"]) > 0
    for image in data["images"]:
        pixels = cv2.imread(str(tmp_path / "tiny" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)


def test_written_once_and_whole(monkeypatch, tmp_path):
    monkeypatch.setenv("LIBRA_D2_CACHE", str(tmp_path))
    monkeypatch.setitem(SPLITS, "train", (3, 1))
    monkeypatch.setitem(SPLITS, "val", (2, 2))
    root = ensure_shapes()
    assert root == shapes_root()
    before = (root / "train.json").stat().st_mtime_ns
    assert ensure_shapes() == root and (root / "train.json").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == [root.name]
    assert len(load_coco(str(root / "val.json"), str(root / "val"), "two_scenes")) == 2


def test_a_killed_drawing_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("LIBRA_D2_CACHE", str(tmp_path))
    monkeypatch.setattr("libra_d2.data.datasets.shapes.write_shapes", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ensure_shapes()
    assert not list(tmp_path.iterdir())
