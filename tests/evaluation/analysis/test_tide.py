import numpy as np
import pytest

from libra_d2.evaluation.analysis import average_precision
from libra_d2.evaluation.analysis.tide import error_costs, error_types
from libra_d2.predictions.detection_set import DetectionSet
from libra_d2.predictions.matching import match_detections

from ..random_detections import random_dataset

TIDECV_NAMES = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}


def types_and_costs(content, results):
    data = DetectionSet.of(content, results)
    overlaps = data.overlaps()
    matches = match_detections(data, overlaps, np.array([0.5]))
    errors = error_types(data, overlaps, matches, 0.5)
    return errors, error_costs(data, errors)


def by_tidecv(content, results):
    from tidecv import TIDE, Data

    truth, found = Data("truth"), Data("found")
    for image in content["images"]:
        truth.add_image(image["id"], image["file_name"])
    for a in content["annotations"]:
        add = truth.add_ignore_region if a["iscrowd"] else truth.add_ground_truth
        add(a["image_id"], a["category_id"], a["bbox"])
    for r in results:
        found.add_detection(r["image_id"], r["category_id"], r["score"], r["bbox"])
    tide = TIDE()
    return tide.evaluate(truth, found, mode=TIDE.BOX)


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_tidecv(seed, monkeypatch):
    """
    Without crowd regions, and with objects of every class, see docs/analysis.md. Its recalls are
    i / 100, COCO's are those of linspace: some differ in the last bit.
    """
    monkeypatch.setattr(average_precision, "RECALLS", np.arange(101) / 100)
    content, results = random_dataset(seed, num_images=60, crowd=0)
    _, ours = types_and_costs(content, results)
    run = by_tidecv(content, results)
    assert 100 * ours.ap == pytest.approx(run.ap, abs=1e-6)
    costs = {e.short_name: v for e, v in run.fix_main_errors().items()}
    counts = {e.short_name: v for e, v in run.count_errors().items()}
    assert min(counts.values()) > 0, "the data lacks a type of error"
    for short, name in TIDECV_NAMES.items():
        assert ours.counts[name] == counts[short], name
        assert 100 * ours.costs[name] == pytest.approx(costs[short], abs=1e-6), name
    special = {e.short_name: v for e, v in run.fix_special_errors().items()}
    for cost, short in zip(ours.special.values(), ("FalsePos", "FalseNeg")):
        assert 100 * cost == pytest.approx(special[short], abs=1e-6), short


def test_crowds_as_tidecv(monkeypatch):
    """It gives detections in crowd regions a type of error, too: what removes them is the same."""
    monkeypatch.setattr(average_precision, "RECALLS", np.arange(101) / 100)
    content, results = random_dataset(0, num_images=60, crowd=0.2)
    errors, ours = types_and_costs(content, results)
    assert (errors.kind == "ignored").sum() > 5
    run = by_tidecv(content, results)
    assert 100 * ours.ap == pytest.approx(run.ap, abs=1e-6)
    theirs = {**run.fix_main_errors(), **run.fix_special_errors()}
    theirs = {e.short_name: cost for e, cost in theirs.items()}
    costs = {**ours.costs, **ours.special}
    short = {**{v: k for k, v in TIDECV_NAMES.items()}, "false positives": "FalsePos"}
    for name in ("both", "duplicate", "background", "false positives"):
        assert 100 * costs[name] == pytest.approx(theirs[short[name]], abs=1e-6), name


def one_image(objects, detections):
    """Each is (class, box XYWH), detections with a score behind."""
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 1000, "height": 1000}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": k, "bbox": box, **more}
            for i, (k, box, more) in enumerate(((*o, {})[:3] for o in objects), 1)
        ],
    }, [{"image_id": 1, "category_id": k, "bbox": box, "score": s} for k, box, s in detections]


def test_each_type_by_hand():
    cat, dog = [0, 0, 100, 100], [200, 0, 100, 100]
    errors, costs = types_and_costs(
        *one_image(
            [(1, cat), (2, dog), (2, [600, 600, 50, 50]), (1, [800, 0, 100, 100], {"iscrowd": 1})],
            [
                (1, cat, 0.9),
                (1, [0, 0, 100, 90], 0.8),  # the cat once more
                (1, [0, 0, 100, 30], 0.7),  # IoU 0.3
                (1, dog, 0.6),
                (1, [200, 0, 100, 30], 0.5),  # IoU 0.3 with the dog, and no dog
                (1, [500, 0, 100, 100], 0.4),
                (1, [820, 0, 50, 50], 0.3),  # within the crowd
            ],
        )
    )
    assert errors.kind.tolist() == [
        *("hit", "duplicate", "localisation", "classification", "both", "background", "ignored")
    ]
    assert errors.best_iou.tolist() == pytest.approx([1, 0.9, 0.3, 1, 0.3, 0, 0])
    assert errors.fixes.tolist() == [-1, -1, -1, 1, -1, -1, -1]
    assert errors.missed.tolist() == [False, False, True, False]
    # cat: 1 hit of 1 object, AP 1; dog: AP 0. As a dog, the fourth finds half of the dogs.
    assert costs.ap == pytest.approx(0.5)
    gains = {**costs.costs, **costs.special}
    assert gains == {
        "classification": pytest.approx(51 / 101 / 2),
        "localisation": 0,
        "both": 0,
        "duplicate": 0,
        "background": 0,
        "missed": 0,  # the other dog still has no detection
        "false positives": 0,
        "false negatives": pytest.approx(0.5),  # of no dogs at all nothing is left to count
    }


def test_nothing():
    _, costs = types_and_costs(*one_image([], [(1, [0, 0, 10, 10], 0.5)]))
    assert np.isnan(costs.ap) and np.isnan(list(costs.costs.values())).all()
    errors, costs = types_and_costs(*one_image([(1, [0, 0, 10, 10])], []))
    assert costs.ap == 0 and errors.missed.tolist() == [True]
