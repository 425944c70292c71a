"""Detections of an image as its entry of the predictions' JSON."""

import json

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from libra_d2.predictions.detections import Detections


def instances(boxes, classes, scores, size=(48, 64)):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Instances(
        size,
        pred_boxes=Boxes(boxes),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


def test_entry_is_the_readmes():
    found = instances([[1.5, 2, 11.5, 4.25], [0, 0, 64, 48]], [1, 0], [0.25, 0.5])
    assert Detections.from_instances(found).entry(("cat", "dog"), (17, 18)) == {
        "height": 48,
        "width": 64,
        "predictions": [
            {
                "bbox": {"x_min": 0.0, "y_min": 0.0, "width": 64.0, "height": 48.0},
                "class": {"label": 0, "category_id": 17, "name": "cat"},
                "score": 0.5,
            },
            {
                "bbox": {"x_min": 1.5, "y_min": 2.0, "width": 10.0, "height": 2.25},
                "class": {"label": 1, "category_id": 18, "name": "dog"},
                "score": 0.25,
            },
        ],
    }


def test_numbers_survive_json_to_the_last_bit():
    boxes = torch.rand(50, 4) * 500
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.rand(50)
    found = instances(boxes.tolist(), [0] * 50, scores.tolist())
    entry = json.loads(json.dumps(Detections.from_instances(found).entry(["a"], [1])))
    order = scores.argsort(descending=True)
    rows = [(*p["bbox"].values(), p["score"]) for p in entry["predictions"]]
    x0, y0, width, height, read = np.array(rows).T
    assert (read.astype(np.float32) == scores[order].numpy()).all()
    # In float64 the difference of two float32 numbers of like size is exact.
    corners = np.stack([x0, y0, x0 + width, y0 + height], 1).astype(np.float32)
    assert (corners == boxes[order].numpy()).all()


def test_wanted_classes_and_none():
    found = instances([[0, 0, 1, 1]] * 3, [2, 0, 2], [0.9, 0.8, 0.7])
    of_class_2 = Detections.from_instances(found).of_classes((2,))
    assert of_class_2.scores == [float(s) for s in found.scores[[0, 2]]]
    assert of_class_2.labels == [2, 2] and len(of_class_2.boxes) == 2
    for instances_, keep in ((found, (1,)), (instances([], [], []), ())):
        nothing = Detections.from_instances(instances_).of_classes(keep)
        assert nothing.entry(["a"], [1]) == {"height": 48, "width": 64, "predictions": []}
