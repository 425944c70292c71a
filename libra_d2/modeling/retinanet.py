"""RetinaNet with the Balanced L1 loss and Soft-NMS."""

from typing import Any, Dict, List, Optional, Tuple

import torch
from detectron2.config import configurable
from detectron2.layers import batched_nms
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.structures import Boxes, Instances

from .losses import balanced_l1_loss
from .soft_nms import check_nms, soft_nms_instances

BOX_REG_LOSS_TYPES = ("balanced_l1", "smooth_l1", "giou", "diou", "ciou")


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
        balanced_l1_alpha: float = 0.5,
        balanced_l1_gamma: float = 1.5,
        balanced_l1_beta: float = 0.11,
        balanced_l1_form: str = "continuous",
        clip_before_nms: bool = False,
        nms_type: str = "hard",
        nms_sigma: float = 0.5,
        nms_min_score: float = 0.001,
        **kwargs,
    ):
        """
        Args:
            balanced_l1_alpha, balanced_l1_gamma, balanced_l1_beta, balanced_l1_form: parameters
                of :func:`balanced_l1_loss`, used if `box_reg_loss_type` is "balanced_l1".
            clip_before_nms: whether to clip boxes to the image before NMS rather than after it.
                This matters for near duplicates that extend beyond the image.
            nms_type: "hard", or the `method` of :func:`batched_soft_nms`, whose `iou_thresh` is
                `test_nms_thresh`.
            nms_sigma, nms_min_score: `sigma` and `min_score` of :func:`batched_soft_nms`.
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
        check_nms(nms_type, nms_sigma, nms_min_score)
        self.nms_type = nms_type
        self.nms_sigma = nms_sigma
        self.nms_min_score = nms_min_score
        self.balanced_l1: Optional[Dict[str, Any]] = None
        if balanced:
            self.balanced_l1 = {
                "alpha": balanced_l1_alpha,
                "gamma": balanced_l1_gamma,
                "beta": balanced_l1_beta,
                "form": balanced_l1_form,
            }
            # Report a bad setting now rather than in the first step.
            empty = torch.empty(0, device="cpu")
            balanced_l1_loss(empty, empty, **self.balanced_l1)

    @classmethod
    def from_config(cls, cfg) -> Dict:
        ret = super().from_config(cfg)
        node = cfg.MODEL.RETINANET
        ret.update(
            balanced_l1_alpha=node.BALANCED_L1.ALPHA,
            balanced_l1_gamma=node.BALANCED_L1.GAMMA,
            balanced_l1_beta=node.BALANCED_L1.BETA,
            balanced_l1_form=node.BALANCED_L1.FORM,
            clip_before_nms=node.CLIP_BEFORE_NMS,
            nms_type=cfg.TEST.NMS.TYPE,
            nms_sigma=cfg.TEST.NMS.SIGMA,
            nms_min_score=cfg.TEST.NMS.MIN_SCORE,
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
        positive = (labels >= 0) & (labels != self.num_classes)
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
