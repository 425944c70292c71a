"""Detections of slices: an object is found once, whatever cuts it, and none is lost."""

import numpy as np
import pytest

from libra_d2.data.slicing.geometry import box_areas, clip_boxes, slice_grid
from libra_d2.predictions.merging import merge_slices

SLICES = slice_grid(180, 180, 100, 0.2)  # 2x2, which share a strip from 80 to 100


def detect(objects, slices, labels=None, noise=0.0, least=0.0, seed=0):
    """
    What a detector finds in slices: the part of each object of which at least a share `least` is
    visible, with the larger part scored higher, and `noise` relative to the sides of the part.
    """
    rng = np.random.default_rng(seed)
    objects = np.array(objects, float).reshape(-1, 4)
    labels = np.zeros(len(objects), int) if labels is None else np.array(labels)
    found = []
    for s, window in enumerate(slices):
        parts = clip_boxes(objects, window)
        share = box_areas(parts) / box_areas(objects)
        for i in np.flatnonzero(share > least):
            sides = np.tile(parts[i, 2:] - parts[i, :2], 2)
            box = clip_boxes(parts[i] + noise * sides * rng.uniform(-1, 1, 4), window)
            found.append((box, 0.5 + 0.4 * share[i] + 0.01 * rng.random(), labels[i], s))
    boxes, scores, of_class, of_slice = zip(*found) if found else ([], [], [], [])
    return np.array(boxes), np.array(scores), np.array(of_class, int), np.array(of_slice, int)


def merge(objects, slices=SLICES, labels=None, **kwargs):
    return merge_slices(*detect(objects, slices, labels, **kwargs), slices)


def assert_same_boxes(merged, objects, abs=1e-9):
    assert len(merged) == len(objects), merged.boxes.round(1).tolist()
    expected = np.array(objects, float)
    nearest = np.abs(merged.boxes[:, None] - expected).max(-1).argmin(0)
    assert sorted(nearest) == list(range(len(objects)))
    assert merged.boxes[nearest] == pytest.approx(expected, abs=abs)


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 40, 30),  # inside of one slice
        (85, 20, 95, 30),  # whole in two slices
        (82, 83, 97, 98),  # whole in four slices
        (70, 20, 95, 40),  # whole in the left slice, cut in the right one
        (60, 20, 130, 40),  # cut in both
        (60, 60, 130, 130),  # at the corner of four slices, cut in all
        (75, 75, 98, 98),  # at the corner, whole in one and cut in three
        (5, 20, 175, 40),  # longer than a slice
        (5, 5, 175, 175),  # larger than a slice in both directions
        (0, 0, 180, 180),  # the whole image
        (40, 82, 140, 98),
    ],
)
def test_an_object_is_found_once(box):
    merged = merge([box])
    assert_same_boxes(merged, [box])
    boxes, scores, _, _ = detect([box], SLICES)
    assert merged.scores.tolist() == [scores.max()] and len(merged.group) == len(boxes)
    assert set(merged.group) == {0}


def test_objects_longer_than_many_slices_are_found_once():
    slices = slice_grid(800, 260, 100, 0.2)
    objects = [(3, 10, 790, 30), (120, 100, 700, 190), (330, 5, 350, 255)]
    assert_same_boxes(merge(objects, slices, labels=[0, 1, 2]), objects)
    assert_same_boxes(merge(objects, slices), objects)


def grid_of_objects(rng, slices, count, apart=6):
    """Random objects of one class that do not touch."""
    width, height = slices[:, 2:].max(0)
    objects = []
    while len(objects) < count:
        sides = rng.uniform(6, 60, 2) * (rng.random(2) < 0.8) + 12
        corner = rng.uniform(0, (width, height) - sides)
        box = np.array([*corner, *(corner + sides)])
        others = np.array(objects).reshape(-1, 4)
        if box_areas(clip_boxes(others, box + np.array([-apart, -apart, apart, apart]))).sum() == 0:
            objects.append(box)
    return objects


@pytest.mark.parametrize("overlap", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_separate_objects_stay_as_many(seed, overlap):
    rng = np.random.default_rng(seed)
    slices = slice_grid(430, 310, 100, overlap)
    objects = grid_of_objects(rng, slices, 25)
    assert_same_boxes(merge(objects, slices), objects)


@pytest.mark.parametrize("seed", range(5))
def test_inaccurate_boxes_are_merged_as_well(seed):
    """A detector misses the smallest parts and places each side with an error of up to 4%."""
    rng = np.random.default_rng(seed)
    slices = slice_grid(430, 310, 100, 0.25)
    objects = grid_of_objects(rng, slices, 20)
    merged = merge(objects, slices, noise=0.04, least=0.1, seed=seed)
    assert_same_boxes(merged, objects, abs=8)


def test_objects_in_front_of_a_large_one_are_kept():
    """By the intersection over the smaller area alone, both would be parts of the large one."""
    objects = [(10, 10, 170, 90), (84, 40, 96, 52), (30, 40, 45, 55)]
    assert_same_boxes(merge(objects), objects)


def test_neighbors_that_a_border_cuts_stay_two():
    above, below = (60, 20, 130, 40), (60, 41, 130, 61)
    assert_same_boxes(merge([above, below]), [above, below])
    left, right = (40, 20, 90, 40), (88, 20, 140, 40)
    assert_same_boxes(merge([left, right]), [left, right])


def test_classes_are_not_merged():
    merged = merge([(60, 20, 130, 40)] * 2, labels=[0, 1])
    assert len(merged) == 2 and sorted(merged.labels.tolist()) == [0, 1]


def test_detections_of_one_slice_are_never_merged():
    """Soft-NMS keeps boxes that overlap much. Both slices show both objects."""
    objects = [(82, 20, 96, 40), (84, 20, 98, 40)]
    assert_same_boxes(merge(objects), objects)
    boxes = np.array([objects[0], objects[1]])
    merged = merge_slices(boxes, np.array([0.9, 0.8]), np.zeros(2), np.zeros(2, int), SLICES)
    assert_same_boxes(merged, objects)


def test_of_duplicates_the_best_box_stays():
    boxes = np.array([[82, 20, 96, 40], [83, 20, 97, 41]])
    merged = merge_slices(boxes, np.array([0.6, 0.8]), np.zeros(2), np.array([0, 1]), SLICES)
    assert merged.boxes.tolist() == [[83, 20, 97, 41]] and merged.scores.tolist() == [0.8]


def test_a_wrong_part_does_not_lose_the_object():
    """The left slice has a false detection at the border, with nothing on the other side."""
    boxes = np.array([[90, 60, 100, 70], [82, 20, 96, 40]])
    merged = merge_slices(boxes, np.array([0.6, 0.8]), np.zeros(2), np.array([0, 1]), SLICES)
    assert_same_boxes(merged, boxes)


def test_two_parts_of_a_bent_object_in_one_slice_become_one():
    """A U that lies on its side: the right slice shows its two arms, the left one all of it."""
    boxes = np.array([[30, 10, 99, 80], [80, 10, 99, 25], [80, 65, 99, 80]])
    merged = merge_slices(
        boxes, np.array([0.9, 0.7, 0.6]), np.zeros(3), np.array([0, 1, 1]), SLICES
    )
    assert merged.boxes.tolist() == [[30, 10, 99, 80]] and merged.group.tolist() == [0, 0, 0]


def test_every_detection_is_in_exactly_one_result():
    """Of random boxes in random slices: results are sorted, and inside of what was given."""
    rng = np.random.default_rng(0)
    slices = slice_grid(300, 300, 100, 0.3)
    of_slice = rng.integers(0, len(slices), 200)
    corners = rng.uniform(0, 90, (200, 2)) + slices[of_slice, :2]
    boxes = np.concatenate([corners, corners + rng.uniform(2, 60, (200, 2))], 1)
    boxes = np.minimum(boxes, np.tile(slices[of_slice, 2:], 2))
    scores, labels = rng.random(200), rng.integers(0, 3, 200)
    merged = merge_slices(boxes, scores, labels, of_slice, slices)
    assert 20 < len(merged) < 200 and (np.diff(merged.scores) <= 0).all()
    for k in range(len(merged)):
        of_k = merged.group == k
        assert of_k.any() and set(labels[of_k]) == {merged.labels[k]}
        assert merged.scores[k] == scores[of_k].max()
        assert (merged.boxes[k, :2] >= boxes[of_k, :2].min(0)).all()
        assert (merged.boxes[k, 2:] <= boxes[of_k, 2:].max(0)).all()
    shuffled = rng.permutation(200)
    again = merge_slices(
        boxes[shuffled], scores[shuffled], labels[shuffled], of_slice[shuffled], slices
    )
    assert again.boxes.tolist() == merged.boxes.tolist(), "the order must not matter"


def test_nothing_and_one_slice():
    empty = merge_slices(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros(0, int), SLICES)
    assert len(empty) == 0 and empty.boxes.shape == (0, 4) and empty.group.shape == (0,)
    one = slice_grid(50, 50, 100, 0.2)
    boxes = np.array([[1.0, 1, 9, 9], [2, 1, 9, 9]])
    merged = merge_slices(boxes, np.array([0.2, 0.3]), np.array([1, 1]), np.zeros(2, int), one)
    assert merged.boxes.tolist() == boxes[::-1].tolist() and merged.group.tolist() == [1, 0]
