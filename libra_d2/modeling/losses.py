"""Balanced L1 loss of Libra R-CNN (https://arxiv.org/abs/1904.02701, section 3.3)."""

import math

import torch

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
    L1 loss that raises the gradient of small errors (inliers) and caps that of large ones.

    With d = |input - target| and b = exp(gamma / alpha) - 1::

        continuous:  alpha/b * (b*d + beta) * ln(b*d/beta + 1) - alpha*d      if d < beta
                     gamma*d + gamma*beta/b - alpha*beta                      otherwise
        mmdet:       alpha/b * (b*d + 1) * ln(b*d/beta + 1) - alpha*d         if d < beta
                     gamma*d + gamma/b - alpha*beta                           otherwise

    The gradient of the continuous form is alpha * ln(b*d/beta + 1) up to beta and gamma above:
    zero at d = 0 and without a jump. At beta = 1, the paper's setting, both forms are the same
    function. At any other beta the mmdet form, which published RetinaNet weights were trained
    with, has a gradient that is not zero at d = 0 and jumps at beta.

    Args:
        input, target: tensors of the same shape. float16 and bfloat16 are computed in float32.
        alpha: > 0. The smaller, the larger the gradient of inliers.
        gamma: > 0. Upper bound of the gradient.
        beta: > 0. The error at which an inlier becomes an outlier.
        reduction: "none" | "mean" | "sum". The mean of an empty tensor is zero.
        form: "continuous" | "mmdet".

    Returns:
        The loss: of the shape of `input` for "none", else a scalar. Empty inputs give a zero
        that can be backpropagated.

    Raises:
        ValueError: a parameter is outside of its range.
    """
    for name, value in (("alpha", alpha), ("gamma", gamma), ("beta", beta)):
        if not value > 0:
            raise ValueError(f"balanced_l1_loss: {name} must be > 0, got {value}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"balanced_l1_loss: reduction {reduction!r} is not one of {REDUCTIONS}")
    if form not in FORMS:
        raise ValueError(f"balanced_l1_loss: form {form!r} is not one of {FORMS}")

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
