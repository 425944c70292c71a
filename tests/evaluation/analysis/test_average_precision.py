import numpy as np
import pytest

from libra_d2.evaluation.analysis.average_precision import (
    AveragePrecision,
    interpolated_ap,
    mean_or_nan,
)
from libra_d2.predictions.detection_set import DetectionSet
from libra_d2.predictions.matching import AREA_RANGES, match_detections

from ...support.pycocotools_ap import by_pycocotools
from ..random_detections import random_dataset


def average_precision(content, results, area="all"):
    data = DetectionSet.of(content, results)
    matches = match_detections(data, data.overlaps(), area_range=AREA_RANGES[area])
    return AveragePrecision(data, matches)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed, ties):
    """At every IoU threshold, class, size and number of detections, crowd regions included."""
    content, results = random_dataset(seed, num_images=40, ties=ties)
    precision, recall = by_pycocotools(content, results)
    for a, area in enumerate(("all", "small", "medium", "large")):
        ours = average_precision(content, results, area)
        theirs = precision[:, :, :, a, 2].mean(1)
        np.testing.assert_allclose(ours.ap(), np.where(theirs < 0, np.nan, theirs), atol=1e-9)
        for m, limit in enumerate((1, 10, 100)):
            theirs = np.where(recall[:, :, a, m] < 0, np.nan, recall[:, :, a, m])
            np.testing.assert_allclose(ours.recall(limit), theirs, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_copies_of_images(seed):
    content, results = random_dataset(seed, num_images=15)
    weights = np.random.default_rng(seed).integers(0, 4, 15)
    copied = {**content, "images": [], "annotations": []}
    copied_results = []
    for image, weight in zip(content["images"], weights):
        for _ in range(weight):
            new = {"image_id": len(copied["images"]) + 1}
            copied["images"].append({**image, "id": new["image_id"]})
            own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            for a in own:
                copied["annotations"].append({**a, **new, "id": len(copied["annotations"]) + 1})
            copied_results += [{**r, **new} for r in results if r["image_id"] == image["id"]]
    precision, _ = by_pycocotools(copied, copied_results)
    theirs = precision[:, :, :, 0, 2].mean(1)
    ours = average_precision(content, results).ap(weights)
    np.testing.assert_allclose(ours, np.where(theirs < 0, np.nan, theirs), atol=1e-9)


def test_by_hand():
    """Two objects; hit, false, hit: precision 1 up to recall 0.5 (51 recalls), then 2/3 (50)."""
    assert interpolated_ap(np.array([1, 2]), np.array([1, 3]), 2) == pytest.approx(
        (51 + 50 * 2 / 3) / 101
    )
    assert interpolated_ap(np.array([]), np.array([]), 2) == 0
    assert np.isnan(mean_or_nan(np.array([np.nan])))
    assert mean_or_nan(np.array([np.nan, 0.5])) == 0.5


def test_more_detections_than_count():
    """The 101st detection of an image and class is as if it were not there."""
    content, _ = random_dataset(0, num_images=1)
    box = [10.0, 10.0, 50.0, 50.0]
    content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 2500.0, "iscrowd": 0}
    ]
    false = [
        {"image_id": 1, "category_id": 1, "bbox": [200.0, 200.0, 9.0, 9.0], "score": 0.9 - i / 1e3}
        for i in range(100)
    ]
    last = {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.01}
    assert average_precision(content, [*false, last]).ap()[0, 0] == 0
    assert average_precision(content, [*false[1:], last]).ap()[0, 0] == pytest.approx(0.01)


@pytest.mark.parametrize("crowd", [0, 1])
def test_equal_overlaps(crowd):
    """Between two objects, pycocotools takes the last: from IoU 0.6 on, nothing is left for 25."""
    content, _ = random_dataset(0, num_images=1)

    def box(x):
        return {"image_id": 1, "category_id": 1, "bbox": [float(x), 0.0, 100.0, 100.0]}

    content["annotations"] = [
        {**box(x), "id": i, "area": 10000.0, "iscrowd": crowd if x == 20 else 0}
        for i, x in enumerate((0, 20), 1)
    ]
    results = [{**box(10), "score": 0.9}, {**box(25), "score": 0.8}]
    precision, _ = by_pycocotools(content, results)
    ours = average_precision(content, results).ap()[:, 0]
    np.testing.assert_allclose(ours, precision[:, :, 0, 0, 2].mean(1), atol=1e-9)
