"""Slices cover their image, and show what they should of boxes and masks."""

import numpy as np
import pytest
from pycocotools import mask as mask_util

from libra_d2.data.slicing.geometry import (
    box_areas,
    check_slicing,
    clip_boxes,
    clip_polygon,
    crop_mask,
    polygon_area,
    polygon_bounds,
    slice_grid,
    slice_starts,
)
from libra_d2.errors import UserError


def cases(count=300):
    rng = np.random.default_rng(0)
    for _ in range(count):
        size = int(rng.integers(1, 80))
        overlap = float(rng.choice([0, 0.1, 0.2, 0.25, 0.5, 0.9, rng.uniform(0, 0.9)]))
        yield int(rng.integers(1, 400)), size, overlap


def test_slices_cover_every_pixel_and_stay_inside():
    for length, size, overlap in cases():
        starts = slice_starts(length, size, overlap)
        covered = np.zeros(length, bool)
        for start in starts:
            assert start >= 0 and (start + size <= length or starts == [0])
            covered[start : start + size] = True
        assert covered.all(), (length, size, overlap)
        assert starts == sorted(set(starts)), "a slice twice"


def test_neighbors_overlap_as_much_as_asked():
    for length, size, overlap in cases():
        if size > 1:
            steps = np.diff(slice_starts(length, size, overlap))
            assert (size - steps >= min(overlap * size, size - 1) - 1e-6).all()


def test_no_slice_is_superfluous():
    """Without one of the inner slices, the overlap would be too small: none is there for nothing"""
    for length, size, overlap in cases():
        starts = slice_starts(length, size, overlap)
        step = max(1, size - np.ceil(overlap * size - 1e-9))
        assert len(starts) == max(0, np.ceil((length - size) / step)) + 1


def test_an_object_not_larger_than_the_overlap_is_whole_in_a_slice():
    rng = np.random.default_rng(1)
    for length, size, overlap in cases():
        starts = np.array(slice_starts(length, size, overlap))
        sides = rng.uniform(0, min(overlap * size, size - 1, length), 50)
        begins, size = rng.uniform(0, length - sides), min(size, length)
        inside = (begins[:, None] >= starts) & ((begins + sides)[:, None] <= starts + size + 1e-6)
        assert inside.any(1).all(), (length, size, overlap)


def test_a_grid_has_all_combinations_row_by_row():
    grid = slice_grid(100, 70, 40, 0.25)
    assert grid[:, :2].tolist() == [[x, y] for y in (0, 30) for x in (0, 30, 60)]
    assert (grid[:, 2:] - grid[:, :2] == 40).all()


def test_an_image_that_is_smaller_than_a_slice_is_not_padded():
    assert slice_grid(30, 20, 40, 0.2).tolist() == [[0, 0, 30, 20]]
    assert slice_grid(40, 40, 40, 0.2).tolist() == [[0, 0, 40, 40]]
    assert slice_grid(60, 20, 40, 0.2).tolist() == [[0, 0, 40, 20], [20, 0, 60, 20]]


@pytest.mark.parametrize("size, overlap", [(0, 0.2), (-5, 0.2), (640, 1), (640, -0.1), (640, 0.95)])
def test_impossible_slices_are_refused(size, overlap):
    with pytest.raises(UserError, match="must be"):
        check_slicing(size, overlap)
    with pytest.raises(UserError, match="must be"):
        check_slicing(640, float("nan"))
    check_slicing(32, 0.9)


def test_boxes_are_clipped():
    boxes = np.array([[2.0, 3, 30, 40], [0, 0, 5, 5], [50, 50, 60, 60]])
    clipped = clip_boxes(boxes, np.array([10, 10, 20, 20]))
    assert clipped[0].tolist() == [10, 10, 20, 20]
    assert box_areas(clipped).tolist() == [100, 0, 0]


def star(rng):
    """A polygon that does not cross itself and is mostly not convex, in an image of 60x60."""
    count = int(rng.integers(3, 15))
    angles = (np.arange(count) + rng.uniform(0, 0.9, count)) * 2 * np.pi / count
    radii = rng.uniform(2, 28, len(angles))
    points = rng.uniform(20, 40, 2) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.round(points, 2)


def windows(rng):
    low = rng.integers(0, 40, 2)
    return [*low, *(low + rng.integers(5, 30, 2))]


def pixels(polygon, scale=8):
    rles = mask_util.frPyObjects([(np.ravel(polygon) * scale).tolist()], 60 * scale, 60 * scale)
    return mask_util.decode(rles)[..., 0]


def test_a_clipped_polygon_has_the_pixels_of_the_window():
    rng = np.random.default_rng(2)
    cut = 0
    for _ in range(60):
        polygon = star(rng)
        x0, y0, x1, y1 = window = windows(rng)
        expected = np.zeros((480, 480), np.uint8)
        expected[8 * y0 : 8 * y1, 8 * x0 : 8 * x1] = pixels(polygon)[
            8 * y0 : 8 * y1, 8 * x0 : 8 * x1
        ]
        clipped = clip_polygon(polygon.ravel(), window)
        if not clipped:
            assert expected.sum() <= 64
            continue
        cut += clipped != polygon.ravel().tolist()
        # pycocotools rounds the outlines: it may differ along them, and along the bridges.
        outline = 480 + sum(np.abs(np.diff(np.reshape(clipped, (-1, 2)), axis=0)).sum(1)) * 8
        assert (pixels(clipped) != expected).sum() < 0.5 * outline
        assert polygon_area(clipped) * 64 == pytest.approx(expected.sum(), abs=0.3 * outline)
        ys, xs = np.nonzero(expected)
        if len(xs):
            bounds = [xs.min() / 8, ys.min() / 8, (xs.max() + 1) / 8, (ys.max() + 1) / 8]
            assert polygon_bounds([clipped]) == pytest.approx(bounds, abs=1.2)
    assert cut > 30


def test_areas_of_slices_without_overlap_add_up():
    rng = np.random.default_rng(3)
    for _ in range(20):
        polygon = star(rng).ravel()
        pieces = [clip_polygon(polygon, w) for w in slice_grid(70, 70, 10, 0)]
        total = sum(polygon_area(p) for p in pieces)
        inside = clip_polygon(polygon, (0, 0, 70, 70))
        assert total == pytest.approx(polygon_area(inside), rel=1e-9)


def test_the_bounds_of_a_polygon_have_no_part_that_is_outside():
    """A U whose bottom is outside of the window: two bars, and nothing left of them."""
    u = [10, 0, 14, 0, 14, 20, 30, 20, 30, 0, 34, 0, 34, 24, 10, 24]
    bars = clip_polygon(u, (0, 5, 40, 15))
    assert polygon_area(bars) == 80 and polygon_bounds([bars]).tolist() == [10, 5, 34, 15]
    # Only the right bar is in the window. The way round outside must not become a spike.
    bar = clip_polygon(u, (20, -5, 40, 15))
    assert polygon_area(bar) == 60 and polygon_bounds([bar]).tolist() == [30, 0, 34, 15]


def test_a_polygon_outside_or_along_the_border_is_nothing():
    square = [0, 0, 10, 0, 10, 10, 0, 10]
    assert clip_polygon(square, (10, 0, 20, 10)) == []
    assert clip_polygon(square, (11, 0, 20, 10)) == []
    assert clip_polygon(square, (0, 0, 10, 10)) == square
    assert clip_polygon(square, (2, 2, 5, 6)) != [] and polygon_area([]) == 0


def test_a_mask_is_cropped():
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 8:19] = 1
    rle, area, box = crop_mask(mask, (10, 0, 25, 10))
    assert area == 5 * 9 and box.tolist() == [10, 5, 19, 10] and rle["size"] == [10, 15]
    assert isinstance(rle["counts"], str)
    assert (mask_util.decode(rle) == mask[0:10, 10:25]).all()
    _, area, box = crop_mask(mask, (0, 0, 5, 5))
    assert area == 0 and box_areas(box) == 0
