"""The optimizer, gradient clipping and learning-rate schedule that `SOLVER` describes."""

import logging
from typing import List

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler as build_lr_scheduler_upstream
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver import get_default_optimizer_params
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ..config.choices import CLIP_TYPES, OPTIMIZERS, SCHEDULERS
from ..errors import UserError

logger = logging.getLogger(__name__)


# Learning rates of Detectron2's baselines, for SGD with 16 images.
BASE_LR_OF_16 = {"RetinaNet": 0.01, "LibraRetinaNet": 0.01}
DEFAULT_BASE_LR_OF_16 = 0.02


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """
    Build Detectron2's SGD, or AdamW with the same groups of parameters, with gradient clipping.

    Raises:
        UserError: `SOLVER.OPTIMIZER` or a setting of `SOLVER.CLIP_GRADIENTS` is invalid.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD":
        unclipped = cfg.clone()
        unclipped.defrost()
        unclipped.SOLVER.CLIP_GRADIENTS.ENABLED = False
        optimizer = build_sgd(unclipped, model)
    elif solver.OPTIMIZER == "AdamW":
        params = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        optimizer = torch.optim.AdamW(params, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
    else:
        raise UserError(f"SOLVER.OPTIMIZER must be one of {OPTIMIZERS}, got {solver.OPTIMIZER!r}")
    clip = solver.CLIP_GRADIENTS
    if clip.ENABLED:
        clip_gradients(
            optimizer, clip_type=clip.CLIP_TYPE, value=clip.CLIP_VALUE, norm_type=clip.NORM_TYPE
        )
    return optimizer


def clip_gradients(
    optimizer: torch.optim.Optimizer, *, clip_type: str, value: float, norm_type: float = 2.0
) -> None:
    """
    Clip the gradients at the start of each `optimizer.step()`, after a scaler has unscaled them.

    Unlike Detectron2's clipping, this ignores parameters without a gradient, with which "value"
    fails there. In addition, "global_norm" bounds the norm of all gradients together.

    Args:
        clip_type: "value" (each element), "norm" (each parameter) or "global_norm".
        value: largest absolute value or norm, > 0.
        norm_type: p of the norm; may be infinity.
    """
    if clip_type not in CLIP_TYPES:
        raise UserError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE must be one of {CLIP_TYPES}, got {clip_type!r}"
        )
    if not value > 0:
        raise UserError(f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE must be above 0, got {value}")

    def clip(optimizer: torch.optim.Optimizer, args, kwargs) -> None:
        params = with_gradients(optimizer)
        if not params:
            return
        if clip_type == "value":
            clip_grad_value_(params, value)
        elif clip_type == "global_norm":
            clip_grad_norm_(params, value, norm_type)
        else:
            for p in params:
                clip_grad_norm_(p, value, norm_type)

    optimizer.register_step_pre_hook(clip)


def with_gradients(optimizer: torch.optim.Optimizer) -> List[torch.nn.Parameter]:
    """Return the parameters of the optimizer that have a gradient."""
    groups = optimizer.param_groups
    return [p for group in groups for p in group["params"] if p.grad is not None]


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer):
    """
    Build Detectron2's learning-rate schedule.

    Raises:
        UserError: the schedule is unknown, or its settings are invalid.
    """
    solver = cfg.SOLVER
    name = solver.LR_SCHEDULER_NAME
    if name not in SCHEDULERS:
        raise UserError(f"SOLVER.LR_SCHEDULER_NAME must be one of {SCHEDULERS}, got {name!r}")
    if solver.MAX_ITER < 1:
        raise UserError(f"SOLVER.MAX_ITER must be at least 1, got {solver.MAX_ITER}")
    if not solver.BASE_LR > 0:
        raise UserError(f"SOLVER.BASE_LR must be above 0, got {solver.BASE_LR}")
    if name == "WarmupCosineLR" and not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
        raise UserError(
            f"SOLVER.BASE_LR_END must be from 0 to SOLVER.BASE_LR {solver.BASE_LR}, got "
            f"{solver.BASE_LR_END}"
        )
    if name == "WarmupMultiStepLR" and sorted(set(solver.STEPS)) != list(solver.STEPS):
        raise UserError(f"SOLVER.STEPS must increase, got {tuple(solver.STEPS)}")
    try:
        return build_lr_scheduler_upstream(cfg, optimizer)
    except ValueError as e:
        raise UserError(
            f"SOLVER.LR_SCHEDULER_NAME {name} with MAX_ITER {solver.MAX_ITER}, STEPS "
            f"{tuple(solver.STEPS)} and WARMUP_METHOD {solver.WARMUP_METHOD!r}: {e}"
        ) from e


def schedule_advice(cfg: CfgNode) -> List[str]:
    """
    Describe what is unusual in the schedule: SGD's learning rate is not within a factor of 2 of the
    linear scaling rule, or the warm-up takes more than half of the run.
    """
    solver = cfg.SOLVER
    of_16 = BASE_LR_OF_16.get(cfg.MODEL.META_ARCHITECTURE, DEFAULT_BASE_LR_OF_16)
    usual = of_16 * solver.IMS_PER_BATCH / 16
    advice = []
    if solver.OPTIMIZER == "SGD" and not usual / 2 <= solver.BASE_LR <= usual * 2:
        advice.append(
            f"SOLVER.BASE_LR is {solver.BASE_LR:g}. The linear scaling rule, {of_16:g} for 16 "
            f"images, gives {usual:g} for SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH}; set "
            f'SOLVER.BASE_LR "{usual:g}"'
        )
    if solver.WARMUP_ITERS > solver.MAX_ITER / 2:
        advice.append(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS} of {solver.MAX_ITER} iterations, so the "
            f"learning rate is low for most of the run; set SOLVER.WARMUP_ITERS "
            f'"{solver.MAX_ITER // 10}"'
        )
    return advice
