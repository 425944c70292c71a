"""Box predictor with the Balanced L1 loss and Soft-NMS."""

from typing import Any, Dict, List, Optional, Tuple

import torch
from detectron2.config import configurable
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Instances

from ..config.choices import BOX_REG_LOSS_TYPES
from .losses import balanced_l1_loss, balanced_l1_settings, checked_balanced_l1
from .soft_nms import checked_nms, nms_settings, soft_nms_instances


class LibraFastRCNNOutputLayers(FastRCNNOutputLayers):
    """
    Box predictor that extends Detectron2's by the `box_reg_loss_type` "balanced_l1" and by
    Soft-NMS.
    """

    @configurable
    def __init__(
        self,
        input_shape,
        *,
        balanced_l1: Optional[Dict[str, Any]] = None,
        nms: Optional[Dict[str, Any]] = None,
        **kwargs,
    ):
        """
        Args:
            balanced_l1: keyword arguments of :func:`balanced_l1_loss`, used if
                `box_reg_loss_type` is "balanced_l1".
            nms: `type`, which is "hard" (the default) or a `method` of
                :func:`batched_soft_nms`, and its `sigma` and `min_score`. Its `iou_thresh` is
                `test_nms_thresh`.
            Others: see :class:`FastRCNNOutputLayers`.
        """
        super().__init__(input_shape, **kwargs)
        if self.box_reg_loss_type not in BOX_REG_LOSS_TYPES:
            raise ValueError(
                f"MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE must be one of {BOX_REG_LOSS_TYPES}, got "
                f"{self.box_reg_loss_type!r}"
            )
        self.balanced_l1 = checked_balanced_l1(**(balanced_l1 or {}))
        self.nms_type, self.nms_sigma, self.nms_min_score = checked_nms(**(nms or {}))

    @classmethod
    def from_config(cls, cfg, input_shape) -> Dict:
        ret = super().from_config(cfg, input_shape)
        ret["loss_weight"]["loss_cls"] = cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS_WEIGHT
        ret["balanced_l1"] = balanced_l1_settings(cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1)
        ret["nms"] = nms_settings(cfg)
        return ret

    def box_reg_loss(
        self,
        proposal_boxes: torch.Tensor,
        gt_boxes: torch.Tensor,
        pred_deltas: torch.Tensor,
        gt_classes: torch.Tensor,
    ) -> torch.Tensor:
        """
        Compute the regression loss of the foreground proposals.

        Like Detectron2's method, divide the sum over the foreground by the number of all sampled
        proposals, so that every foreground proposal has the same weight.
        """
        if self.box_reg_loss_type != "balanced_l1":
            return super().box_reg_loss(proposal_boxes, gt_boxes, pred_deltas, gt_classes)
        box_dim = proposal_boxes.shape[1]
        foreground = (gt_classes >= 0) & (gt_classes < self.num_classes)
        fg_idxs = torch.nonzero(foreground).squeeze(1)
        if pred_deltas.shape[1] == box_dim:  # class-agnostic
            fg_deltas = pred_deltas[fg_idxs]
        else:
            fg_deltas = pred_deltas.view(-1, self.num_classes, box_dim)[
                fg_idxs, gt_classes[fg_idxs]
            ]
        fg_targets = self.box2box_transform.get_deltas(proposal_boxes[fg_idxs], gt_boxes[fg_idxs])
        loss = balanced_l1_loss(fg_deltas, fg_targets, reduction="sum", **self.balanced_l1)
        return loss / max(gt_classes.numel(), 1)

    def inference(self, predictions: Tuple[torch.Tensor, torch.Tensor], proposals: List[Instances]):
        """Like Detectron2's method, but apply the NMS that `nms_type` names."""
        boxes = self.predict_boxes(predictions, proposals)
        scores = self.predict_probs(predictions, proposals)
        image_shapes = [x.image_size for x in proposals]
        if self.nms_type != "hard":
            return self.soft_nms_inference(boxes, scores, image_shapes)
        # This repeats Detectron2's method, because TorchScript does not support super().
        return fast_rcnn_inference(
            boxes,
            scores,
            image_shapes,
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    @torch.jit.unused
    def soft_nms_inference(
        self,
        boxes: List[torch.Tensor],
        scores: List[torch.Tensor],
        image_shapes: List[Tuple[int, int]],
    ) -> Tuple[List[Instances], List[torch.Tensor]]:
        """
        Like Detectron2's `fast_rcnn_inference`, filter boxes by score and clip them, but apply
        Soft-NMS and return decayed scores.
        """
        # No IoU is above 1, so Detectron2 only filters and clips at this threshold.
        candidates, rows = fast_rcnn_inference(
            boxes, scores, image_shapes, self.test_score_thresh, 1.0, -1
        )
        kept = [
            soft_nms_instances(
                x,
                self.nms_type,
                self.test_nms_thresh,
                self.nms_sigma,
                self.nms_min_score,
                self.test_topk_per_image,
            )
            for x in candidates
        ]
        return [x for x, _ in kept], [row[keep] for row, (_, keep) in zip(rows, kept)]
