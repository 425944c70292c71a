"""Region proposal network whose sampler bounds the share of negatives."""

from typing import Dict

import torch
from detectron2.config import configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN

from .sampling import sample_proposals


@PROPOSAL_GENERATOR_REGISTRY.register()
class LibraRPN(RPN):
    """
    Detectron2's RPN, with at most `neg_pos_ub` negative anchors for each positive one (5 in the
    reference) and, if wanted, a budget of negatives that does not depend on the positives.
    """

    @configurable
    def __init__(self, *, neg_pos_ub: float = -1, num_negatives: int = -1, **kwargs):
        """
        Args:
            neg_pos_ub: at most this many negatives for each positive; -1 for no such bound.
            num_negatives: number of negatives; -1 for `batch_size_per_image` less the positives.
            Others: see :class:`RPN`.
        """
        super().__init__(**kwargs)
        self.neg_pos_ub = neg_pos_ub
        self.num_negatives = num_negatives
        self._subsample_labels(torch.empty(0, device="cpu"))  # a bad setting is refused here

    @classmethod
    def from_config(cls, cfg, input_shape) -> Dict:
        ret = super().from_config(cfg, input_shape)
        ret["neg_pos_ub"] = cfg.MODEL.RPN.SAMPLER.NEG_POS_UB
        ret["num_negatives"] = cfg.MODEL.RPN.SAMPLER.NUM_NEGATIVES
        return ret

    def _subsample_labels(self, label: torch.Tensor) -> torch.Tensor:
        pos_idxs, neg_idxs = sample_proposals(
            label,  # neither IoUs nor matches matter to a random draw
            label,
            label,
            self.batch_size_per_image,
            self.positive_fraction,
            positives="random",
            negatives="random",
            neg_pos_ub=self.neg_pos_ub,
            num_negatives=self.num_negatives,
        )
        label.fill_(-1)
        label.scatter_(0, pos_idxs, 1)
        label.scatter_(0, neg_idxs, 0)
        return label
