import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from libra_d2.errors import UserError
from libra_d2.evaluation.coco_metrics import BACKENDS, coco_metrics

from ..support.random_coco import random_content

NAMES = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


def by_pycocotools(content, results, iou_type="bbox", limits=(1, 10, 100)):
    """As its own demo has it, without any code of this package."""
    truth = COCO()
    truth.dataset = copy.deepcopy(content)
    for annotation in truth.dataset["annotations"]:
        annotation["id"] += 1  # it takes an object of the id 0 for missed
    truth.createIndex()
    results = copy.deepcopy(results)
    if iou_type == "segm":
        for result in results:
            del result["bbox"]
    evaluation = COCOeval(truth, truth.loadRes(results), iou_type)
    evaluation.params.maxDets = list(limits)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_pycocotools(seed):
    content, results = random_content(seed, on_grid=seed % 2)
    before = copy.deepcopy((content, results))
    metrics = coco_metrics(content, results, mask_areas=True)
    assert (content, results) == before, "the caller's annotations or results have changed"
    expected = by_pycocotools(content, results)
    assert list(metrics.numbers) == NAMES
    assert list(metrics.numbers.values()) == list(expected.stats)
    assert len(set(expected.stats)) > 8  # no case that says nothing
    for k, of_class in enumerate(metrics.classes):
        precision = expected.eval["precision"][:, :, k, 0, 2]
        for name, own in (
            ("AP", precision),
            ("AP50", precision[0]),
            ("AP75", precision[5]),
        ):
            value = getattr(of_class, name)
            if k == 3:  # no objects
                assert math.isnan(value) and (own == -1).all()
            else:
                assert value == own.mean()


def test_sizes_of_boxes_are_those_of_the_boxes_whatever_area_says():
    """Tools that write an area of 0 would make every object a small one."""
    content, results = random_content(0)
    for annotation in content["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    expected = list(coco_metrics(content, results, mask_areas=True).numbers.values())
    for annotation in content["annotations"]:
        annotation["area"] = 0
    np.testing.assert_equal(list(coco_metrics(content, results).numbers.values()), expected)


def assert_equal_within(one, other, tolerance):
    pairs = [(name, one.numbers[name], other.numbers[name]) for name in one.numbers]
    for a, b in zip(one.classes, other.classes):
        pairs += [(f"{a.name} {f}", getattr(a, f), getattr(b, f)) for f in ("AP", "AP50", "AP75")]
    for name, a, b in pairs:
        assert (math.isnan(a) and math.isnan(b)) or abs(a - b) <= tolerance, name


@pytest.mark.parametrize("max_detections", [5, 100, 300])
@pytest.mark.parametrize("seed", range(10))
def test_both_backends_agree(seed, max_detections):
    masks = seed >= 8
    content, results = random_content(seed, on_grid=seed % 2, masks=masks)
    both = [
        coco_metrics(
            content,
            results,
            max_detections=max_detections,
            backend=backend,
            iou_type="segm" if masks else "bbox",
        )
        for backend in BACKENDS
    ]
    assert_equal_within(*both, 1e-9)


def test_masks_have_the_numbers_of_pycocotools():
    content, results = random_content(2, masks=True)
    metrics = coco_metrics(content, results, iou_type="segm")
    assert list(metrics.numbers.values()) == list(by_pycocotools(content, results, "segm").stats)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_and_no_objects(backend):
    content, results = random_content(0)
    nothing = coco_metrics(content, [], backend=backend, mask_areas=True)
    assert set(nothing.numbers.values()) == {0.0}
    assert [c.AP for c in nothing.classes[:3]] == [0.0] * 3 and math.isnan(nothing.classes[3].AP)
    no_objects = coco_metrics({**content, "annotations": []}, results, backend=backend)
    assert all(math.isnan(v) for v in no_objects.numbers.values())
    content = json.loads(json.dumps(no_objects.to_json(), allow_nan=False))
    assert content["AP"] is None and content["classes"][0]["AP"] is None


def dense_scene(num_objects=150):
    """One image with boxes of 10x10 in rows of 15, and each of them as a detection."""
    boxes = [[20 * (i % 15), 20 * (i // 15), 10, 10] for i in range(num_objects)]
    base = [{"image_id": "a", "category_id": "cell", "bbox": box} for box in boxes]
    content = {
        "images": [{"id": "a", "file_name": "a.jpg", "width": 400, "height": 400}],
        "categories": [{"id": "cell", "name": "cell"}],
        "annotations": [{**a, "id": f"{i}"} for i, a in enumerate(base)],
    }
    return content, [{**a, "score": 1 - i / 1000} for i, a in enumerate(base)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_dense_scene_is_capped_by_max_detections(backend):
    """
    100 of 150 objects: recall 2/3. Precision is 1 at the recalls 0, 0.01, ..., 0.66, which are 67
    of COCO's 101, and 0 beyond.
    """
    content, results = dense_scene()
    capped = coco_metrics(content, results, max_detections=100, backend=backend).numbers
    assert capped["AP"] == pytest.approx(67 / 101, abs=1e-12)
    assert capped["AR100"] == pytest.approx(2 / 3) and capped["AR10"] == pytest.approx(1 / 15)
    whole = coco_metrics(content, results, max_detections=300, backend=backend).numbers
    assert whole["AP"] == pytest.approx(1.0, abs=1e-12)  # a precision of n / (n + 2e-16)
    assert whole["AR300"] == 1.0 and "AR100" not in whole
    assert whole["APs"] == pytest.approx(1.0) and math.isnan(whole["APl"])
    few = coco_metrics(content, results, max_detections=3, backend=backend).numbers
    assert few["AR1"] == pytest.approx(1 / 150) and few["AR3"] == pytest.approx(3 / 150)


def test_what_is_missing_in_annotations_made_by_hand():
    """No area, no iscrowd, texts for ids (above), and boxes that nothing can match."""
    content, results = dense_scene(10)
    box = {"image_id": "a", "category_id": "cell"}
    faulty = ([5, 5, 0, 3], [400, 0, 5, 5], [float("nan"), 0, 5, 5])
    content["annotations"] += [{**box, "id": f"x{i}", "bbox": b} for i, b in enumerate(faulty)]
    content["annotations"].append({**box, "id": "y", "image_id": "b", "bbox": [0, 0, 5, 5]})
    metrics = coco_metrics(content, results)
    assert metrics.numbers["AP"] == pytest.approx(1.0) and metrics.num_objects == 10
    kept = coco_metrics(content, results, drop_unusable=False)
    assert kept.num_objects == 13 and kept.numbers["AP"] < 0.9


@pytest.mark.parametrize(
    "change,words",
    [
        ({"image_id": "b"}, r"results\[0\]: image_id must be an id .*, got 'b'"),
        ({"category_id": 5}, r"results\[0\]: category_id must be an id .*, got 5"),
    ],
)
def test_results_of_other_annotations_are_refused(change, words):
    content, results = dense_scene(2)
    with pytest.raises(UserError, match=words):
        coco_metrics(content, [{**results[0], **change}])


def test_settings_are_checked():
    content, results = dense_scene(2)
    for kwargs, words in (
        ({"backend": "numpy"}, "TEST.EVAL_BACKEND must be one of .*got 'numpy'"),
        ({"iou_type": "keypoints"}, "iou_type must be one of .*got 'keypoints'"),
        ({"max_detections": 0}, "max_detections must be at least 1, got 0"),
        ({"iou_type": "segm"}, r"results\[0\] must have the keys \['segmentation'\]"),
    ):
        with pytest.raises(UserError, match=words):
            coco_metrics(content, results, **kwargs)
    masks = [{**r, "segmentation": {"size": [400, 400], "counts": "0"}} for r in results]
    with pytest.raises(UserError, match="2 of 2 annotations have no segmentation"):
        coco_metrics(content, masks, iou_type="segm")


def test_table_names_all_numbers_and_classes():
    content, results = random_content(1)
    table = coco_metrics(content, results).table()
    assert all(name in table for name in NAMES)
    assert all(f"class {i}" in table for i in range(4))


_SIDE = st.integers(1, 120)
_BOX = st.tuples(st.integers(0, 200), st.integers(0, 200), _SIDE, _SIDE)
_CLASS = st.integers(0, 2)
# Few scores, so that many are equal; detections may be copies of an object of their image.
_DETECTIONS = st.lists(
    st.tuples(_CLASS, st.one_of(_BOX, st.integers(0, 5)), st.sampled_from([0.1, 0.5, 0.9])),
    max_size=8,
)
_OBJECTS = st.lists(st.tuples(_CLASS, _BOX, st.booleans()), max_size=6)
_IMAGES = st.lists(
    st.tuples(_OBJECTS, _DETECTIONS, st.sampled_from([1, 1, 40])), min_size=1, max_size=4
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(images=_IMAGES, max_detections=st.sampled_from([1, 2, 10, 100, 300]))
def test_both_backends_agree_on_any_set(images, max_detections):
    """Crowds anywhere, empty images, equal scores, and up to 320 detections an image."""
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 320, "height": 320}
            for i in range(len(images))
        ],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(3)],
        "annotations": [],
    }
    results = []
    for i, (objects, detections, copies) in enumerate(images):
        for k, box, crowd in objects:
            entry = {"image_id": i, "category_id": k, "bbox": list(box), "iscrowd": int(crowd)}
            content["annotations"].append({**entry, "id": len(content["annotations"])})
        for k, box, score in detections * copies:
            if isinstance(box, int):  # that object, if there is one
                k, box, _ = objects[box] if box < len(objects) else (k, (9, 9, 9, 9), False)
            results.append({"image_id": i, "category_id": k, "bbox": list(box), "score": score})
    both = [
        coco_metrics(content, results, max_detections=max_detections, backend=backend)
        for backend in BACKENDS
    ]
    assert_equal_within(*both, 1e-9)
    assert len(both[0].numbers) == len(both[1].numbers) and both[0].num_detections == len(results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_classes_in_parts_have_the_same_numbers(backend, monkeypatch):
    """Of thousands of classes, the backends get a part at a time, as they need a MB for each."""
    content, results = random_content(3)
    whole = coco_metrics(content, results, backend=backend)
    monkeypatch.setattr("libra_d2.evaluation.coco_metrics.CLASSES_AT_ONCE", 3)
    assert_equal_within(coco_metrics(content, results, backend=backend), whole, 1e-12)
    monkeypatch.setattr("libra_d2.evaluation.coco_metrics.SHOWN_CLASSES", 2)
    table = whole.table()
    shown = [c.name for c in whole.classes if f"| {c.name} " in table]
    few = sorted((c.num_objects for c in whole.classes), reverse=True)[:2]
    assert sorted((c.num_objects for c in whole.classes if c.name in shown), reverse=True) == few
    assert "2 of 4 classes with the most objects" in table
