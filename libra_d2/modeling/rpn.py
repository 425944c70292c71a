"""Region proposal network with a limited number of negative anchors per positive one."""

from typing import Dict

import torch
from detectron2.config import configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN

from .sampling import sample_proposals


@PROPOSAL_GENERATOR_REGISTRY.register()
class LibraRPN(RPN):
    """
    Detectron2's RPN with two more settings of its sampler: a maximum ratio of negative to positive
    anchors (5 in the paper's code), and a number of negatives that does not depend on the number
    of positives.
    """

    @configurable
    def __init__(self, *, neg_pos_ub: float = -1, num_negatives: int = -1, **kwargs):
        """
        Args:
            neg_pos_ub: maximum number of negatives per positive; -1 for no limit.
            num_negatives: number of negatives; -1 to fill up to `batch_size_per_image`.
            Others: see :class:`RPN`.
        """
        super().__init__(**kwargs)
        self.neg_pos_ub = neg_pos_ub
        self.num_negatives = num_negatives
        # Report a bad setting now rather than in the first step.
        self._subsample_labels(torch.empty(0, device="cpu"))

    @classmethod
    def from_config(cls, cfg, input_shape) -> Dict:
        ret = super().from_config(cfg, input_shape)
        ret["neg_pos_ub"] = cfg.MODEL.RPN.SAMPLER.NEG_POS_UB
        ret["num_negatives"] = cfg.MODEL.RPN.SAMPLER.NUM_NEGATIVES
        return ret

    def _subsample_labels(self, label: torch.Tensor) -> torch.Tensor:
        pos_idxs, neg_idxs = sample_proposals(
            label,  # random sampling uses neither the IoUs nor the matches
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
