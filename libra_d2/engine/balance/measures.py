"""
Measures of how balanced a training step is: pure functions that turn tensors into numbers.

Shapes:
    N: number of proposals
    M: number of objects
    K: number of box coordinates of the positives, four for each of them
"""

import math
from typing import Dict, List, Sequence, Tuple

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou

# According to the paper, most hard negatives have at least this IoU, but few of a random sample do.
HARD_IOU = 0.05
NUM_IOU_BINS = 10
# Objects are counted by their number of positives: 0, 1, 2 to 3, 4 to 7, ...
POSITIVES_EDGES = (1, 2, 4, 8, 16, 32, 64)


class Matching:
    """The proposals of one image, matched to its objects."""

    def __init__(self, matcher: Matcher, gt_boxes: Boxes, proposal_boxes: Boxes):
        """
        Attributes:
            negative_ious: (B,) IoU of each negative with its best object; 0 without objects.
            per_object: (M,) number of positives of each object.
        """
        ious = pairwise_iou(gt_boxes, proposal_boxes)
        matched_idxs, labels = matcher(ious)
        num_objects = len(gt_boxes)
        max_ious = ious.amax(0) if num_objects else ious.new_zeros(ious.shape[1])
        self.negative_ious = max_ious[labels == 0]
        positives = matched_idxs[labels == 1] if num_objects else matched_idxs[:0]
        self.per_object = torch.bincount(positives, minlength=num_objects)


def negatives(ious: torch.Tensor, end: float) -> Dict:
    """
    Measure how the negatives are distributed over the IoUs.

    Args:
        ious: (B,) IoU of each negative with its best object.
        end: IoU at which the foreground begins.

    Returns:
        `counts` in `NUM_IOU_BINS` equal bins of [0, end), their `edges`, and `hard`, the share in
        [0, 1] of negatives with an IoU of at least `HARD_IOU`; NaN if there are no negatives.
    """
    bins = (ious * (NUM_IOU_BINS / end)).long().clamp(max=NUM_IOU_BINS - 1)
    counts = torch.bincount(bins, minlength=NUM_IOU_BINS)
    on_host, (hard,) = _read(counts, [(ious >= HARD_IOU).float().mean()])
    return {
        "edges": [i * end / NUM_IOU_BINS for i in range(NUM_IOU_BINS + 1)],
        "counts": on_host,
        "hard": hard,
    }


def positives(per_object: Sequence[torch.Tensor]) -> Dict:
    """
    Measure how evenly the objects of an image share the positives.

    Args:
        per_object: for each image (at least one), (M,) number of positives of each of its objects.

    Returns:
        `counts`: number of objects by their number of positives, in the bins of `POSITIVES_EDGES`.
        `mean`: mean number of positives per object; NaN without objects.
        `unevenness`: standard deviation divided by the mean over the objects of an image, averaged
        over the images with several objects and a positive. It is 0 if all objects have the same
        number, and NaN if there are no such images.
    """
    every = torch.cat(list(per_object))
    edges = torch.tensor(POSITIVES_EDGES, device=every.device)
    bins = torch.bucketize(every, edges, right=True)
    counts = torch.bincount(bins, minlength=len(POSITIVES_EDGES) + 1)
    several = [x.float() for x in per_object if len(x) > 1]
    # NaN in images without positives.
    ratios = [x.std(correction=0) / x.mean() for x in several]
    on_host, (mean, *of_images) = _read(counts, [every.float().mean(), *ratios])
    uneven = [x for x in of_images if not math.isnan(x)]
    return {
        "counts": on_host,
        "mean": mean,
        "unevenness": sum(uneven) / len(uneven) if uneven else math.nan,
    }


def gradient(errors: torch.Tensor, gradients: torch.Tensor, beta: float) -> Dict[str, float]:
    """
    Compute which share of the box loss's gradient comes from easy coordinates, whose error is below
    `beta`.

    Args:
        errors: (K,) absolute differences of the deltas from their targets.
        gradients: (K,) absolute gradients of the loss in use, in any unit.
        beta: > 0.

    Returns:
        Shares in [0, 1] of the easy coordinates: `in_use`, in the gradient of the loss in use;
        `smooth_l1`, in the gradient that smooth L1 with this beta would have; `samples`, in the
        number of coordinates. A share of nothing is NaN.
    """
    easy = (errors < beta).nonzero().squeeze(1)
    smooth_l1 = (errors / beta).clamp(max=1)
    ones = torch.ones_like(errors)
    shares = [weights[easy].sum() / weights.sum() for weights in (gradients, smooth_l1, ones)]
    return dict(zip(("in_use", "smooth_l1", "samples"), torch.stack(shares).tolist()))


def _read(counts: torch.Tensor, numbers: List[torch.Tensor]) -> Tuple[List[int], List[float]]:
    """Copy counts (any number) and float32 scalars to the host, which waits only once."""
    together = torch.cat([counts.double(), torch.stack(numbers).double()]).tolist()
    return [int(x) for x in together[: len(counts)]], together[len(counts) :]


def level_norm(feature: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of a feature map, a float32 scalar on the same device."""
    norm = torch.linalg.vector_norm(feature, dtype=torch.float32)
    return norm / math.sqrt(max(feature.numel(), 1))


def spread(norms: List[float]) -> float:
    """Return the ratio of the strongest level to the weakest; 1 if all are equal."""
    return max(norms) / min(norms) if norms and min(norms) > 0 else math.nan
