"""Instances as arrays: they are selected, and masks are placed, as in Detectron2."""

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes, Instances

from libra_d2.predictions.array_instances import ArrayBoxes, ArrayInstances, paste_masks
from libra_d2.predictions.detections import Detections

BOXES = np.float32([[0, 0, 10, 10], [2.5, 3, 30, 8], [-4, 5, 6, 90]])
SCORES = np.float32([0.25, 0.75, 0.25])
CLASSES = np.array([2, 0, 1])


def ours():
    return ArrayInstances(
        (50, 40), pred_boxes=ArrayBoxes(BOXES), scores=SCORES, pred_classes=CLASSES
    )


def theirs():
    return Instances(
        (50, 40),
        pred_boxes=Boxes(torch.from_numpy(BOXES)),
        scores=torch.from_numpy(SCORES),
        pred_classes=torch.from_numpy(CLASSES),
    )


@pytest.mark.parametrize("item", [0, -1, slice(1, 3), slice(0, 0), [2, 0], [True, False, True]])
def test_the_same_are_selected(item):
    item = np.array(item) if isinstance(item, list) else item
    found = ours()[item]
    expected = theirs()[torch.from_numpy(item) if isinstance(item, np.ndarray) else item]
    assert len(found) == len(expected) and found.image_size == expected.image_size
    assert np.array_equal(found.pred_boxes.tensor, expected.pred_boxes.tensor.numpy())
    assert np.array_equal(found.scores, expected.scores.numpy())
    assert np.array_equal(found.pred_boxes.area(), expected.pred_boxes.area().numpy())


def test_fields():
    instances = ours()
    assert instances.has("scores") and not instances.has("pred_masks")
    assert set(instances.get_fields()) == {"pred_boxes", "scores", "pred_classes"}
    assert [len(one) for one in instances] == [1, 1, 1] and instances.to("cpu") is instances
    instances.names = ["a", "b", "c"]
    assert instances[1].names == ["b"]
    with pytest.raises(ValueError, match="masks must have the length 3, got 2"):
        instances.masks = [1, 2]
    with pytest.raises(AttributeError, match="no field 'pred_masks'"):
        instances.pred_masks  # noqa: B018
    with pytest.raises(IndexError):
        instances[3]


def test_detections_are_those_of_tensors_also_of_equal_scores():
    assert Detections.from_instances(ours()) == Detections.from_instances(theirs())
    none = ours()[:0]
    assert Detections.from_instances(none) == Detections(50, 40, [], [], [])


def test_masks_are_placed_as_in_detectron2():
    rng = np.random.default_rng(0)
    masks = rng.random((40, 28, 28), dtype=np.float32)
    starts = rng.uniform(-5, 60, (40, 2))
    boxes = np.concatenate([starts, starts + rng.uniform(0.5, 70, (40, 2))], 1).astype(np.float32)
    found = paste_masks(masks, boxes, (64, 80))
    expected = paste_masks_in_image(torch.from_numpy(masks), torch.from_numpy(boxes), (64, 80))
    assert found.shape == (40, 64, 80) and found.dtype == bool
    assert expected.any() and (found != expected.numpy()).mean() < 1e-5
    assert paste_masks(masks[:0], boxes[:0], (64, 80)).shape == (0, 64, 80)
