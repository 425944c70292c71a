"""
Which anchors an RPN or a RetinaNet matches to the objects of an image.

Shapes: N objects; A anchors of all levels together.
"""

from typing import List, NamedTuple, Optional, Tuple

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, pairwise_iou
from torch import nn


class AnchorMatches(NamedTuple):
    """
    Attributes:
        best_ious: (N,) IoU of each object with the anchor that fits it best, in [0, 1].
        best_anchors: (N, 4) that anchor, XYXY in pixels of the network's input. Of several, such as
            all that a tiny object lies in, it is the one with the nearest center.
        best_levels: (N,) the level that it is on, from 0 on.
        num_foreground: (N,) number of anchors that are trained as foreground for the object.
    """

    best_ious: torch.Tensor
    best_anchors: torch.Tensor
    best_levels: torch.Tensor
    num_foreground: torch.Tensor


class AnchorSettings(NamedTuple):
    """
    The part of a detector that makes and matches anchors.

    Attributes:
        generator: of Detectron2.
        matcher: labels anchors as foreground, background or neither.
        levels: names of the features that have anchors, such as "p3".
        boundary_thresh: anchors that extend beyond the image by so many pixels are left out; -1
            for none (`MODEL.RPN.BOUNDARY_THRESH`).
    """

    generator: DefaultAnchorGenerator
    matcher: Matcher
    levels: Tuple[str, ...]
    boundary_thresh: int = -1

    @classmethod
    def of(cls, model: nn.Module) -> Optional["AnchorSettings"]:
        """Those of a detector's RPN or of a RetinaNet, or None if it has no such anchors."""
        rpn = getattr(model, "proposal_generator", None)
        if isinstance(rpn, RPN) and isinstance(rpn.anchor_generator, DefaultAnchorGenerator):
            levels, boundary = tuple(rpn.in_features), rpn.anchor_boundary_thresh
            return cls(rpn.anchor_generator, rpn.anchor_matcher, levels, boundary)
        if isinstance(model, RetinaNet) and isinstance(
            model.anchor_generator, DefaultAnchorGenerator
        ):
            levels = tuple(model.head_in_features)
            return cls(model.anchor_generator, model.anchor_matcher, levels)
        return None

    @property
    def background_iou(self) -> float:
        """The IoU below which an anchor is background."""
        return self.matcher.thresholds[1]  # the first one is minus infinity

    def anchors(self, height: int, width: int) -> List[Boxes]:
        """
        The anchors of each level for a padded input of this size. A feature map covers the whole
        input: layers of stride 2 round its size up.
        """
        grids = [(-(-height // s), -(-width // s)) for s in self.generator.strides]
        return self.generator([torch.empty(1, 0, *grid) for grid in grids])

    def match(
        self, gt_boxes: Boxes, anchors: List[Boxes], image_size: Tuple[int, int]
    ) -> AnchorMatches:
        """
        Match as `RPN.label_and_sample_anchors` and `RetinaNet.label_anchors` do, without sampling.

        Args:
            gt_boxes: N boxes, XYXY in pixels of the network's input.
            anchors: see :meth:`anchors`.
            image_size: height and width of the image without padding.
        """
        every = Boxes.cat(anchors)
        level = torch.repeat_interleave(
            torch.arange(len(anchors)), torch.tensor([len(a) for a in anchors])
        )
        if not len(gt_boxes):
            none = torch.zeros(0, dtype=torch.int64)
            return AnchorMatches(torch.zeros(0), torch.zeros(0, 4), none, none)
        ious = pairwise_iou(gt_boxes, every)
        matched, labels = self.matcher(ious)
        if self.boundary_thresh >= 0:
            inside = every.inside_box(image_size, self.boundary_thresh)
            labels[~inside] = -1
            ious = torch.where(inside, ious, 0)
        best_ious = ious.amax(dim=1)
        best = torch.stack(
            [
                _nearest(every, of_object == best_iou, center)
                for of_object, best_iou, center in zip(ious, best_ious, gt_boxes.get_centers())
            ]
        )
        counts = torch.bincount(matched[labels == 1], minlength=len(gt_boxes))
        return AnchorMatches(best_ious, every.tensor[best], level[best], counts)


def _nearest(anchors: Boxes, chosen: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
    """Index of the anchor whose center is nearest to a point, of those chosen by a mask of (A,)."""
    indices = chosen.nonzero().squeeze(1)
    distances = (anchors[indices].get_centers() - center).square().sum(1)
    return indices[distances.argmin()]
