"""Detectron2's test-time augmentation (TTA), for all detectors of the family."""

from contextlib import nullcontext
from typing import Any, Dict, List, Optional

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import transform_proposals
from detectron2.modeling import (
    DatasetMapperTTA,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    RetinaNet,
)
from detectron2.structures import BoxMode, Instances
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from .soft_nms import soft_nms_instances


class LibraDatasetMapperTTA(DatasetMapperTTA):
    """As upstream; and precomputed proposals are augmented along with their image."""

    def __call__(self, dataset_dict: Dict[str, Any]) -> List[Dict[str, Any]]:
        augmented = super().__call__(dataset_dict)
        if "proposals" in dataset_dict:
            proposals = dataset_dict["proposals"]
            # Upstream's transforms start from the file's size, the proposals from the input's.
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
    As upstream, and: Fast R-CNN is supported, detections are merged by the NMS of `TEST.NMS`, and
    an unreadable image is not augmented.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, batch_size: int = 3):
        """
        Args:
            model: detector, or a DistributedDataParallel of it. It is not copied.
            batch_size: number of augmented images in a forward pass.
        """
        # Not upstream's: it refuses precomputed proposals and all but GeneralizedRCNN.
        super(GeneralizedRCNNWithTTA, self).__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        # Else the end of an evaluation, which sets this mode again, changes the model's.
        self.training = self.model.training
        self.tta_mapper = LibraDatasetMapperTTA(cfg)
        self.batch_size = batch_size
        self.cfg = cfg.clone()
        self.cfg.defrost()
        node = self._head_node(cfg)
        self.nms_thresh, self.topk = node.NMS_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
        # What upstream's merge reads:
        self.cfg.MODEL.ROI_HEADS.NUM_CLASSES = node.NUM_CLASSES
        self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = self.nms_thresh
        if cfg.TEST.NMS.TYPE != "hard":  # upstream is to keep all, as no IoU is above 1
            self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = 1.0
            self.cfg.TEST.DETECTIONS_PER_IMAGE = -1

    @staticmethod
    def _head_node(cfg: CfgNode) -> CfgNode:
        return cfg.MODEL.ROI_HEADS

    def _inference_one_image(self, input: Dict[str, Any]) -> Dict[str, Instances]:
        if input.get("unreadable"):
            return self.model([input])[0]
        return super()._inference_one_image(input)

    def _merge_detections(self, all_boxes, all_scores, all_classes, shape_hw) -> Instances:
        merged = super()._merge_detections(all_boxes, all_scores, all_classes, shape_hw)
        node = self.cfg.TEST.NMS
        if node.TYPE == "hard":
            return merged
        return soft_nms_instances(
            merged, node.TYPE, self.nms_thresh, node.SIGMA, node.MIN_SCORE, self.topk
        )[0]


class DenseDetectorWithTTA(RCNNWithTTA):
    """For RetinaNet."""

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
        # Without "height" and "width", boxes come in pixels of the input.
        inputs = [{"image": x["image"]} for x in batched_inputs]
        outputs = []
        for i in range(0, len(inputs), self.batch_size):
            outputs.extend(self.model(inputs[i : i + self.batch_size]))
        return [x["instances"] for x in outputs]


def build_tta(cfg: CfgNode, model: nn.Module) -> RCNNWithTTA:
    """
    Wrap a detector so that it sees each image in several sizes, and flipped, as set by
    `TEST.AUG.{MIN_SIZES, MAX_SIZE, FLIP}`.

    Args:
        model: built from `cfg`; a GeneralizedRCNN or a RetinaNet.

    Returns:
        A callable with the inputs and outputs of the detector in evaluation. Inputs need "height"
        and "width" (pixels of the file); boxes and masks are returned in these pixels.

    Raises:
        UserError: (a ValueError) the model is another or predicts keypoints, or no sizes are set.
    """
    if cfg.MODEL.KEYPOINT_ON:
        raise UserError(
            "TEST.AUG.ENABLED True does not go with MODEL.KEYPOINT_ON True: keypoints cannot be "
            "merged. Set one of them to False"
        )
    if len(cfg.TEST.AUG.MIN_SIZES) == 0:
        raise UserError(
            f"TEST.AUG.MIN_SIZES {cfg.TEST.AUG.MIN_SIZES!r} is empty: name at least one length of "
            "the shorter side, in pixels"
        )
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    for kind, wrapper in ((GeneralizedRCNN, RCNNWithTTA), (RetinaNet, DenseDetectorWithTTA)):
        if isinstance(inner, kind):
            return wrapper(cfg, model)
    raise UserError(
        "TEST.AUG.ENABLED True does not go with MODEL.META_ARCHITECTURE "
        f"{cfg.MODEL.META_ARCHITECTURE!r}, which is neither a GeneralizedRCNN nor a RetinaNet"
    )
