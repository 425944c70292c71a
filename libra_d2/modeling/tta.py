"""Test-time augmentation (TTA), which extends Detectron2's to all detectors of this package."""

from contextlib import nullcontext
from typing import Any, Dict, List, Optional, Tuple

import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import transform_proposals
from detectron2.modeling import (
    DatasetMapperTTA,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    RetinaNet,
)
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import BoxMode, Instances
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from .soft_nms import soft_nms_instances


class LibraDatasetMapperTTA(DatasetMapperTTA):
    """
    Like Detectron2's mapper, return an image in several sizes and flipped. In addition, apply the
    same transforms to its precomputed proposals.
    """

    def __call__(self, dataset_dict: Dict[str, Any]) -> List[Dict[str, Any]]:
        augmented = super().__call__(dataset_dict)
        if "proposals" in dataset_dict:
            proposals = dataset_dict["proposals"]
            # Detectron2's transforms start from the size of the file, but the proposals are in
            # pixels of the model's input.
            to_file = T.ResizeTransform(
                *proposals.image_size, dataset_dict["height"], dataset_dict["width"]
            )
            boxes = to_file.apply_box(proposals.proposal_boxes.tensor.numpy())
            for x in augmented:
                x["proposal_boxes"] = boxes
                x["proposal_bbox_mode"] = BoxMode.XYXY_ABS
                x["proposal_objectness_logits"] = proposals.objectness_logits.numpy()
                transform_proposals(
                    x, tuple(x["image"].shape[1:]), x["transforms"], proposal_topk=len(proposals)
                )
        return augmented


class RCNNWithTTA(GeneralizedRCNNWithTTA):
    """
    Like Detectron2's class, detect in the augmented images and merge the detections. In addition,
    Fast R-CNN is supported, `TEST.NMS` sets the NMS that merges the detections, and an image that
    cannot be read is not augmented.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, batch_size: int = 3):
        """
        Args:
            model: the detector, or a DistributedDataParallel that wraps it. It is not copied.
            batch_size: number of augmented images per forward pass.
        """
        # Skip Detectron2's __init__, which rejects precomputed proposals and other models than
        # GeneralizedRCNN.
        super(GeneralizedRCNNWithTTA, self).__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        # An evaluation restores this mode at its end, which also sets the mode of the model.
        self.training = self.model.training
        self.tta_mapper = LibraDatasetMapperTTA(cfg)
        self.batch_size = batch_size
        self.cfg = cfg.clone()
        self.cfg.defrost()
        node = self._head_node(cfg)
        self.num_classes, self.nms_thresh = node.NUM_CLASSES, node.NMS_THRESH_TEST
        self.topk = cfg.TEST.DETECTIONS_PER_IMAGE

    @staticmethod
    def _head_node(cfg: CfgNode) -> CfgNode:
        return cfg.MODEL.ROI_HEADS

    def _inference_one_image(self, input: Dict[str, Any]) -> Dict[str, Instances]:
        if input.get("unreadable"):
            return self.model([input])[0]
        return super()._inference_one_image(input)

    def _merge_detections(
        self,
        all_boxes: torch.Tensor,
        all_scores: List[torch.Tensor],
        all_classes: List[torch.Tensor],
        shape_hw: Tuple[int, int],
    ) -> Instances:
        """
        Like Detectron2's method, apply NMS to the R detections of all augmented images. Detectron2
        waits for the device once per detection.

        Args:
            all_boxes: (R, 4), XYXY, absolute pixels.
            all_scores, all_classes: R scalars each.
            shape_hw: height and width of the image.
        """
        # Detectron2's NMS takes a score for each class, and for the background.
        scores = torch.zeros(len(all_boxes), self.num_classes + 1, device=all_boxes.device)
        if all_scores:
            rows = torch.arange(len(all_boxes), device=all_boxes.device)
            scores[rows, torch.stack(all_classes)] = torch.stack(all_scores).to(scores.dtype)
        node = self.cfg.TEST.NMS
        hard = node.TYPE == "hard"
        # No IoU is above 1, so this NMS keeps all boxes for Soft-NMS.
        nms_thresh, topk = (self.nms_thresh, self.topk) if hard else (1.0, -1)
        merged, _ = fast_rcnn_inference_single_image(
            all_boxes, scores, shape_hw, 1e-8, nms_thresh, topk
        )
        if hard:
            return merged
        return soft_nms_instances(
            merged, node.TYPE, self.nms_thresh, node.SIGMA, node.MIN_SCORE, self.topk
        )[0]


class DenseDetectorWithTTA(RCNNWithTTA):
    """Like :class:`RCNNWithTTA`, for RetinaNet."""

    def __init__(self, cfg: CfgNode, model: nn.Module, batch_size: int = 3):
        super().__init__(cfg, model, batch_size)
        self.cfg.MODEL.MASK_ON = False

    @staticmethod
    def _head_node(cfg: CfgNode) -> CfgNode:
        return cfg.MODEL.RETINANET

    def _turn_off_roi_heads(self, attrs: List[str]):
        return nullcontext()

    def _batch_inference(
        self, batched_inputs: List[Dict[str, Any]], detected_instances: Optional[List] = None
    ) -> List[Instances]:
        # Without "height" and "width", the model returns boxes in pixels of its input.
        inputs = [{"image": x["image"]} for x in batched_inputs]
        outputs = []
        for i in range(0, len(inputs), self.batch_size):
            outputs.extend(self.model(inputs[i : i + self.batch_size]))
        return [x["instances"] for x in outputs]


def build_tta(cfg: CfgNode, model: nn.Module) -> RCNNWithTTA:
    """
    Wrap a detector so that it detects in several sizes of each image, flipped or not, as set by
    `TEST.AUG.{MIN_SIZES, MAX_SIZE, FLIP}`, and merges the detections.

    Args:
        model: a GeneralizedRCNN or a RetinaNet built from `cfg`.

    Returns:
        A callable with the inputs and outputs of the detector in evaluation. Inputs must have
        "height" and "width" (in pixels of the file); boxes and masks are returned in these pixels.

    Raises:
        UserError: (a ValueError) the model is of another class or predicts keypoints, or no sizes
            are set.
    """
    if cfg.MODEL.KEYPOINT_ON:
        raise UserError(
            "TEST.AUG.ENABLED must be False if MODEL.KEYPOINT_ON is True, got True: test-time "
            "augmentation cannot merge keypoints. Set one of the two keys to False"
        )
    if len(cfg.TEST.AUG.MIN_SIZES) == 0:
        raise UserError(
            "TEST.AUG.MIN_SIZES must have at least one length of the shorter side, in pixels, got "
            f"{cfg.TEST.AUG.MIN_SIZES!r}"
        )
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    for kind, wrapper in ((GeneralizedRCNN, RCNNWithTTA), (RetinaNet, DenseDetectorWithTTA)):
        if isinstance(inner, kind):
            return wrapper(cfg, model)
    raise UserError(
        "TEST.AUG.ENABLED must be False for MODEL.META_ARCHITECTURE "
        f"{cfg.MODEL.META_ARCHITECTURE!r}, got True: test-time augmentation needs a "
        "GeneralizedRCNN or a RetinaNet"
    )
