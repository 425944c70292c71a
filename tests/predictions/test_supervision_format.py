"""Detections in supervision: the same boxes, scores, classes and masks, and their names."""

import sys

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from libra_d2.errors import UserError
from libra_d2.inference.predictor import ClassNames
from libra_d2.predictions.detections import Detections
from libra_d2.predictions.supervision_format import to_supervision

supervision = pytest.importorskip("supervision")
NAMES = ["cat", "dog"]


def instances(count, masks=False):
    found = Instances((48, 64))
    found.pred_boxes = Boxes(torch.arange(4.0 * count).reshape(count, 4))
    found.scores = torch.linspace(0.9, 0.5, count)
    found.pred_classes = torch.arange(count) % 2
    found.class_names = ClassNames(NAMES[i % 2] for i in range(count))
    if masks:
        found.pred_masks = torch.arange(count)[:, None, None].expand(count, 48, 64) % 2 == 0
    return found


def same(found, expected):
    assert np.array_equal(found.xyxy, expected.xyxy) and found.xyxy.dtype == expected.xyxy.dtype
    assert np.array_equal(found.confidence, expected.confidence)
    assert np.array_equal(found.class_id, expected.class_id)


@pytest.mark.parametrize("masks", [False, True])
def test_equals_the_conversion_of_supervision(masks):
    found = instances(5, masks)
    ours = to_supervision(found)
    theirs = supervision.Detections.from_detectron2({"instances": found})
    same(ours, theirs)
    assert (ours.mask is None) == (not masks)
    assert not masks or np.array_equal(ours.mask, theirs.mask)
    assert list(ours.data["class_name"]) == list(found.class_names), "supervision's lacks names"
    assert list(ours[ours.data["class_name"] == "dog"].class_id) == [1, 1]


def test_detections_of_infer():
    found = instances(4)
    of_infer = Detections.from_instances(found).to_supervision(NAMES)
    same(of_infer, to_supervision(found))
    assert list(of_infer.data["class_name"]) == ["cat", "dog", "cat", "dog"]


@pytest.mark.parametrize("masks", [False, True])
def test_without_detections(masks):
    empty = to_supervision(instances(0, masks))
    assert len(empty) == 0 and empty.xyxy.shape == (0, 4) and len(empty.data["class_name"]) == 0
    both = supervision.Detections.merge([empty, to_supervision(instances(2, masks))])
    assert list(both.data["class_name"]) == NAMES


def test_annotators_take_them():
    image = np.zeros((48, 64, 3), np.uint8)
    found = to_supervision(instances(3))
    drawn = supervision.BoxAnnotator().annotate(image.copy(), found)
    labels = supervision.LabelAnnotator().annotate(drawn, found, list(found.data["class_name"]))
    assert labels.any()


def test_without_the_package_the_extra_is_named(monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] == "supervision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    with pytest.raises(UserError, match=r"need supervision: pip install libra_d2\[supervision\]"):
        to_supervision(instances(1))


class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "supervision":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
