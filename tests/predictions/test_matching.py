import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from libra_d2.predictions.detection_set import box_ious
from libra_d2.predictions.matching import match


def cocoeval_match(det_boxes, scores, det_classes, gt_boxes, gt_classes, crowd, threshold):
    """The same answer from pycocotools."""
    coco, results = COCO(), COCO()
    xywh = np.concatenate([gt_boxes[:, :2], gt_boxes[:, 2:] - gt_boxes[:, :2]], 1)
    coco.dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": c} for c in range(1, 4)],
        "annotations": [
            # An area of zero lies in the range "all".
            {"id": i + 1, "image_id": 1, "category_id": int(c), "bbox": b.tolist()}
            | {"iscrowd": int(k), "area": float(b[2] * b[3])}
            for i, (b, c, k) in enumerate(zip(xywh, gt_classes, crowd))
        ],
    }
    xywh = np.concatenate([det_boxes[:, :2], det_boxes[:, 2:] - det_boxes[:, :2]], 1)
    results.dataset = {
        **coco.dataset,
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": int(c), "bbox": b.tolist()}
            | {"score": float(s), "area": float(b[2] * b[3])}
            for i, (b, c, s) in enumerate(zip(xywh, det_classes, scores))
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results.createIndex()
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.iouThrs = np.array([threshold])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.maxDets = [1000]
        evaluation.evaluate()
    matched = np.full(len(scores), -1)
    ignored = np.zeros(len(scores), dtype=bool)
    for per_class in filter(None, evaluation.evalImgs):
        index = np.array(per_class["dtIds"], dtype=int) - 1
        matched[index] = per_class["dtMatches"][0] - 1
        ignored[index] = per_class["dtIgnore"][0]
    return matched, ignored


def random_case(rng):
    """Few whole-numbered boxes and scores, so that both are often equal."""
    n, m = rng.integers(0, 14, 2)

    def boxes(count):
        corner = rng.integers(0, 5, (count, 2))
        return np.concatenate([corner, corner + rng.integers(1, 7, (count, 2))], 1).astype(float)

    det_boxes, gt_boxes = boxes(n), boxes(m)
    if m:
        copied = rng.random(n) < 0.4
        det_boxes[copied] = gt_boxes[rng.integers(0, m, copied.sum())]
    scores = rng.integers(1, 5, n) / 5
    classes = rng.integers(1, 4, n), rng.integers(1, 4, m)
    return det_boxes, scores, classes[0], gt_boxes, classes[1], rng.random(m) < 0.3


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.75, 1.0])
def test_matches_are_those_of_pycocotools(threshold):
    rng = np.random.default_rng(0)
    hits = crowds = 0
    for _ in range(250):
        case = random_case(rng)
        matched, ignored = match(*case, threshold)
        expected, expected_ignored = cocoeval_match(*case, threshold)
        assert matched.tolist() == expected.tolist(), case
        assert ignored.tolist() == expected_ignored.tolist(), case
        hits += (matched >= 0).sum() - ignored.sum()
        crowds += ignored.sum()
    assert hits > 20 and crowds > 20  # both are there to be compared


SQUARE = [0, 0, 10, 10]


def test_the_better_score_takes_the_object():
    matched, ignored = match([SQUARE, SQUARE], [0.3, 0.9], "aa", [SQUARE], "a", [False])
    assert matched.tolist() == [-1, 0] and not ignored.any()


def test_an_object_goes_before_a_crowd_region_that_fits_better():
    half = [0, 0, 10, 6]  # IoU 0.6
    matched, ignored = match([SQUARE] * 3, [0.9, 0.8, 0.7], "aaa", [SQUARE, half], "aa", [1, 0])
    assert matched.tolist() == [1, 0, 0]
    assert ignored.tolist() == [False, True, True]


def test_of_equal_overlaps_the_last_object_is_taken():
    assert match([SQUARE], [0.9], "a", [SQUARE, SQUARE], "aa", [0, 0])[0].tolist() == [1]


def test_only_objects_of_the_same_class_match():
    matched, _ = match([SQUARE], [0.9], ["猫"], [SQUARE], ["dog"], [False])
    assert matched.tolist() == [-1]


def test_nothing_detected_or_nothing_there():
    none = np.zeros((0, 4))
    assert match(none, [], [], [SQUARE], "a", [0])[0].shape == (0,)
    matched, ignored = match([SQUARE], [0.5], "a", none, [], [])
    assert matched.tolist() == [-1] and ignored.tolist() == [False]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_thresholds_out_of_range(threshold):
    with pytest.raises(ValueError, match="iou_threshold"):
        match([SQUARE], [0.5], "a", [SQUARE], "a", [0], threshold)


def test_overlap_with_a_crowd_region_is_measured_against_the_detection():
    quarter = np.array([0.0, 0.0, 5.0, 5.0])
    squares = np.array([SQUARE, SQUARE], dtype=float)
    assert box_ious(quarter, squares, np.array([False, True])).tolist() == [0.25, 1.0]


def test_boxes_without_area_overlap_nothing():
    flat = np.array([3.0, 3.0, 0.0, 5.0])
    objects = np.array([flat, SQUARE])
    assert box_ious(flat, objects, np.array([False, True])).tolist() == [0, 0]


def test_a_threshold_of_one_leaves_room_for_rounding():
    boxes = [[0, 0, 10, 10 - 1e-11], [0, 0, 10, 10 - 1e-8]]
    for box, expected in zip(boxes, (0, -1)):
        assert match([box], [0.5], "a", [SQUARE], "a", [0], 1.0)[0].tolist() == [expected]


def test_objects_of_any_size_match():
    """COCO's areas end at 1e10 squared pixels; a picture shows larger boxes, too."""
    large = [0, 0, 2e5, 2e5]
    matched, ignored = match([large, SQUARE], [0.9, 0.8], "aa", [large, SQUARE], "aa", [0, 0])
    assert matched.tolist() == [0, 1] and not ignored.any()
