"""Names of images that come from another machine mean the same in training and in all commands."""

import json
import logging
from pathlib import Path

import pytest

from libra_d2.data.datasets.coco import load_coco
from libra_d2.data.datasets.yolo import read_yolo
from libra_d2.data.images.sources import find_images
from libra_d2.data.packed.packing import pack
from libra_d2.evaluation.analysis.detector_analysis import analyze
from libra_d2.visualization.picture_folder import draw_files

from ...support.coco_files import write_dataset

NAMES = [
    "C:\\photos\\images\\1.jpg",
    "/home/alice/images/1.jpg",
    "https://example.invalid/a/1.jpg?size=big",
    "a%2Fimages%2F1.jpg",
]


@pytest.mark.parametrize("command", ["training", "yolo", "pack", "analyze", "infer", "draw"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_another_machine_is_found_and_said(tmp_path, caplog, name, command):
    json_file, images = write_dataset(tmp_path, num_images=1)
    content = json.loads(Path(json_file).read_text())
    content["images"][0]["file_name"] = name
    Path(json_file).write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        if command == "training":
            path = load_coco(json_file, images, str(tmp_path))[0]["file_name"]
        elif command == "pack":
            assert pack(json_file, images, str(tmp_path / "x.lmdb")).num_images == 1
            path = f"{images}/1.jpg"
        elif command == "analyze":
            path = analyze(content, [], images_folder=images).images[0].path
        elif command == "draw":
            drawn = draw_files(str(tmp_path / "out"), annotations=json_file, images=images)
            assert (drawn.num_drawn, drawn.problems) == (1, [])
            path = f"{images}/1.jpg"
        elif command == "yolo":
            (tmp_path / "list.txt").write_text(f"{name}\n")
            yaml = tmp_path / "data.yaml"
            yaml.write_text(f"path: {images}\ntrain: {tmp_path}/list.txt\nnames: [cat]\n")
            (path,) = read_yolo(str(yaml), "train")[1]
        else:
            (tmp_path / "images/list.txt").write_text(f"{name}\n")
            path = find_images([f"{images}/list.txt"])[0].key
    assert path == f"{images}/1.jpg"
    said = [r for r in caplog.records if "found by the end of the name" in r.getMessage()]
    assert len(said) == 1 and ": 1 of 1 images are not at the path" in said[0].getMessage()


def test_an_end_that_two_names_share_is_not_taken(tmp_path):
    _, images = write_dataset(tmp_path, num_images=1)
    (tmp_path / "images/list.txt").write_text("/a/1.jpg\n/b/1.jpg\n")
    assert [i.key for i in find_images([f"{images}/list.txt"])] == ["/a/1.jpg", "/b/1.jpg"]
