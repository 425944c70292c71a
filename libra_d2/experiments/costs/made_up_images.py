"""Made-up images and objects, so that the cost of a config can be measured without data."""

from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks

from ...data.transforms import FixedSize

Shape = Tuple[int, int]  # height and width in pixels

ORIGINAL: Shape = (480, 640)  # the most common shape of COCO's images


def image_shape(cfg: CfgNode, *, is_train: bool) -> Shape:
    """
    Return the height and width to which the config resizes an image of 480x640 pixels. Of several
    sizes for training, the largest one is used. Other augmentations are left out.
    """
    node = cfg.INPUT
    height, width = ORIGINAL
    if any(node.FIXED_SIZE):
        fixed = FixedSize(node.FIXED_SIZE, node.KEEP_RATIO)
        transform = fixed.get_transform(np.empty((height, width, 0)))
        return transform.new_h, transform.new_w
    shorter = max(node.MIN_SIZE_TRAIN) if is_train else node.MIN_SIZE_TEST
    longest = node.MAX_SIZE_TRAIN if is_train else node.MAX_SIZE_TEST
    if shorter == 0:
        return ORIGINAL
    return T.ResizeShortestEdge.get_output_shape(height, width, shorter, longest)


def made_up_batch(
    cfg: CfgNode, num_images: int, shape: Shape, num_objects: int
) -> List[Dict[str, Any]]:
    """
    Make inputs of a model from noise, always the same for the same arguments.

    Args:
        cfg: decides which annotations there are besides boxes: masks, keypoints, semantic classes,
            and proposals of a detector without RPN.
        num_objects: number of objects in each image, >= 0.

    Returns:
        For each image, what Detectron2's `DatasetMapper` returns for training.
    """
    g = torch.Generator().manual_seed(0)
    height, width = shape
    batch = []
    for i in range(num_images):
        image = torch.randint(0, 256, (3, height, width), generator=g, dtype=torch.uint8)
        record = {"image": image, "height": height, "width": width, "image_id": i}
        record["instances"] = _objects(cfg, num_objects, shape, g)
        if cfg.MODEL.LOAD_PROPOSALS:
            record["proposals"] = _proposals(cfg, shape, g)
        if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN":
            record["sem_seg"] = torch.zeros(shape, dtype=torch.long)
        batch.append(record)
    return batch


def _objects(cfg: CfgNode, number: int, shape: Shape, g: torch.Generator) -> Instances:
    target = Instances(shape)
    boxes = _boxes(number, shape, g)
    classes = min(cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CLASSES)
    target.gt_boxes = Boxes(boxes)
    target.gt_classes = torch.randint(0, classes, (number,), generator=g)
    if cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon":
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().numpy()
        target.gt_masks = PolygonMasks([[polygon] for polygon in corners])
    elif cfg.MODEL.MASK_ON:
        target.gt_masks = BitMasks(_filled(boxes, shape))
    if cfg.MODEL.KEYPOINT_ON:
        points = torch.rand(number, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, 2, generator=g)
        points = boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])
        visible = torch.full_like(points[..., :1], 2)
        target.gt_keypoints = Keypoints(torch.cat([points, visible], -1))
    return target


def _boxes(number: int, shape: Shape, g: torch.Generator) -> torch.Tensor:
    """(number, 4), XYXY: sides of a tenth to a third of those of the image."""
    sides = torch.tensor([shape[1], shape[0]])
    size = (0.1 + torch.rand(number, 2, generator=g) * 0.23) * sides
    corner = torch.rand(number, 2, generator=g) * (sides - size)
    return torch.cat([corner, corner + size], 1)


def _filled(boxes: torch.Tensor, shape: Shape) -> torch.Tensor:
    """(N, 4) -> (N, H, W): whether a pixel is in the box."""
    masks = torch.zeros(len(boxes), *shape, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist()):
        mask[top:bottom, left:right] = True
    return masks


def _proposals(cfg: CfgNode, shape: Shape, g: torch.Generator) -> Instances:
    number = cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
    proposals = Instances(shape)
    proposals.proposal_boxes = Boxes(_boxes(number, shape, g))
    proposals.objectness_logits = torch.linspace(3, -3, number)
    return proposals
