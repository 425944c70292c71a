"""Box predictor with the Balanced L1 loss."""

from typing import Dict

import torch
from detectron2.config import configurable
from detectron2.modeling.roi_heads import FastRCNNOutputLayers

from .losses import balanced_l1_loss

BOX_REG_LOSS_TYPES = ("balanced_l1", "smooth_l1", "giou", "diou", "ciou")


class LibraFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Detectron2's box predictor, to which `box_reg_loss_type` "balanced_l1" is added."""

    @configurable
    def __init__(
        self,
        input_shape,
        *,
        balanced_l1_alpha: float = 0.5,
        balanced_l1_gamma: float = 1.5,
        balanced_l1_beta: float = 1.0,
        balanced_l1_form: str = "continuous",
        **kwargs,
    ):
        """
        Args:
            balanced_l1_alpha, balanced_l1_gamma, balanced_l1_beta, balanced_l1_form: parameters
                of :func:`balanced_l1_loss`, used if `box_reg_loss_type` is "balanced_l1".
            Others: see :class:`FastRCNNOutputLayers`.
        """
        super().__init__(input_shape, **kwargs)
        self.balanced_l1 = {
            "alpha": balanced_l1_alpha,
            "gamma": balanced_l1_gamma,
            "beta": balanced_l1_beta,
            "form": balanced_l1_form,
        }
        if self.box_reg_loss_type not in BOX_REG_LOSS_TYPES:
            raise ValueError(
                f"MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE {self.box_reg_loss_type!r} is not one of "
                f"{BOX_REG_LOSS_TYPES}"
            )
        nothing = torch.empty(0)
        balanced_l1_loss(nothing, nothing, **self.balanced_l1)  # a bad setting is refused here

    @classmethod
    def from_config(cls, cfg, input_shape) -> Dict:
        ret = super().from_config(cfg, input_shape)
        ret["loss_weight"]["loss_cls"] = cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS_WEIGHT
        node = cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1
        ret.update(
            balanced_l1_alpha=node.ALPHA,
            balanced_l1_gamma=node.GAMMA,
            balanced_l1_beta=node.BETA,
            balanced_l1_form=node.FORM,
        )
        return ret

    def box_reg_loss(
        self,
        proposal_boxes: torch.Tensor,
        gt_boxes: torch.Tensor,
        pred_deltas: torch.Tensor,
        gt_classes: torch.Tensor,
    ) -> torch.Tensor:
        """
        See upstream. The sum over foreground proposals is divided by the number of all sampled
        proposals, so that every foreground one has the same weight.
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
