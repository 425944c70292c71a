"""What slices show of objects: boxes, masks, keypoints, areas and shares."""

import numpy as np
import pycocotools.mask as mask_util
import pytest

from libra_d2.data.slicing.annotations import slice_annotations
from libra_d2.data.slicing.geometry import slice_grid

SLICES = slice_grid(180, 100, 100, 0.2)  # 0 to 100, and 80 to 180


def annotation(bbox, **others):
    return {"id": 1, "image_id": 1, "category_id": 5, "bbox": list(bbox), "iscrowd": 0, **others}


def sliced(*annotations, min_visible=0.3, slices=SLICES):
    return slice_annotations(list(annotations), 180, 100, slices, min_visible)


def test_a_whole_object_is_moved_and_a_cut_one_is_clipped():
    result = sliced(annotation((70, 10, 30, 20), area=600.0, colour="red"))
    (left,), (right,) = result.kept
    assert left["bbox"] == [70, 10, 30, 20] and left["visible"] == 1 and left["area"] == 600
    assert right["bbox"] == [0, 10, 20, 20] and right["visible"] == pytest.approx(2 / 3)
    assert right["area"] == pytest.approx(400) and right["colour"] == "red"
    assert (result.whole, result.cut, result.dropped, result.lost) == ([5], [5], [], [])


def test_parts_of_which_too_little_is_visible_are_dropped():
    result = sliced(annotation((60, 10, 30, 20)), min_visible=0.34)
    assert [len(kept) for kept in result.kept] == [1, 0]
    assert result.dropped == [5] and result.lost == []
    assert len(sliced(annotation((60, 10, 30, 20)), min_visible=0.33).kept[1]) == 1


def test_an_object_of_which_no_slice_shows_enough_is_lost():
    result = sliced(annotation((0, 10, 180, 20)), min_visible=0.6)
    assert result.kept == [[], []] and result.dropped == [5, 5] and result.lost == [5]


def test_an_object_beyond_its_image_is_clipped_to_it_first():
    """Only what the image shows can be visible: all of it is in the left slice."""
    result = sliced(annotation((-40, -10, 60, 30)))
    assert result.kept[0][0]["bbox"] == [0, 0, 20, 20] and result.whole == [5]


def test_crowd_regions_stay_crowd_however_little_is_visible():
    result = sliced(annotation((10, 10, 75, 20), iscrowd=1))
    assert [part["iscrowd"] for kept in result.kept for part in kept] == [1, 1]
    assert result.crowd == [5, 5] and result.dropped == result.whole == result.lost == []
    assert result.kept[1][0]["visible"] == pytest.approx(5 / 75)


def test_polygons_are_clipped_and_give_the_box_and_the_share():
    """A triangle with its tip at x = 120: its part has a smaller box than the part of its box."""
    triangle = [60.0, 10, 60, 70, 120, 40]
    result = sliced(annotation((60, 10, 60, 60), segmentation=[triangle]), min_visible=0)
    (left,), (right,) = result.kept
    assert right["bbox"] == pytest.approx([0, 20, 40, 40])
    assert right["visible"] == pytest.approx((40 / 60) ** 2)
    assert left["visible"] == pytest.approx(1 - (20 / 60) ** 2)
    assert left["bbox"] == [60, 10, 40, 60]
    assert right["area"] == pytest.approx(800) and np.min(right["segmentation"]) == 0
    # Its tip alone is a quarter of the box's part, but less of the triangle.
    tip = sliced(annotation((60, 10, 60, 60), segmentation=[triangle]), min_visible=0.45)
    assert tip.dropped == [5]


def test_an_object_of_several_polygons_has_those_that_a_slice_shows():
    bars = [[10.0, 10, 20, 10, 20, 30, 10, 30], [110.0, 10, 120, 10, 120, 30, 110, 30]]
    (left,), (right,) = sliced(annotation((10, 10, 110, 20), segmentation=bars)).kept
    assert left["segmentation"] == [bars[0]] and left["bbox"] == [10, 10, 10, 20]
    assert right["segmentation"] == [[30, 10, 40, 10, 40, 30, 30, 30]]
    assert left["visible"] == right["visible"] == 0.5


@pytest.mark.parametrize("crowd", [0, 1])
@pytest.mark.parametrize("compressed", [False, True])
def test_masks_of_pixels_are_cut(crowd, compressed):
    mask = np.zeros((100, 180), np.uint8)
    mask[20:40, 60:120] = 1
    mask[30:40, 60:70] = 0
    rle = mask_util.encode(np.asfortranarray(mask))
    counts = rle["counts"].decode()
    if not compressed:
        runs = np.flatnonzero(np.diff(np.r_[0, mask.T.ravel(), 0])).tolist()
        counts = np.diff([0, *runs, mask.size]).tolist()
    own = annotation(
        (60, 20, 60, 20), segmentation={"size": [100, 180], "counts": counts}, iscrowd=crowd
    )
    result = sliced(own)
    for (part,), window in zip(result.kept, SLICES):
        cut = mask[:, window[0] : window[2]]
        assert (mask_util.decode(part["segmentation"]) == cut).all()
        assert part["area"] == pytest.approx(cut.sum())
        assert part["visible"] == pytest.approx(cut.sum() / mask.sum())
    assert result.kept[1][0]["bbox"] == [0, 20, 40, 20]
    assert len(result.crowd) == 2 * crowd and len(result.cut) == 2 - 2 * crowd


@pytest.mark.parametrize(
    "mask", [[[1, 2, 3]], {"size": [1, 1], "counts": "1"}, [[5, 5, 9, 9, 5, 5]], "text"]
)
def test_invalid_masks_are_left_out_and_counted(mask):
    result = sliced(annotation((10, 10, 20, 20), segmentation=mask))
    assert result.bad_masks == [1] and "segmentation" not in result.kept[0][0]
    assert sliced(annotation((10, 10, 20, 20), segmentation=[])).bad_masks == []


def test_a_mask_that_does_not_fit_its_box_does_not_replace_it():
    far = [[150.0, 80, 160, 80, 160, 90]]
    (left,), _ = sliced(annotation((10, 10, 20, 20), segmentation=far)).kept
    assert left["bbox"] == [10, 10, 20, 20] and "segmentation" not in left


def test_keypoints_outside_are_not_labeled():
    points = [85, 20, 2, 150, 30, 1, 10, 10, 0, 95, 40, 1]
    own = annotation((80, 10, 80, 40), keypoints=points, num_keypoints=3)
    (left,), (right,) = sliced(own, min_visible=0).kept
    assert left["keypoints"] == [85, 20, 2, 0, 0, 0, 0, 0, 0, 95, 40, 1]
    assert left["num_keypoints"] == 2
    assert right["keypoints"] == [5, 20, 2, 70, 30, 1, 0, 0, 0, 15, 40, 1]
    assert right["num_keypoints"] == 3


def test_boxes_of_slices_cover_random_objects():
    """Every pixel of an object is in a part, and no part reaches out of its slice or object."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        slices = slice_grid(180, 100, int(rng.integers(32, 90)), rng.uniform(0, 0.6))
        corner, sides = rng.integers(0, (150, 80)), rng.integers(1, (120, 90))
        own = annotation((*corner.tolist(), *sides.tolist()))
        covered = np.zeros((100, 180), bool)
        for kept, (x0, y0, x1, y1) in zip(
            sliced(own, min_visible=0, slices=slices).kept, slices.tolist()
        ):
            for part in kept:
                x, y, w, h = map(int, part["bbox"])
                assert min(x, y) >= 0 and x + w <= x1 - x0 and y + h <= y1 - y0
                covered[y0 + y : y0 + y + h, x0 + x : x0 + x + w] = True
        expected = np.zeros_like(covered)
        expected[corner[1] : corner[1] + sides[1], corner[0] : corner[0] + sides[0]] = True
        assert (covered == expected).all()


def test_an_image_without_objects():
    result = slice_annotations([], 180, 100, SLICES, 0.3)
    assert result.kept == [[], []] and result.whole == []
