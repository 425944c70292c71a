import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libra_d2.cli.main import main
from libra_d2.errors import UserError
from libra_d2.evaluation.coco_metrics import coco_metrics
from libra_d2.visualization import picture_folder as draw
from libra_d2.visualization.match_pictures import MatchCounts
from libra_d2.visualization.picture_folder import draw_files

from ..support.coco_files import write_dataset
from ..support.file_size_limit import largest_file

BBOX = {"x_min": 10, "y_min": 10, "width": 20, "height": 20}


def entry(*scores, height=40, width=60, category_id=10):
    of_class = {"label": 0, "category_id": category_id, "name": "cat"}
    rows = [{"bbox": BBOX, "class": of_class, "score": s} for s in scores]
    return {"height": height, "width": width, "predictions": rows}


def write_image(path, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)


def write_predictions(path, names, **kwargs):
    path.write_text(json.dumps({str(n): entry(0.9, 0.2, **kwargs) for n in names}))
    return str(path)


def files_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def dataset(tmp_path):
    """Annotations, images, and COCO results: a hit and a false detection in the first image."""
    annotations, images = write_dataset(tmp_path / "data")
    results = [
        {"image_id": 1, "category_id": 10, "bbox": [10, 10, 20, 20], "score": 0.9},
        {"image_id": 1, "category_id": 20, "bbox": [30, 10, 20, 20], "score": 0.8},
        {"image_id": 2, "category_id": 10, "bbox": [10, 10, 20, 20], "score": 0.1},
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    return {"annotations": annotations, "images": images, "predictions": str(path)}


def test_predictions_are_drawn_onto_the_images_that_they_name(tmp_path, monkeypatch):
    for name in ("x/a.png", "y/a.png", "b.png"):
        write_image(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    predictions = write_predictions(tmp_path / "p.json", ["x/a.png", "./y/a.png", "b.png"])
    drawn = draw_files("out", predictions=predictions, image_format="png")
    assert (drawn.num_drawn, drawn.problems, drawn.counts) == (3, [], None)
    assert files_in(tmp_path / "out") == ["b.png", "x/a.png", "y/a.png"]
    picture = np.array(Image.open("out/b.png"))
    assert picture.shape == (320, 480, 3)  # enlarged
    assert (picture != (90, 120, 150)).any()


def test_absolute_names_lie_below_the_folder_that_they_share(tmp_path):
    names = [tmp_path / "data/x/a.png", tmp_path / "data/y/z/a.png", tmp_path / "data/x/A.bmp"]
    names.append(tmp_path / "data/x/a.jpg")
    for name in names:
        write_image(name)
    predictions = write_predictions(tmp_path / "p.json", names)
    assert draw_files(str(tmp_path / "out"), predictions=predictions).num_drawn == 4
    assert files_in(tmp_path / "out") == ["x/A.bmp.jpg", "x/a.jpg", "x/a.jpg.jpg", "y/z/a.jpg"]


def test_images_are_found_in_a_folder_by_the_end_of_their_names(tmp_path, caplog):
    for name in ("x/a.png", "a.png", "b.png", "c.png", "d.png"):
        write_image(tmp_path / "here" / name)
    predictions = write_predictions(
        tmp_path / "p.json",
        ["/there/x/a.png", "C:\\there\\b.png", "..\\there\\c.png", "s3://there/d.png", "a.png"],
    )
    drawn = draw_files(
        str(tmp_path / "out"), predictions=predictions, images=str(tmp_path / "here")
    )
    assert (drawn.num_drawn, drawn.problems) == (5, [])
    (said,) = [r.getMessage() for r in caplog.records if "by the end of the name" in r.getMessage()]
    assert said.startswith(
        f"{predictions}: 4 of 5 images are not at the path that their name gives"
    )
    assert said.endswith(f"The first is /there/x/a.png, found at {tmp_path / 'here/x/a.png'}")
    assert all((tmp_path / "out").resolve() in p.resolve().parents for p in tmp_path.rglob("*.jpg"))


def test_an_end_that_two_names_share_is_not_taken(tmp_path, caplog):
    """As in all other commands: nobody knows which of the two the image is."""
    write_image(tmp_path / "here/b.png")
    predictions = write_predictions(tmp_path / "p.json", ["/x/b.png", "/y/b.png"])
    drawn = draw_files(
        str(tmp_path / "out"), predictions=predictions, images=str(tmp_path / "here")
    )
    assert drawn.num_drawn == 0
    assert drawn.problems == [f"/{f}/b.png: no such file: /{f}/b.png" for f in "xy"]
    assert not caplog.records


def test_images_that_cannot_be_used_are_named_and_left_out(tmp_path, capsys):
    images = tmp_path / "images"
    for name in ("good.png", "size.png"):
        write_image(images / name)
    (images / "broken.png").write_bytes((images / "good.png").read_bytes()[:50])
    (images / "text.png").write_text("no image")
    (images / "folder.png").mkdir()
    names = ["missing.png", "broken.png", "good.png", "text.png", "folder.png", "nul\0.png"]
    content = {n: entry(0.9) for n in names} | {"size.png": entry(0.9, width=61)}
    (tmp_path / "p.json").write_text(json.dumps(content))
    args = ["draw", "--predictions", str(tmp_path / "p.json"), "--images", str(images)]
    assert main([*args, "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert files_in(tmp_path / "out") == ["good.jpg"]
    assert "1 pictures" in captured.out and "6 images were left out" in captured.err
    for line in (
        "missing.png: no such file",
        "broken.png: cannot be read",
        "text.png: cannot be read: not an image of a supported format",
        "folder.png: no such file",
        "size.png: the image is 60x40, but the file with its boxes says 61x40",
    ):
        assert line in captured.err


def test_ground_truth_alone_and_both(dataset, tmp_path, capsys):
    args = ["draw", "--annotations", dataset["annotations"], "--images", dataset["images"]]
    assert main([*args, "--output", str(tmp_path / "truth"), "--format", "png"]) == 0
    assert files_in(tmp_path / "truth") == ["1.png", "2.png", "3.png"]
    args += ["--predictions", dataset["predictions"]]
    assert main([*args, "--output", str(tmp_path / "both"), "--side-by-side"]) == 0
    assert "1 hits, 1 false detections, 2 missed objects" in capsys.readouterr().out
    with Image.open(tmp_path / "both/1.jpg") as picture:
        assert picture.width > 2 * 480


def test_a_class_has_one_colour_in_all_pictures(dataset, tmp_path, monkeypatch):
    seen = []
    original = draw.draw_boxes
    monkeypatch.setattr(
        draw,
        "draw_boxes",
        lambda i, b, c, labels: seen.append((c, labels)) or original(i, b, c, labels),
    )
    draw_files(
        str(tmp_path / "a"),
        annotations=dataset["annotations"],
        images=dataset["images"],
        limit=1,
    )
    for category_id in (10, "unknown"):
        path = write_predictions(tmp_path / "p.json", ["1.jpg", "2.jpg"], category_id=category_id)
        draw_files(str(tmp_path / "b"), predictions=path, images=dataset["images"])
    assert seen[0] == ([10], ["cat"])
    assert seen[1] == seen[2] == ([10], ["cat 90%"])
    assert seen[3] == seen[4] and seen[3][1] == ["cat 90%"]  # by the name, where ids are unknown


def test_thresholds_classes_and_limit(dataset, tmp_path):
    def counts(**settings):
        return draw_files(str(tmp_path / "out"), **dataset, **settings).counts

    assert counts() == MatchCounts(1, 1, 2)
    assert counts(score_threshold=0) == MatchCounts(2, 1, 1)
    assert counts(score_threshold=0.85) == MatchCounts(1, 0, 2)
    assert counts(classes=["cat"]) == MatchCounts(1, 0, 2)
    assert counts(classes=["dog"]) == MatchCounts(0, 1, 0)
    assert counts(limit=1) == MatchCounts(1, 1, 0)


def test_predictions_of_unknown_images_are_named(dataset, tmp_path):
    results = json.loads(Path(dataset["predictions"]).read_text())
    results.append({**results[0], "image_id": 99})
    Path(dataset["predictions"]).write_text(json.dumps(results))
    drawn = draw_files(str(tmp_path / "out"), **dataset)
    assert drawn.num_drawn == 3 and len(drawn.problems) == 1 and "99" in drawn.problems[0]


def test_annotations_with_nan_and_crowds_are_drawn(dataset, tmp_path):
    data = json.loads(Path(dataset["annotations"]).read_text())
    data["annotations"][0]["bbox"][0] = float("nan")
    data["annotations"][1]["iscrowd"] = 1
    Path(dataset["annotations"]).write_text(json.dumps(data))
    drawn = draw_files(str(tmp_path / "out"), **dataset, score_threshold=0)
    # The NaN is no object; the detection in the crowd is neither; the last image has an object.
    assert drawn.counts == MatchCounts(0, 2, 1)


def test_boxes_that_evaluation_leaves_out_are_not_drawn(dataset, tmp_path, caplog):
    data = json.loads(Path(dataset["annotations"]).read_text())
    image, nan = {"image_id": 1, "category_id": 10}, float("nan")
    boxes = ([5, 5, 0, 9], [5, 5, 9, 0], [20, 20, -9, 9], [nan, 0, 9, 9], [0, 0, 9, nan])
    boxes += ([60, 0, 9, 9], [0, 41, 9, 9], [-20, 0, 10, 9], [0, 0, float("inf"), 9])
    unusable = [{**image, "bbox": box} for box in boxes]
    unusable.append({"image_id": 77, "category_id": 10, "bbox": [0, 0, 9, 9]})
    before = len(data["annotations"])
    for i, annotation in enumerate(unusable):
        data["annotations"].append({"id": 900 + i, "iscrowd": 0, "area": 81, **annotation})
    data["images"][0].update(width=60, height=40)
    Path(dataset["annotations"]).write_text(json.dumps(data))
    evaluated = coco_metrics(data, json.loads(Path(dataset["predictions"]).read_text()))
    drawn = draw_files(str(tmp_path / "out"), **dataset, score_threshold=0)
    assert drawn.counts.hits + drawn.counts.missed == evaluated.num_objects == before
    assert f"left out {len(unusable)} annotations that are not ground truth" in caplog.text


@pytest.mark.parametrize("image_format", ["jpg", "png"])
def test_two_runs_write_the_same_bytes(dataset, tmp_path, image_format):
    for folder in ("a", "b"):
        draw_files(str(tmp_path / folder), **dataset, image_format=image_format)
    names = files_in(tmp_path / "a")
    assert names == files_in(tmp_path / "b") and len(names) == 3
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("image_format", ["jpg", "png"])
def test_a_picture_is_whole_or_not_there(dataset, tmp_path, image_format):
    """A limit on the size of files takes the beginning of one, as a full disk does."""
    draw_files(str(tmp_path / "whole"), **dataset, image_format=image_format)
    sizes = [p.stat().st_size for p in (tmp_path / "whole").rglob(f"*.{image_format}")]
    with largest_file(min(sizes) - 1), pytest.raises(UserError, match="File too large"):
        draw_files(str(tmp_path / "out"), **dataset, image_format=image_format)
    assert files_in(tmp_path / "out") == []


def test_images_are_never_replaced(dataset, tmp_path):
    before = (Path(dataset["images"]) / "1.jpg").read_bytes()
    with pytest.raises(UserError, match=r"would be written into .* contains the images"):
        draw_files(dataset["images"], **dataset)
    assert (Path(dataset["images"]) / "1.jpg").read_bytes() == before


def test_images_that_are_not_drawn_are_never_replaced(dataset, tmp_path):
    (tmp_path / "link").symlink_to(dataset["images"])
    neighbour = Path(dataset["images"]) / "1.png"
    neighbour.write_bytes(b"of another data set")
    with pytest.raises(UserError, match=r"would be written into .* contains the images"):
        draw_files(str(tmp_path / "link"), **dataset, image_format="png", limit=1)
    assert neighbour.read_bytes() == b"of another data set"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"predictions": "", "annotations": ""}, "there is nothing to draw. Give"),
        ({"annotations": ""}, "do not name image files. Give the annotations"),
        ({"predictions": "", "side_by_side": True}, "side_by_side needs both"),
        ({"iou_threshold": 0}, "iou_threshold must be .*, got 0"),
        ({"iou_threshold": float("nan")}, "iou_threshold must be .*, got nan"),
        ({"score_threshold": float("nan")}, "score_threshold must be .*, got nan"),
        ({"score_threshold": 2}, "score_threshold must be .*, got 2"),
        ({"limit": -1}, "limit must be at least 0, got -1"),
        ({"image_format": "gif"}, "image_format must be one of .*, got 'gif'"),
        ({"images": "/nowhere"}, "images must be an existing folder, got /nowhere"),
        ({"classes": ["cow"]}, r"classes must be among \['cat', 'dog'\], got 'cow'"),
    ],
)
def test_mistakes_are_said_in_one_line(dataset, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        draw_files(str(tmp_path / "out"), **dataset | settings)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(dataset, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        draw_files(str(tmp_path / "out"), **dataset)


def test_frames_of_a_video_are_left_to_infer(tmp_path):
    (tmp_path / "a.mp4").touch()
    entry = {"height": 4, "width": 4, "predictions": []}
    (tmp_path / "found.json").write_text(json.dumps({f"{tmp_path}/a.mp4#3": entry}))
    with pytest.raises(UserError, match="Use `libra-d2 infer --draw` to draw it"):
        draw_files(str(tmp_path / "out"), predictions=str(tmp_path / "found.json"))
