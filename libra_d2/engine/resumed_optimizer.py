"""The optimiser of a resumed run has the checkpoint's momentum and the config's settings."""

from typing import Any, Dict, List, Mapping

import torch

from ..checkpoint.changes import listed
from ..errors import UserError

_TELLING = {"momentum", "nesterov", "betas"}  # settings that tell one optimiser from another
_NOT_SETTINGS = ("params", "lr")  # lr: changes with each step, and follows from the others


def group_settings(optimizer: torch.optim.Optimizer) -> List[Dict[str, Any]]:
    """Momentum, weight decay and so on of each group of parameters."""
    return [
        {k: v for k, v in group.items() if k not in _NOT_SETTINGS}
        for group in optimizer.param_groups
    ]


def check_optimizer_fits(
    state: Mapping[str, Any], optimizer: torch.optim.Optimizer, changes: Mapping[str, str]
) -> None:
    """
    Args:
        state: a trainer's, from a checkpoint.
        changes: of settings since then, as in :func:`changed_settings`.

    Raises:
        UserError: the state is of another optimiser, or of other parameters.
    """
    saved = state["_trainer"]["optimizer"]["param_groups"]
    groups = optimizer.param_groups
    names = [_TELLING & set(group_list[0]) for group_list in (saved, groups)]
    if names[0] != names[1]:
        known = {k: v for k, v in changes.items() if k == "SOLVER.OPTIMIZER"}
        now = f"{type(optimizer).__name__}, and the checkpoint's was another"
        what = listed(known) or f"SOLVER.OPTIMIZER is {now}"
        raise _refusal(f"another optimiser: {what}")
    counts = [sum(len(group["params"]) for group in group_list) for group_list in (saved, groups)]
    sizes = [[len(group["params"]) for group in group_list] for group_list in (saved, groups)]
    shapes = _shapes_differ(state["_trainer"]["optimizer"]["state"], optimizer)
    if sizes[0] != sizes[1] or shapes:
        known = {k: v for k, v in changes.items() if k.startswith("MODEL.")}
        what = f"{counts[0]} -> {counts[1]} trained parameters"
        raise _refusal(f"other trained parameters: {listed(known)} ({what})" if known else what)


def _shapes_differ(states: Mapping[int, Any], optimizer: torch.optim.Optimizer) -> bool:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, state in states.items():
        if not isinstance(index, int) or index >= len(parameters):
            return True
        for value in state.values():
            is_like_weights = isinstance(value, torch.Tensor) and value.dim()
            if is_like_weights and value.shape != parameters[index].shape:
                return True
    return False


def _refusal(what: str) -> UserError:
    return UserError(
        f"--resume cannot go on with {what}. Take the change back, or start a new run with the "
        "checkpoint as MODEL.WEIGHTS"
    )


def apply_group_settings(
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    settings: List[Dict[str, Any]],
) -> None:
    """
    Let settings take effect that loading a checkpoint has replaced. The learning rate is that of
    the schedule at the step that the run goes on with; nothing else changes, so that a run whose
    settings are the same goes on bit by bit.

    Args:
        settings: from :func:`group_settings`, before the checkpoint was loaded.
    """
    for group, own in zip(optimizer.param_groups, settings):
        group.update(own)
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    for group, lr in zip(optimizer.param_groups, scheduler.get_lr()):
        group["lr"] = lr
