import numpy as np
import pytest

from libra_d2.predictions.score_thresholds import ScoreThresholds
from libra_d2.visualization.colours import GREEN, GREY, VERMILION, YELLOW
from libra_d2.visualization.match_pictures import MatchCounts, draw_matches, matches_picture

HIT = {"bbox": [50, 50, 100, 100], "class": "cat"}
MISSED = {"bbox": [200, 50, 100, 100], "class": "cat"}
CROWD = {"bbox": [350, 50, 200, 100], "class": "cat", "crowd": True}
OBJECTS = [HIT, MISSED, CROWD]
DETECTIONS = [
    {"bbox": [50, 300, 100, 100], "class": "cat", "score": 0.7},
    {"bbox": [52, 50, 100, 100], "class": "cat", "score": 0.9},
    {"bbox": [202, 50, 100, 100], "class": "dog", "score": 0.8},
    {"bbox": [360, 60, 60, 60], "class": "cat", "score": 0.6},
    {"bbox": [400, 300, 60, 60], "class": "cat", "score": 0.4},
]


def image(height=480, width=640):
    return np.full((height, width, 3), 128, np.uint8)


def colours_at(picture, bbox, margin=6):
    """Which of the four colours the left side of a box has."""
    x, y, _, height = bbox
    side = picture[y + 30 : y + height - 10, max(0, x - margin) : x + margin].reshape(-1, 3)
    return {c for c in (GREEN, VERMILION, YELLOW, GREY) if (side == c).all(1).any()}


def test_hits_false_detections_and_misses_are_told_apart():
    picture = draw_matches(image(), OBJECTS, DETECTIONS, legend=False)
    assert picture.shape == image().shape
    assert colours_at(picture, HIT["bbox"]) == {GREEN}
    assert colours_at(picture, DETECTIONS[0]["bbox"]) == {VERMILION}
    assert colours_at(picture, MISSED["bbox"]) == {YELLOW, VERMILION}  # found as another class
    assert colours_at(picture, CROWD["bbox"], 4) == {GREY}
    assert colours_at(picture, DETECTIONS[3]["bbox"], 4) == {GREY}
    assert colours_at(picture, DETECTIONS[4]["bbox"]) == set()  # below the threshold


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, MatchCounts(1, 2, 1)),
        ({"score_threshold": 0.3}, MatchCounts(1, 3, 1)),
        ({"score_threshold": 0.95}, MatchCounts(0, 0, 2)),
        # IoU of the hit: 98 / 102
        ({"iou_threshold": 0.96}, MatchCounts(1, 2, 1)),
        ({"iou_threshold": 0.97}, MatchCounts(0, 3, 2)),
    ],
)
def test_counts_by_hand(settings, expected):
    settings = {"iou_threshold": 0.5, "score_threshold": 0.5, **settings}
    settings["thresholds"] = ScoreThresholds(settings.pop("score_threshold"))
    for side_by_side in (False, True):
        _, counts = matches_picture(
            image(), OBJECTS, DETECTIONS, side_by_side=side_by_side, legend=True, **settings
        )
        assert counts == expected


def test_counts_add_up():
    assert MatchCounts(1, 2, 3) + MatchCounts(10, 20, 30) == MatchCounts(11, 22, 33)


def test_ground_truth_is_left_and_detections_are_right():
    picture = draw_matches(image(), OBJECTS, DETECTIONS, side_by_side=True, legend=False)
    top = picture.shape[0] - 480  # the titles
    assert 10 < top < 60
    left, right = picture[top:, :640], picture[top:, -640:]
    assert colours_at(left, HIT["bbox"]) == {GREEN}
    assert colours_at(left, MISSED["bbox"]) == {YELLOW}
    assert colours_at(left, DETECTIONS[0]["bbox"]) == set()
    assert colours_at(right, DETECTIONS[1]["bbox"]) == {GREEN}
    assert colours_at(right, DETECTIONS[2]["bbox"]) == {VERMILION}


@pytest.mark.parametrize("shape", [(1, 1), (20, 20), (900, 10), (10, 900)])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_odd_sizes_and_empty_lists(shape, side_by_side):
    small = {"bbox": [0, 0, 1, 1], "class": "猫", "score": 1.0}
    for objects, detections in (([], []), ([small], []), ([], [small]), ([small], [small])):
        picture = draw_matches(image(*shape), objects, detections, side_by_side=side_by_side)
        assert picture.shape[1] >= 100  # the legend is there
