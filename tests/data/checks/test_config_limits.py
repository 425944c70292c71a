"""Warnings of what a config cuts off: they come for dense data, and go when they are followed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from libra_d2.data.checks.config_limits import config_limits, limits_of_coco
from libra_d2.data.checks.overlaps import overlapping_pairs
from libra_d2.data.datasets.annotation_arrays import Annotations
from libra_d2.engine import load_cfg
from libra_d2.evaluation.analysis.detector_analysis import analyze
from libra_d2.visualization.report.advice import advice

from ...support.small_analysis import small_case

MOBILENET, RETINANET = "configs/libra_mobilenet_v2.yaml", "configs/libra_retinanet_r50.yaml"


def coco(boxes, side=512, classes=None):
    """One image with these XYWH boxes."""
    classes = classes or [1] * len(boxes)
    return {
        "images": [{"id": 1, "file_name": "dense.png", "width": side, "height": side}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": k, "bbox": list(map(float, box)), "iscrowd": 0}
            for i, (box, k) in enumerate(zip(boxes, classes))
        ],
    }


def grid(number, size, side=512):
    per_row = int(np.ceil(np.sqrt(number)))
    step = side / per_row
    return [(i % per_row * step, i // per_row * step, size, size) for i in range(number)]


def limits(content, cfg, split):
    objects = Annotations.of_coco(content)
    return config_limits(objects, [i["file_name"] for i in content["images"]], cfg, split)


def follow(config, findings):
    """A config with what the findings say, as on a command line."""
    return load_cfg(config, [str(x) for f in findings for item in f.settings.items() for x in item])


@pytest.mark.parametrize(
    "config, split, checks",
    [
        (
            MOBILENET,
            "train",
            {"detections_limit", "no_anchor", "candidates_limit", "positives_limit"},
        ),
        (
            MOBILENET,
            "test",
            {"detections_limit", "no_anchor", "candidates_limit", "proposals_limit"},
        ),
        (RETINANET, "test", {"detections_limit", "candidates_limit"}),
    ],
)
def test_warnings_of_dense_data_go_when_followed(config, split, checks):
    """300 objects of 18 pixels an image, and for RetinaNet, which has 1000 candidates, 600."""
    content = coco(grid(300 if config == MOBILENET else 600, 18))
    found = limits(content, load_cfg(config), split)
    assert {f.check for f in found} == checks
    assert all(f.problem and f.settings and "dense.png" in f.line() for f in found)
    for finding in found:
        for key, value in finding.settings.items():
            assert f'{key} "{value}"' in finding.line()
    assert not [f for f in limits(content, follow(config, found), split) if f.problem]


def test_positives_follow_nine_out_of_ten_images():
    """Nineteen images of two objects and one of 300, which is only noted."""
    content = coco(grid(300, 40))
    content["images"] += [{**content["images"][0], "id": i} for i in range(2, 21)]
    content["annotations"] += [
        {**content["annotations"][0], "id": 1000 + i, "image_id": i // 2} for i in range(4, 42)
    ]
    found = [
        f
        for f in limits(content, load_cfg(MOBILENET), "train")
        if f.check == "positives_limit" and "ROI_HEADS" in f.text
    ]
    assert [(f.problem, f.count, f.settings) for f in found] == [(False, 1, {})]
    assert "nine out of ten have up to 2" in found[0].line()


def test_few_large_objects_are_left_alone():
    content = coco([(10, 10, 200, 200), (250, 250, 150, 180)])
    for config in (MOBILENET, RETINANET):
        for split in ("train", "test"):
            assert limits(content, load_cfg(config), split) == []


def test_neighbours_that_nms_takes_for_duplicates():
    """Two boxes of 200, one 50 to the right: IoU 150 / 250 = 0.6, over the threshold of 0.5."""
    content = coco([(0, 0, 200, 200), (50, 0, 200, 200), (50, 0, 200, 200)], classes=[1, 1, 2])
    (finding,) = limits(content, load_cfg(MOBILENET), "test")
    assert finding.check == "suppressed_by_nms" and finding.count == 1
    assert finding.settings == {"MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.6}
    assert limits(content, follow(MOBILENET, [finding]), "test") == []
    assert limits(content, load_cfg(MOBILENET, ["TEST.NMS.TYPE", "linear"]), "test") == []
    near = coco([(0, 0, 200, 200), (20, 0, 200, 200)])  # IoU 180 / 220 = 0.82: no threshold helps
    (finding,) = limits(near, load_cfg(MOBILENET), "test")
    assert finding.settings == {"TEST.NMS.TYPE": "gaussian"}


def test_overlapping_pairs_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 60, (150, 4))
    boxes[:, 2:] += boxes[:, :2]
    objects = Annotations(
        sizes=np.full((3, 2), 120.0),
        boxes=boxes,
        image=rng.integers(0, 3, 150),
        classes=rng.integers(0, 2, 150),
        crowd=np.zeros(150, dtype=bool),
        ids=list(range(150)),
    )
    sides = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(
        boxes[:, None, :2], boxes[:, :2]
    )
    shared = np.maximum(sides, 0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    iou = shared / (area[:, None] + area - shared)
    same = (objects.image[:, None] == objects.image) & (objects.classes[:, None] == objects.classes)
    expected = {tuple(p) for p in np.argwhere(np.triu(same & (iou > 0.3), 1)).tolist()}
    first, second, ious = overlapping_pairs(objects, 0.3)
    assert expected and {tuple(sorted(p)) for p in zip(first.tolist(), second.tolist())} == expected
    np.testing.assert_allclose(ious, iou[first, second])


def test_crowds_and_unusable_boxes_are_not_counted():
    content = coco(grid(101, 30))
    content["annotations"][0]["iscrowd"] = 1
    assert (
        limits_of_coco(content, load_cfg(MOBILENET, ["MODEL.RPN.POST_NMS_TOPK_TEST", "300"])) == []
    )
    content["annotations"][0].update(iscrowd=0, bbox=[5.0, 5.0, 0.0, 10.0])
    assert limits_of_coco(json.loads(json.dumps(content)), load_cfg(MOBILENET)) == []


def test_the_report_says_what_is_cut_off():
    """Also where nothing else stands out."""
    analysis = analyze(*small_case())
    nothing = replace(
        analysis,
        overall=replace(analysis.overall, best_threshold=None),
        classes=[],
        tide=replace(analysis.tide, errors=[]),
        best_thresholds=None,
    )
    line = limits_of_coco(coco(grid(300, 18)), load_cfg(MOBILENET), "dense")[0].line()
    assert "TEST.DETECTIONS_PER_IMAGE" in line
    assert advice(nothing) == ["Nothing stands out."]
    assert advice(replace(nothing, limits=[line])) == [line]
    assert advice(replace(analysis, limits=[line])) == [*advice(analysis), line]
