"""RetinaNet with the Balanced L1 loss and Soft-NMS."""

from typing import Any, Dict, List, Optional, Tuple

import torch
from detectron2.config import configurable
from detectron2.layers import batched_nms
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.structures import Boxes, Instances

from ..config.choices import BOX_REG_LOSS_TYPES
from .losses import balanced_l1_loss, balanced_l1_settings, checked_balanced_l1
from .soft_nms import checked_nms, nms_settings, soft_nms_instances


@META_ARCH_REGISTRY.register()
class LibraRetinaNet(RetinaNet):
    """
    RetinaNet that extends Detectron2's by the `box_reg_loss_type` "balanced_l1", by Soft-NMS, and
    by clipping boxes before NMS, as mmdetection does.
    """

    @configurable
    def __init__(
        self,
        *,
        box_reg_loss_type: str = "balanced_l1",
        balanced_l1: Optional[Dict[str, Any]] = None,
        clip_before_nms: bool = False,
        nms: Optional[Dict[str, Any]] = None,
        **kwargs,
    ):
        """
        Args:
            balanced_l1: keyword arguments of :func:`balanced_l1_loss`, used if
                `box_reg_loss_type` is "balanced_l1". `beta` is 0.11 by default.
            clip_before_nms: whether to clip boxes to the image before NMS rather than after it.
                This matters for near duplicates that extend beyond the image.
            nms: `type`, which is "hard" (the default) or a `method` of
                :func:`batched_soft_nms`, and its `sigma` and `min_score`. Its `iou_thresh` is
                `test_nms_thresh`.
            Others: see :class:`RetinaNet`.
        """
        if box_reg_loss_type not in BOX_REG_LOSS_TYPES:
            raise ValueError(
                f"MODEL.RETINANET.BBOX_REG_LOSS_TYPE must be one of {BOX_REG_LOSS_TYPES}, got "
                f"{box_reg_loss_type!r}"
            )
        balanced = box_reg_loss_type == "balanced_l1"
        super().__init__(box_reg_loss_type="smooth_l1" if balanced else box_reg_loss_type, **kwargs)
        self.clip_before_nms = clip_before_nms
        self.nms_type, self.nms_sigma, self.nms_min_score = checked_nms(**(nms or {}))
        self.balanced_l1: Optional[Dict[str, Any]] = None
        if balanced:
            self.balanced_l1 = checked_balanced_l1(**{"beta": 0.11, **(balanced_l1 or {})})

    @classmethod
    def from_config(cls, cfg) -> Dict:
        ret = super().from_config(cfg)
        node = cfg.MODEL.RETINANET
        ret.update(
            balanced_l1=balanced_l1_settings(node.BALANCED_L1),
            clip_before_nms=node.CLIP_BEFORE_NMS,
            nms=nms_settings(cfg),
        )
        return ret

    def losses(
        self,
        anchors: List[Boxes],
        pred_logits: List[torch.Tensor],
        gt_labels: List[torch.Tensor],
        pred_anchor_deltas: List[torch.Tensor],
        gt_boxes: List[torch.Tensor],
    ) -> Dict[str, torch.Tensor]:
        """
        Like Detectron2's method, compute the classification and regression losses, divided by a
        running mean of the number of positive anchors. The regression loss may be Balanced L1.
        """
        losses = super().losses(anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes)
        if self.balanced_l1 is None:
            return losses
        # Detectron2's regression loss is discarded. It is cheap, because it uses only positives.
        labels = torch.stack(gt_labels)
        # Indices, because each use of a mask waits for the device to count the positives.
        positive = ((labels >= 0) & (labels != self.num_classes)).nonzero(as_tuple=True)
        anchor_boxes = Boxes.cat(anchors).tensor
        targets = self.box2box_transform.get_deltas(
            anchor_boxes.expand(len(gt_boxes), -1, -1)[positive], torch.stack(gt_boxes)[positive]
        )
        deltas = torch.cat(pred_anchor_deltas, dim=1)[positive]
        loss = balanced_l1_loss(deltas, targets, reduction="sum", **self.balanced_l1)
        losses["loss_box_reg"] = loss / self.loss_normalizer
        return losses

    def inference_single_image(
        self,
        anchors: List[Boxes],
        box_cls: List[torch.Tensor],
        box_delta: List[torch.Tensor],
        image_size: Tuple[int, int],
    ) -> Instances:
        """
        Like Detectron2's method, decode the predictions and apply NMS, but the NMS and the order of
        clipping are configurable. No super() here, because TorchScript does not support it.
        """
        pred = self._decode_multi_level_predictions(
            anchors,
            box_cls,
            box_delta,
            self.test_score_thresh,
            self.test_topk_candidates,
            image_size,
        )
        if self.clip_before_nms:
            pred.pred_boxes.clip(image_size)
        if self.nms_type != "hard":
            return self.soft_nms(pred)
        keep = batched_nms(
            pred.pred_boxes.tensor, pred.scores, pred.pred_classes, self.test_nms_thresh
        )
        return pred[keep[: self.max_detections_per_image]]

    @torch.jit.unused
    def soft_nms(self, pred: Instances) -> Instances:
        """Return the best `max_detections_per_image` candidates, with decayed scores."""
        return soft_nms_instances(
            pred,
            self.nms_type,
            self.test_nms_thresh,
            self.nms_sigma,
            self.nms_min_score,
            self.max_detections_per_image,
        )[0]


class LinearP6P7(LastLevelP6P7):
    """Compute P7 from P6 as mmdetection does, without Detectron2's ReLU between them."""

    def forward(self, c5: torch.Tensor) -> List[torch.Tensor]:
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]
