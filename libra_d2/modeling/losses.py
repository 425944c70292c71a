"""Balanced L1 loss of Libra R-CNN (https://arxiv.org/abs/1904.02701, section 3.3)."""

import math
from typing import Any, Dict

import torch
from detectron2.config import CfgNode

FORMS = ("continuous", "mmdet")
REDUCTIONS = ("none", "mean", "sum")


def balanced_l1_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    reduction: str = "none",
    form: str = "continuous",
) -> torch.Tensor:
    """
    Compute the Balanced L1 loss, which raises the gradient of small errors (inliers) and limits
    that of large ones (outliers).

    With d = |input - target| and b = exp(gamma / alpha) - 1::

        continuous:  alpha/b * (b*d + beta) * ln(b*d/beta + 1) - alpha*d      if d < beta
                     gamma*d + gamma*beta/b - alpha*beta                      otherwise
        mmdet:       alpha/b * (b*d + 1) * ln(b*d/beta + 1) - alpha*d         if d < beta
                     gamma*d + gamma/b - alpha*beta                           otherwise

    The gradient of the continuous form is alpha * ln(b*d/beta + 1) below beta and gamma above it.
    It is zero at d = 0 and has no jump. At beta = 1, the paper's setting, both forms are the same
    function. At any other beta, the gradient of the mmdet form is not zero at d = 0 and jumps at
    beta. The published RetinaNet weights were trained with the mmdet form.

    Args:
        input, target: tensors of the same shape. The loss of float16 and bfloat16 tensors is
            computed in float32.
        alpha: > 0. Smaller values give inliers a larger share of the gradient.
        gamma: > 0. Upper bound of the gradient.
        beta: > 0. Error at which an inlier becomes an outlier.
        reduction: "none" | "mean" | "sum". The mean of an empty tensor is zero.
        form: "continuous" | "mmdet".

    Returns:
        A tensor of the shape of `input` for the reduction "none", otherwise a scalar. The scalar
        of empty inputs is a zero that can be backpropagated.

    Raises:
        ValueError: a parameter is outside its range.

    Examples:
        >>> pred_deltas = torch.tensor([0.1, 0.5, 2.0])
        >>> balanced_l1_loss(pred_deltas, torch.zeros(3))
        tensor([0.0314, 0.4006, 2.5786])
        >>> balanced_l1_loss(pred_deltas, torch.zeros(3), reduction="sum")
        tensor(3.0105)
    """
    for name, value in (("alpha", alpha), ("gamma", gamma), ("beta", beta)):
        if not value > 0:
            raise ValueError(f"balanced_l1_loss: {name} must be > 0, got {value}")
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"balanced_l1_loss: reduction must be one of {REDUCTIONS}, got {reduction!r}"
        )
    if form not in FORMS:
        raise ValueError(f"balanced_l1_loss: form must be one of {FORMS}, got {form!r}")

    d = (input - target).abs()
    if d.dtype in (torch.float16, torch.bfloat16):
        d = d.float()
    b = math.exp(gamma / alpha) - 1
    knee = beta if form == "continuous" else 1.0
    inlier = alpha / b * (b * d + knee) * torch.log1p(b * d / beta) - alpha * d
    outlier = gamma * d + (gamma * knee / b - alpha * beta)
    loss = torch.where(d < beta, inlier, outlier)

    if reduction == "mean":
        return loss.mean() if loss.numel() > 0 else loss.sum()
    return loss.sum() if reduction == "sum" else loss


def balanced_l1_settings(node: CfgNode) -> Dict[str, Any]:
    """Return the keyword arguments of :func:`balanced_l1_loss` from a `BALANCED_L1` node."""
    return {"alpha": node.ALPHA, "gamma": node.GAMMA, "beta": node.BETA, "form": node.FORM}


def checked_balanced_l1(
    alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0, form: str = "continuous"
) -> Dict[str, Any]:
    """
    Check the settings of :func:`balanced_l1_loss`, and fill in the defaults.

    Raises:
        ValueError: a setting is out of range.
    """
    settings: Dict[str, Any] = {"alpha": alpha, "gamma": gamma, "beta": beta, "form": form}
    empty = torch.empty(0, device="cpu")
    balanced_l1_loss(empty, empty, **settings)
    return settings
