from dataclasses import replace

import numpy as np
import pytest

from libra_d2.errors import UserError
from libra_d2.evaluation.analysis.detector_analysis import analyze
from libra_d2.evaluation.analysis.result_json import to_json
from libra_d2.evaluation.analysis.results import (
    CalibrationBin,
    ConfusionMatrix,
    CurvePoints,
    ListedObject,
)

from ...support.pycocotools_ap import by_pycocotools
from ...support.small_analysis import CAT, DOG, dataset, small_case
from ..random_detections import random_dataset


def test_counts_by_hand():
    a = analyze(*small_case(), score_threshold=0.5)
    expected = {"num_images": 4, "num_objects": 3, "num_detections": 4, "tp": 1, "fp": 2, "fn": 2}
    third = pytest.approx(1 / 3, abs=1e-6)
    expected.update(precision=third, recall=third, f1=third, best_threshold=0.9, best_f1=0.5)
    assert vars(a.overall) == expected
    cat, dog = a.classes
    assert (cat.name, cat.category_id, cat.AP, cat.AP50) == ("cat", 7, 1, 1)
    assert (cat.tp, cat.fp, cat.fn, cat.num_detections) == (1, 2, 0, 4)
    best = ("best_threshold", "best_f1", "best_precision", "best_recall")
    assert [getattr(cat, k) for k in best] == [0.9, 1, 1, 1]
    assert (dog.AP, dog.tp, dog.fp, dog.fn) == (0, 0, 0, 2)
    assert dog.precision is None, "of no detections"
    assert [getattr(dog, k) for k in best] == [None, 0, None, None]
    assert a.coco.AP == 0.5
    assert a.confusion == ConfusionMatrix(
        names=["cat", "dog", "background"], matrix=[[1, 0, 0], [1, 0, 1], [1, 0, 0]]
    )


def test_curves_by_hand():
    a = analyze(*small_case(), score_threshold=0.5)
    assert a.curves[""] == CurvePoints(
        score=[0.9, 0.8, 0.6],
        precision=[1, 0.5, 0.333333],
        recall=[0.333333] * 3,
        f1=[0.5, 0.4, 0.333333],
    )
    assert a.curves["dog"] == CurvePoints([], [], [], [])
    histogram = a.score_histogram
    assert len(histogram.edges) == 21
    assert np.flatnonzero(histogram.classes[""].hits).tolist() == [18]
    assert np.flatnonzero(histogram.classes[""].misses).tolist() == [12, 16]
    bins = a.calibration.bins
    assert [b.count for b in bins] == [0, 0, 0, 0, 0, 0, 1, 0, 1, 1]
    assert bins[9] == CalibrationBin(low=0.9, high=1, count=1, mean_score=0.9, precision=1)
    assert bins[0].precision is None
    assert a.calibration.ece == pytest.approx((0.1 + 0.8 + 0.6) / 3, abs=1e-6)


def test_images_by_hand():
    a = analyze(*small_case(), score_threshold=0.5)
    rows = [(i.image_id, i.verdict, i.badness) for i in a.images]
    assert rows == [
        (1, "noisy and missing", 2.4),  # 0.8 + 0.6, and a dog
        (2, "missing", 1),
        (3, "right", 0),
        (4, "right", 0),
    ]
    first = a.images[0]
    assert first.objects == [
        ListedObject(CAT, class_name="cat", found_score=0.9, crowd=False),
        ListedObject(DOG, class_name="dog", found_score=None, crowd=False),
    ]
    assert [(d.kind, d.score, d.iou) for d in first.detections] == [
        ("hit", 0.9, 1),
        ("duplicate", 0.8, 0.9),
        ("classification", 0.6, 1),
    ]
    assert a.images[3].detections[0].kind == "ignored"
    assert a.images[3].objects[0].crowd is True
    noisy = analyze(
        *dataset([(1, 7, CAT)], [(1, 7, CAT, 0.9), (1, 7, DOG, 0.8)]), score_threshold=0
    )
    assert noisy.images[0].verdict == "noisy"


def test_crowding_by_hand():
    """Images of one object and of two: the AP of one group knows nothing of the other's."""
    groups = {g.name: g for g in analyze(*small_case()).ap_by_crowding}
    one = {"AP": 0, "AP50": 0, "num_images": 1, "num_objects": 1}  # a dog, missed
    assert vars(groups["1"]) == {"name": "1", **one}
    two = {"AP": 0.5, "AP50": 0.5, "num_images": 1, "num_objects": 2}
    assert vars(groups["2-4"]) == {"name": "2-4", **two}
    assert groups["20+"].AP is None and groups["20+"].num_images == 0


def test_default_threshold_is_that_of_the_best_f1():
    a = analyze(*small_case())
    assert a.settings.score_threshold == 0.9
    assert (a.overall.tp, a.overall.fp) == (1, 0)
    content, results = random_dataset(0)
    a = analyze(content, results)
    assert a.overall.f1 == pytest.approx(a.overall.best_f1, abs=1e-6)
    assert a.overall.best_f1 == max(a.curves[""].f1)


@pytest.mark.parametrize("seed", range(2))
def test_coco_numbers_are_those_of_pycocotools(seed):
    content, results = random_dataset(seed)
    precision, recall = by_pycocotools(content, results)

    def mean(values):
        return pytest.approx(values[values > -1].mean(), abs=1e-6)

    coco = vars(analyze(content, results).coco)
    ap, ar = precision[:, :, :, :, 2], recall[:, :, :, 2]
    assert coco == {
        "AP": mean(ap[..., 0]),
        "AP50": mean(ap[0, ..., 0]),
        "AP75": mean(ap[5, ..., 0]),
        **{f"AP{s}": mean(ap[..., i]) for i, s in enumerate("sml", 1)},
        **{f"AR{n}": mean(recall[:, :, 0, m]) for m, n in enumerate((1, 10, 100))},
        **{f"AR{s}": mean(ar[..., i]) for i, s in enumerate("sml", 1)},
    }


@pytest.mark.parametrize("iou", [0.5, 0.62])
def test_the_parts_agree(iou):
    """What a reader adds up in one place is what another says."""
    content, results = random_dataset(3, num_images=50)
    a = analyze(content, results, iou_threshold=iou)
    overall, classes, images = a.overall, a.classes, a.images
    threshold = a.settings.score_threshold
    for key in ("tp", "fp", "fn", "num_objects"):
        assert getattr(overall, key) == sum(getattr(c, key) for c in classes), key
    for key in ("tp", "fp", "fn"):
        assert getattr(overall, key) == sum(getattr(i, key) for i in images), key
    matrix = np.array(a.confusion.matrix)
    assert matrix.diagonal()[:-1].tolist() == [c.tp for c in classes]
    assert matrix.sum(1)[:-1].tolist() == [c.num_objects for c in classes]
    assert matrix.sum(0)[:-1].tolist() == [c.tp + c.fp for c in classes]
    assert matrix[:-1, :-1].sum() > matrix.diagonal().sum(), "no class is taken for another"
    for image in images:
        strong = [d.kind for d in image.detections if d.score >= threshold]
        assert strong.count("hit") == image.tp
        assert len(strong) - strong.count("hit") - strong.count("ignored") == image.fp
        real = [o.found_score for o in image.objects if not o.crowd]
        assert sum(s is None or s < threshold for s in real) == image.fn
    histogram = a.score_histogram.classes[""]
    points = a.calibration.bins
    assert sum(histogram.hits + histogram.misses) == sum(b.count for b in points)
    if iou == 0.5:
        assert pytest.approx(a.coco.AP50) == a.tide.AP
    assert a.ap_by_iou[0].AP == a.coco.AP50
    badness = [i.badness for i in images]
    assert badness == sorted(badness, reverse=True)


ODD = {
    "no detections": dataset([(1, 7, CAT)], []),
    "no objects": dataset([], [(1, 7, CAT, 0.5)]),
    "nothing": dataset([], []),
    "only a crowd": dataset([(1, 7, CAT, {"iscrowd": 1})], [(1, 7, CAT, 0.5), (1, 7, DOG, 0.4)]),
    "equal scores": dataset([(1, 7, CAT), (1, 9, DOG)], [(1, 7, CAT, 1.0), (1, 9, CAT, 1.0)]),
    "scores of 0": dataset([(1, 7, CAT)], [(1, 7, CAT, 0.0)]),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_data_is_without_nan(case):
    a = analyze(*ODD[case])
    to_json(a)
    assert len(a.images) == 1
    assert a.classes[1].num_objects == (case == "equal scores")
    if case == "only a crowd":
        image = a.images[0]
        assert [d.kind for d in image.detections] == ["ignored", "background"]
        assert a.coco.AP is None and a.overall.recall is None
    if case == "no detections":
        assert a.coco.AP == 0 and a.settings.score_threshold == 0.5
        assert a.overall.fn == 1 and a.overall.precision is None
    if case == "scores of 0":
        assert a.overall.tp == 1


def test_text_ids_and_objects_that_nothing_can_match():
    content, results = small_case()
    content["annotations"] += [
        {"id": 90, "image_id": 3, "category_id": 7, "bbox": [5.0, 5.0, 0.0, 9.0]},
        {"id": 91, "image_id": 3, "category_id": 7, "bbox": [650.0, 5.0, 9.0, 9.0]},
        {"id": 92, "image_id": 55, "category_id": 7, "bbox": CAT},
    ]
    expected = analyze(*small_case())
    for entry in content["images"]:
        entry["id"] = f"no. {entry['id']}"
    for entry in (*content["annotations"], *results):
        entry["image_id"] = f"no. {entry['image_id']}"
    got = analyze(content, results)
    images = [replace(i, image_id=f"no. {i.image_id}") for i in expected.images]
    assert got == replace(expected, images=images)


def test_max_detections():
    a = analyze(*small_case(), score_threshold=0.5, max_detections=1)
    assert (a.overall.tp, a.overall.fp) == (1, 0)
    assert a.settings.max_detections == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iou_threshold": 0.1}, r"IoU threshold must be in \(0.1, 1\], got 0.1"),
        ({"iou_threshold": 1.5}, r"IoU threshold must be in \(0.1, 1\], got 1.5"),
        ({"max_detections": 0}, "max_detections must be at least 1, got 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UserError, match=message):
        analyze(*small_case(), **settings)


@pytest.mark.parametrize("score", [-0.1, 1.5, float("nan")])
def test_scores_that_are_none(score):
    with pytest.raises(UserError, match=r"results\[0\]: score must be in \[0, 1\], got "):
        analyze(*dataset([(1, 7, CAT)], [(1, 7, CAT, score)]))
