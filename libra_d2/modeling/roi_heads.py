"""ROI heads that train on a balanced sample of their proposals."""

from typing import TYPE_CHECKING, Any, Dict, List, Optional

import torch
from detectron2.config import configurable
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    FastRCNNOutputLayers,
    StandardROIHeads,
)
from detectron2.structures import Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import nn

from .fast_rcnn import LibraFastRCNNOutputLayers
from .sampling import sample_proposals

# The mixin uses methods of the ROI heads. At run time these are the next base of the class.
if TYPE_CHECKING:
    from detectron2.modeling.roi_heads import StandardROIHeads as _Head
else:
    _Head = object


class LibraSamplingMixin(_Head):
    """
    Mixin that replaces the sampling of proposals and the box predictors of Detectron2's ROI heads.

    It must come before those heads in the bases of a class.
    """

    @configurable
    def __init__(self, *, sampler: Optional[Dict[str, Any]] = None, **kwargs):
        """
        Args:
            sampler: keyword arguments of :func:`sample_proposals`.
            Others: see the ROI heads. The Balanced L1 loss needs a box predictor of class
                :class:`LibraFastRCNNOutputLayers`.
        """
        super().__init__(**kwargs)
        self.sampler = dict(sampler or {})
        # Report a bad setting now rather than in the first step.
        empty = torch.empty(0, device="cpu")
        sample_proposals(empty, empty, empty, 0, 0.0, **self.sampler)

    @classmethod
    def from_config(cls, cfg, input_shape) -> Dict:
        ret = super().from_config(cfg, input_shape)
        node = cfg.MODEL.ROI_HEADS.SAMPLER
        ret["sampler"] = {
            "positives": node.POSITIVES,
            "negatives": node.NEGATIVES,
            "floor_thresh": node.FLOOR_THRESH,
            "floor_fraction": node.FLOOR_FRACTION,
            "num_bins": node.NUM_BINS,
            "bin_range": node.BIN_RANGE,
            "neg_pos_ub": node.NEG_POS_UB,
            "num_negatives": node.NUM_NEGATIVES,
            "bg_iou_thresh": cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0],
        }
        return ret

    @classmethod
    def _init_box_head(cls, cfg, input_shape) -> Dict:
        ret = super()._init_box_head(cfg, input_shape)
        for key in ("box_predictor", "box_predictors"):
            if key in ret:
                upstream = ret[key]
                is_list = isinstance(upstream, (list, nn.ModuleList))
                libra = [_libra_predictor(cfg, p) for p in (upstream if is_list else [upstream])]
                ret[key] = libra if is_list else libra[0]
        return ret

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: List[Instances], targets: List[Instances]
    ) -> List[Instances]:
        """
        Match the proposals to the ground truth and choose those to train on.

        Like Detectron2's method, take and return the same fields and log the same scalars. It is
        overridden because it does not pass the IoUs to the sampler.
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        sampled, num_fg, num_bg = [], 0, 0
        for proposals_per_image, targets_per_image in zip(proposals, targets):
            ious = pairwise_iou(targets_per_image.gt_boxes, proposals_per_image.proposal_boxes)
            matched_idxs, matched_labels = self.proposal_matcher(ious)
            has_gt = len(targets_per_image) > 0
            max_ious = ious.amax(0) if has_gt else ious.new_zeros(ious.shape[1])
            fg_idxs, bg_idxs = sample_proposals(
                max_ious,
                matched_idxs,
                matched_labels,
                self.batch_size_per_image,
                self.positive_fraction,
                **self.sampler,
            )
            idxs = torch.cat([fg_idxs, bg_idxs])
            proposals_per_image = proposals_per_image[idxs]
            gt_classes = matched_idxs.new_full((len(idxs),), self.num_classes)
            if has_gt:
                gt_idxs = matched_idxs[idxs]
                gt_classes[: len(fg_idxs)] = targets_per_image.gt_classes[gt_idxs[: len(fg_idxs)]]
                for name, value in targets_per_image.get_fields().items():
                    if name.startswith("gt_") and name != "gt_classes":
                        proposals_per_image.set(name, value[gt_idxs])
            proposals_per_image.gt_classes = gt_classes
            sampled.append(proposals_per_image)
            num_fg += len(fg_idxs)
            num_bg += len(bg_idxs)

        storage = get_event_storage()
        storage.put_scalar("roi_head/num_fg_samples", num_fg / max(len(sampled), 1))
        storage.put_scalar("roi_head/num_bg_samples", num_bg / max(len(sampled), 1))
        return sampled


def _libra_predictor(cfg, upstream: FastRCNNOutputLayers) -> LibraFastRCNNOutputLayers:
    """Replace a predictor that Detectron2 built by one with the same weights and more losses."""
    # The random state must not change: with all parts of Libra R-CNN switched off, a seed has to
    # give Detectron2's model.
    with torch.random.fork_rng(devices=[]):
        predictor = LibraFastRCNNOutputLayers(
            cfg, upstream.cls_score.in_features, box2box_transform=upstream.box2box_transform
        )
    predictor.load_state_dict(upstream.state_dict())
    return predictor


@ROI_HEADS_REGISTRY.register()
class LibraROIHeads(LibraSamplingMixin, StandardROIHeads):
    """Standard ROI heads (boxes, masks, keypoints) with balanced sampling."""

    # TorchScript needs these declarations, but it does not read those of StandardROIHeads. To mypy,
    # `torch.jit.Final` is `typing.Final`, which needs a value.
    mask_on: torch.jit.Final[bool]  # type: ignore[misc]
    keypoint_on: torch.jit.Final[bool]  # type: ignore[misc]


@ROI_HEADS_REGISTRY.register()
class LibraCascadeROIHeads(LibraSamplingMixin, CascadeROIHeads):
    """Cascade ROI heads with balanced sampling in the first stage. Later stages do not sample."""

    def _forward_box(self, features, proposals, targets=None):
        """
        Like Detectron2's method, run all stages and average their scores, but apply the NMS of the
        last predictor. Detectron2 always applies hard NMS.
        """
        last = self.box_predictor[-1]
        if self.training or getattr(last, "nms_type", "hard") == "hard":
            return super()._forward_box(features, proposals, targets)
        features = [features[f] for f in self.box_in_features]
        image_sizes = [x.image_size for x in proposals]
        probs_per_stage, boxes = [], None
        for k, predictor in enumerate(self.box_predictor):
            if k > 0:
                proposals = self._create_proposals_from_boxes(boxes, image_sizes)
            predictions = self._run_stage(features, proposals, k)
            boxes = predictor.predict_boxes(predictions, proposals)
            probs_per_stage.append(predictor.predict_probs(predictions, proposals))
        scores = [sum(p) * (1.0 / self.num_cascade_stages) for p in zip(*probs_per_stage)]
        return last.soft_nms_inference(boxes, scores, image_sizes)[0]
