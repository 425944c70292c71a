"""Which detections become annotations, of which classes, and how their images are called."""

import numpy as np
import pytest
from PIL import Image

from libra_d2.errors import UserError
from libra_d2.predictions.prelabels.selection import flat_names, relative_names, select
from libra_d2.predictions.reading import ImagePredictions
from libra_d2.predictions.score_thresholds import ScoreThresholds


def image(name="a.jpg", size=(60, 40), rows=()):
    """Rows are (class, category id, score, box)."""
    return ImagePredictions(
        name,
        None,
        size[1],
        size[0],
        np.array([r[3] for r in rows], float).reshape(-1, 4),
        np.array([r[2] for r in rows], float),
        [r[1] for r in rows],
        [r[0] for r in rows],
    )


BOX = [1.0, 2.0, 11.0, 22.0]


def test_thresholds_of_classes():
    rows = [("cat", 7, 0.9, BOX), ("dog", 3, 0.6, BOX), ("cat", 7, 0.5, BOX), ("dog", 3, 0.3, BOX)]
    found = select([image(rows=rows)], ScoreThresholds(0.9, {"cat": 0.6, "dog": 0.3}))
    assert found.class_names == ["dog", "cat"] and found.category_ids == [3, 7]
    assert found.images[0].scores == [0.9, 0.6, 0.3] and found.images[0].labels == [1, 0, 0]
    assert found.objects_by_class() == {"dog": 2, "cat": 1} and found.num_objects == 3
    of_all = select([image(rows=rows)], ScoreThresholds(0.6))
    assert of_all.images[0].scores == [0.9, 0.6], "a score equal to the threshold counts"
    only = select([image(rows=rows)], ScoreThresholds(0.0), classes=["dog"])
    assert only.class_names == ["dog"] and only.images[0].labels == [0, 0]
    with pytest.raises(UserError, match=r"--classes must be among \['dog', 'cat'\], got 'cow'"):
        select([image(rows=rows)], ScoreThresholds(0.0), classes=["cow"])


def test_all_classes_of_the_detector_are_there():
    """Else the labels of a tool would lack those that happen not to be found."""
    known = [("cat", 7), ("owl", 90), ("dog", 3)]
    found = select([image(rows=[("dog", 3, 0.9, BOX)])], ScoreThresholds(0.5), known=known)
    assert found.class_names == ["cat", "owl", "dog"] and found.category_ids == [7, 90, 3]
    assert found.images[0].labels == [2]


@pytest.mark.parametrize("ids", [("x", "y"), (None, None), (1, 1), (1, "y"), (-1, 2)])
def test_ids_that_are_no_different_integers_are_numbered(ids):
    rows = [("b", ids[0], 0.9, BOX), ("a", ids[1], 0.8, BOX)]
    assert select([image(rows=rows)], ScoreThresholds(0.5)).category_ids == [1, 2]


def test_boxes_are_cut_at_the_border_and_counted():
    rows = [
        ("cat", 1, 0.9, [-5.0, 0.0, 10.0, 10.0]),
        ("cat", 1, 0.8, [59.8, 0.0, 60.2, 10.0]),  # by rounding
        ("cat", 1, 0.7, [70.0, 0.0, 80.0, 10.0]),
        ("cat", 1, 0.6, BOX),
    ]
    found = select([image(rows=rows)], ScoreThresholds(0.5))
    assert found.images[0].boxes.tolist() == [[0, 0, 10, 10], [59.8, 0, 60, 10], BOX]
    assert found.images[0].scores == [0.9, 0.8, 0.6]
    assert found.notes == [
        "2 boxes reached beyond their image and were cut off at its border",
        "1 boxes without area in their image were left out",
    ]


def test_nothing_found():
    assert select([], ScoreThresholds(0.5)).images == []
    found = select([image()], ScoreThresholds(0.5))
    assert found.num_objects == 0 and found.class_names == [] and found.notes == []


def test_sizes_that_the_file_does_not_give(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    found = select([image("a.png", (0, 0))], ScoreThresholds(0.5), images=str(tmp_path))
    assert (found.images[0].width, found.images[0].height) == (30, 20)
    with pytest.raises(UserError, match=r"b\.png, whose size the predictions do not give: No such"):
        select([image("b.png", (0, 0))], ScoreThresholds(0.5), images=str(tmp_path))


def test_images_that_cannot_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    for names, message in {
        ("",): "do not name image files. Give the annotations",
        ("a.mp4#0",): "a.mp4#0 is a frame of a video",
        ("a.jpg", "a.jpg"): "two entries for a.jpg",
    }.items():
        with pytest.raises(UserError, match=message):
            select([image(name) for name in names], ScoreThresholds(0.5))
    with pytest.raises(UserError, match="--images must be an existing folder, got none"):
        select([], ScoreThresholds(0.5), images="none")


@pytest.mark.parametrize(
    "names, expected",
    [
        ([], []),
        (["a.jpg"], ["a.jpg"]),
        (["in/a.jpg"], ["a.jpg"]),
        (["/x/in/a.jpg", "/x/in/b/c.jpg"], ["a.jpg", "b/c.jpg"]),
        (["in\\a\\1.jpg", "in\\b\\1.jpg"], ["a/1.jpg", "b/1.jpg"]),
        (["./a/1.jpg", "b/1.jpg"], ["a/1.jpg", "b/1.jpg"]),
    ],
)
def test_names_are_relative_to_the_common_folder(names, expected):
    assert relative_names(names) == expected


def test_mixed_names_do_not_leave_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for names in (["../a/1.jpg", "b/1.jpg"], [f"{tmp_path}/a/1.jpg", "b/1.jpg"]):
        found = relative_names(names)
        assert len(set(found)) == 2 and not any(n.startswith(("/", "..")) for n in found)


def test_flat_names_are_different_also_without_suffix_and_case():
    names = ["a/1.jpg", "a_1.png", "A/1.JPG", "b.jpg"]
    found = flat_names(names)
    stems = [name.rpartition(".")[0].lower() for name in found]
    assert len(set(stems)) == 4 and found[0] == "a_1.jpg" and found[3] == "b.jpg"
