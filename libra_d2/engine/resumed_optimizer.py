"""Resume an optimizer with its state from the checkpoint and its settings from the config."""

from typing import Any, Dict, List, Mapping

import torch

from ..checkpoint.changes import listed
from ..errors import UserError

_TELLING = {"momentum", "nesterov", "betas"}  # settings that distinguish the optimizers
_NOT_SETTINGS = ("params", "lr")  # "lr" changes in each step and is computed from the schedule


def group_settings(optimizer: torch.optim.Optimizer) -> List[Dict[str, Any]]:
    """Return the settings of each group of parameters, such as momentum and weight decay."""
    return [
        {k: v for k, v in group.items() if k not in _NOT_SETTINGS}
        for group in optimizer.param_groups
    ]


def check_optimizer_fits(
    state: Mapping[str, Any], optimizer: torch.optim.Optimizer, changes: Mapping[str, str]
) -> None:
    """
    Check that the state of a checkpoint is for this kind of optimizer and these parameters.

    Args:
        state: the trainer's state in the checkpoint.
        changes: settings that have changed since then, see :func:`changed_settings`.

    Raises:
        UserError: the state is that of another optimizer, or of other parameters.
    """
    saved = state["_trainer"]["optimizer"]["param_groups"]
    groups = optimizer.param_groups
    names = [_TELLING & set(group_list[0]) for group_list in (saved, groups)]
    if names[0] != names[1]:
        known = {k: v for k, v in changes.items() if k == "SOLVER.OPTIMIZER"}
        now = f"{type(optimizer).__name__}, but the checkpoint has the state of another"
        what = listed(known) or f"SOLVER.OPTIMIZER is {now}"
        raise _refusal(f"another optimizer: {what}")
    counts = [sum(len(group["params"]) for group in group_list) for group_list in (saved, groups)]
    sizes = [[len(group["params"]) for group in group_list] for group_list in (saved, groups)]
    shapes = _shapes_differ(state["_trainer"]["optimizer"]["state"], optimizer)
    if sizes[0] != sizes[1] or shapes:
        known = {k: v for k, v in changes.items() if k.startswith("MODEL.")}
        what = f"{counts[0]} -> {counts[1]} trained parameters"
        what = f"{listed(known)} ({what})" if known else what
        raise _refusal(f"other trained parameters: {what}")


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
        f"--resume cannot continue with {what}. Undo the change, or start a new run with the "
        "checkpoint as MODEL.WEIGHTS"
    )


def apply_group_settings(
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    settings: List[Dict[str, Any]],
) -> None:
    """
    Restore the settings of the config, which loading a checkpoint has replaced. The learning rate
    becomes that of the schedule at the next step. If no setting has changed, this changes nothing.

    Args:
        settings: returned by :func:`group_settings` before the checkpoint was loaded.
    """
    for group, own in zip(optimizer.param_groups, settings):
        group.update(own)
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    for group, lr in zip(optimizer.param_groups, scheduler.get_lr()):
        group["lr"] = lr
