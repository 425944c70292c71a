"""Hooks that make a run reproducible, even if it is interrupted and resumed."""

import os
from typing import Any, Dict

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ..data.loader import derived_seed

_WINDOW = 20  # iterations over which Detectron2's writers smooth scalars
_KEPT = 100  # iterations whose scalars are kept in memory
_TIMES_KEPT = 1000  # the same for "time", from which Detectron2 estimates the remaining time


def set_determinism(cfg: CfgNode) -> None:
    """
    Use deterministic algorithms if `SOLVER.DETERMINISTIC`. Torch warns of CUDA operators that have
    no deterministic implementation.
    """
    if cfg.SOLVER.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


def run_seed(cfg: CfgNode) -> int:
    """Return `SEED`, or if it is negative, a random seed that all processes share."""
    return cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()


class SeededSteps(HookBase):
    """
    Seeds every step with a number that depends only on the seed of the run, the iteration and the
    rank. Therefore a checkpoint does not need to contain the state of random generators.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self) -> None:
        torch.manual_seed(derived_seed(self.seed, self.trainer.iter, comm.get_rank()))

    def state_dict(self) -> Dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.seed = state["seed"]


class LossNormalizer(HookBase):
    """
    Saves the running mean of the number of positive anchors, by which RetinaNet divides its losses.
    The mean is not a buffer of the model, so Detectron2's checkpoints do not contain it.
    """

    def __init__(self, model: nn.Module):
        self.model = getattr(model, "module", model)

    def state_dict(self) -> Dict[str, Any]:
        value = getattr(self.model, "loss_normalizer", None)
        return {} if value is None else {"loss_normalizer": float(value)}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.model.loss_normalizer = state["loss_normalizer"]


class ScalarHistory(HookBase):
    """
    Saves the latest scalars, over which Detectron2's writers smooth, in checkpoints. Older scalars,
    which Detectron2 keeps in memory and never reads again, are dropped: metrics.json has them.
    """

    def __init__(self) -> None:
        self._resumed: Dict[str, Any] = {}

    def before_train(self) -> None:
        for name, (smooth, values) in self._resumed.items():
            for value, iteration in values:
                self.trainer.storage.put_scalar(
                    name, value, smoothing_hint=smooth, cur_iter=iteration
                )

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % _KEPT == 0:
            for name, history in self.trainer.storage.histories().items():
                first = self.trainer.iter - (_TIMES_KEPT if name == "time" else _KEPT)
                values = history.values()
                values[:] = [(v, i) for v, i in values if i > first] or values[-1:]

    def after_train(self) -> None:
        # Detectron2's loop ends one iteration too late if nothing is left to train.
        self.trainer.storage.iter = min(self.trainer.iter, self.trainer.max_iter)

    def state_dict(self) -> Dict[str, Any]:
        storage = getattr(self.trainer, "storage", None)
        if storage is None:  # training has not begun
            return {}
        first = self.trainer.iter - _WINDOW
        smooth = storage.smoothing_hints()
        latest = storage.latest()
        kept = {}
        for name, history in storage.histories().items():
            # With SOLVER.ACCUMULATION_STEPS, a scalar may have several values in one iteration.
            values = [(v, i) for v, i in history.values() if i > first]
            kept[name] = (smooth[name], values or [latest[name]])
        return {"scalars": kept}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self._resumed = state["scalars"]
