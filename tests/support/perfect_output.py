"""What a detector without mistakes would answer."""

import torch
from detectron2.structures import Boxes, Instances


def perfect_output(record):
    instances = Instances((record["height"], record["width"]))
    boxes = torch.tensor([a["bbox"] for a in record["annotations"]]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.ones(len(boxes))
    instances.pred_classes = torch.tensor([a["category_id"] for a in record["annotations"]])
    return {"instances": instances}
