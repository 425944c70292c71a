"""
Balanced sampling of proposals, Libra R-CNN section 3.1 (https://arxiv.org/abs/1904.02701).

The functions are pure and keep all tensors on their device. The host waits for the device twice,
to read the numbers of positives and negatives, which is as often as in Detectron2's
`subsample_labels`.

Shapes:
    N: number of proposals of one image
    P, B: numbers of positives and negatives among them
"""

from functools import lru_cache
from typing import Optional, Tuple

import torch

POSITIVES = ("instance_balanced", "random")
NEGATIVES = ("iou_balanced", "random")
BIN_RANGES = ("paper", "mmdet")


def sample_proposals(
    max_ious: torch.Tensor,
    matched_idxs: torch.Tensor,
    labels: torch.Tensor,
    num_samples: int,
    positive_fraction: float,
    *,
    floor_thresh: float = -1,
    floor_fraction: float = 0.0,
    num_bins: int = 3,
    bin_range: str = "paper",
    positives: str = "instance_balanced",
    negatives: str = "iou_balanced",
    neg_pos_ub: float = -1,
    num_negatives: int = -1,
    bg_iou_thresh: float = 0.5,
    generator: Optional[torch.Generator] = None,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """
    Choose the proposals of one image that the ROI heads train on.

    The foreground has at most `int(num_samples * positive_fraction)` proposals.
    "instance_balanced" draws about the same number for each object. If an object has fewer
    proposals than its share, the rest is drawn from those of the other objects.

    The background fills up to `num_samples`. "iou_balanced" divides the range of IoUs into
    `num_bins` equal bins and draws the same number from each. If a bin has too few proposals,
    the rest is drawn from the other bins, then from the floor set, and then from the remaining
    background.

    Args:
        max_ious: (N,) IoU of each proposal with its best object; 0 in an image without objects.
        matched_idxs: (N,) index of that object.
        labels: (N,) 1 for foreground, 0 for background, -1 to ignore the proposal.
        num_samples: maximum number of proposals, foreground and background together.
        positive_fraction: maximum share of the foreground, in [0, 1].
        floor_thresh: negatives with a smaller IoU form the floor set, which is sampled separately
            from the bins. At 0, the floor set holds the negatives with IoU 0. At -1, it is empty
            and the first bin starts at 0.
        floor_fraction: share of the background reserved for the floor set, in [0, 1].
        num_bins: number of IoU bins, >= 1.
        bin_range: upper end of the last bin. "paper": `bg_iou_thresh`. "mmdet": the largest IoU
            of all proposals, as in mmdetection; a `floor_thresh` of -1 then means 0.
        positives: "instance_balanced" | "random".
        negatives: "iou_balanced" | "random".
        neg_pos_ub: maximum number of negatives per positive; -1 for no limit. An image without
            positives is treated as if it had one.
        num_negatives: maximum number of negatives, independent of the number of positives; -1 to
            fill up to `num_samples`.
        bg_iou_thresh: upper end of the IoUs of the background.
        generator: makes the result reproducible. It must be on the device of the tensors.

    Returns:
        fg_idxs, bg_idxs: 1D indices into the N proposals, without duplicates. If both modes are
        "random", they equal those of Detectron2's `subsample_labels` under the same seed.

    Raises:
        ValueError: a setting is outside its range.

    Examples:
        Four of eight proposals are drawn: two of the foreground, and two of the background, one
        from each half of the IoUs below 0.5.

        >>> max_ious = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.1, 0.0])
        >>> matched_idxs = torch.tensor([0, 0, 0, 1, 0, 1, 0, 0])
        >>> labels = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])
        >>> fg_idxs, bg_idxs = sample_proposals(
        ...     max_ious, matched_idxs, labels, num_samples=4, positive_fraction=0.5, num_bins=2
        ... )
        >>> labels[fg_idxs]
        tensor([1, 1])
        >>> (max_ious[bg_idxs] >= 0.25).sort().values
        tensor([False,  True])
    """
    _check_settings(
        floor_thresh=floor_thresh,
        floor_fraction=floor_fraction,
        num_bins=num_bins,
        bin_range=bin_range,
        positives=positives,
        negatives=negatives,
        neg_pos_ub=neg_pos_ub,
        num_negatives=num_negatives,
    )
    fg_idxs = torch.nonzero(labels == 1).squeeze(1)
    bg_idxs = torch.nonzero(labels == 0).squeeze(1)

    num_fg = min(int(num_samples * positive_fraction), fg_idxs.numel())
    num_bg = num_samples - num_fg if num_negatives < 0 else num_negatives
    if neg_pos_ub >= 0:
        num_bg = min(num_bg, int(neg_pos_ub * max(1, num_fg)))
    num_bg = min(num_bg, bg_idxs.numel())

    if positives == "random":
        fg_idxs = _choose(fg_idxs, num_fg, generator)
    elif num_fg < fg_idxs.numel():
        fg_idxs = _sample_per_object(
            fg_idxs, matched_idxs.index_select(0, fg_idxs), num_fg, generator
        )

    if negatives == "random":
        bg_idxs = _choose(bg_idxs, num_bg, generator)
    elif num_bg < bg_idxs.numel():
        if bin_range == "mmdet":
            floor_thresh = max(floor_thresh, 0)
        start = max(floor_thresh, 0)
        edges = _bin_edges(max_ious, start, num_bins, bin_range, bg_iou_thresh)
        bg_idxs = _sample_per_bin(
            bg_idxs, max_ious, num_bg, edges, floor_thresh, floor_fraction, generator
        )
    return fg_idxs, bg_idxs


@lru_cache
def _check_settings(
    *,
    floor_thresh: float,
    floor_fraction: float,
    num_bins: int,
    bin_range: str,
    positives: str,
    negatives: str,
    neg_pos_ub: float,
    num_negatives: int,
) -> None:
    """Raise a ValueError that names the bad setting, its value and what was expected."""
    choices = (
        ("positives", positives, POSITIVES),
        ("negatives", negatives, NEGATIVES),
        ("bin_range", bin_range, BIN_RANGES),
    )
    for name, choice, allowed in choices:
        if choice not in allowed:
            raise ValueError(f"sampler: {name} must be one of {allowed}, got {choice!r}")
    ranges = (
        ("num_bins", num_bins, num_bins >= 1, ">= 1"),
        ("floor_fraction", floor_fraction, 0 <= floor_fraction <= 1, "in [0, 1]"),
        (
            "floor_thresh",
            floor_thresh,
            floor_thresh == -1 or 0 <= floor_thresh < 1,
            "-1 or in [0, 1)",
        ),
        ("neg_pos_ub", neg_pos_ub, neg_pos_ub == -1 or neg_pos_ub >= 0, "-1 or >= 0"),
        ("num_negatives", num_negatives, num_negatives >= -1, "-1 or >= 0"),
    )
    for name, value, valid, expected in ranges:
        if not valid:
            raise ValueError(f"sampler: {name} must be {expected}, got {value}")


def _choose(idxs: torch.Tensor, num: int, generator: Optional[torch.Generator]) -> torch.Tensor:
    perm = torch.randperm(idxs.numel(), generator=generator, device=idxs.device)
    return idxs.index_select(0, perm[:num])


def _random_keys(
    like: torch.Tensor, generator: Optional[torch.Generator], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Random numbers in [0, 1), as many as `like` has elements."""
    return torch.rand(like.numel(), generator=generator, device=like.device, dtype=dtype)


def _smallest(keys: torch.Tensor, num: int) -> torch.Tensor:
    return keys.topk(num, largest=False, sorted=False).indices


def _sample_per_object(
    fg_idxs: torch.Tensor,
    objects: torch.Tensor,
    num: int,
    generator: Optional[torch.Generator],
) -> torch.Tensor:
    """
    Draw num < P of fg_idxs (P,), about the same number for each object; objects (P,) are those
    that the proposals match.
    """
    # The integer part of a key is the object, so a single sort groups the proposals by object and
    # shuffles them within it. float64 keeps enough random bits after a large integer part.
    keys, order = _random_keys(fg_idxs, generator, torch.float64).add_(objects).sort()
    first_of_object = torch.searchsorted(keys, keys.floor())
    rank_in_object = torch.arange(keys.numel(), device=keys.device) - first_of_object
    num_objects = torch.count_nonzero(rank_in_object == 0)
    beyond_share = rank_in_object > (num / num_objects).round()

    # Draw new keys. With those above, the proposals that came first within their object would be
    # favored again, whether some are dropped or some are added.
    keys = _random_keys(fg_idxs, generator).add_(beyond_share)
    return fg_idxs.index_select(0, order.index_select(0, _smallest(keys, num)))


def _bin_edges(
    max_ious: torch.Tensor, start: float, num_bins: int, bin_range: str, bg_iou_thresh: float
) -> torch.Tensor:
    """Edges (num_bins + 1,) of the bins: bin i holds the IoUs in [edges[i], edges[i + 1])."""
    if bin_range == "paper":
        edges = torch.linspace(start, bg_iou_thresh, num_bins + 1, device=max_ious.device)
    else:
        steps = torch.arange(num_bins + 1, device=max_ious.device)
        edges = start + steps * ((max_ious.max() - start) / num_bins)
    # The paper's bins must hold all negatives despite rounding errors. mmdetection excludes the
    # largest IoU from its last bin, but with a single bin it does not use bins at all.
    if bin_range == "paper" or num_bins == 1:
        edges[-1].fill_(float("inf"))  # without a wait, unlike an assignment
    return edges


def _sample_per_bin(
    bg_idxs: torch.Tensor,
    max_ious: torch.Tensor,
    num: int,
    edges: torch.Tensor,
    floor_thresh: float,
    floor_fraction: float,
    generator: Optional[torch.Generator],
) -> torch.Tensor:
    """Draw num < B of bg_idxs (B,) so that their IoUs are spread evenly over the bins."""
    bg_idxs = _choose(bg_idxs, bg_idxs.numel(), generator)
    ious = max_ious.index_select(0, bg_idxs)
    quota = int(num * (1 - floor_fraction))  # for all bins together
    num_bins = edges.numel() - 1
    reaches = ious >= edges[:, None]
    in_bin = reaches[:-1] != reaches[1:]  # (num_bins, B)
    if floor_thresh >= 0:
        floor = ious < floor_thresh if floor_thresh > 0 else ious == 0
        in_bin &= ~floor
    chosen = in_bin & (in_bin.cumsum(1, dtype=torch.int32) <= quota // num_bins)

    # Draw new keys that do not depend on the choice within the bins, for the reason given in
    # _sample_per_object. Chosen negatives get keys in [0, 1), the others in [1, 2).
    keys = _random_keys(bg_idxs, generator).add_(~chosen.amax(0))
    if floor_thresh >= 0:
        rank_in_floor = floor.cumsum(0)
        num_floor = rank_in_floor[-1]
        num_binned = bg_idxs.numel() - num_floor
        take_floor = torch.minimum(num_floor, num - num_binned.clamp(max=quota))
        # The share of the floor set is taken first, the rest of the floor set last.
        keys += floor * torch.where(rank_in_floor <= take_floor, -2, 1)
    return bg_idxs.index_select(0, _smallest(keys, num))
