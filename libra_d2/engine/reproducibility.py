"""A run that can be repeated, and that goes on after an interruption as if there had been none."""

import os
from typing import Any, Dict

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ..data.loader import derived_seed

_WINDOW = 20  # iterations that the smoothed scalars of Detectron2's writers look back
_KEPT = 100  # iterations whose scalars are kept in memory
_TIMES_KEPT = 1000  # of "time", from which Detectron2 guesses the time that is left


def set_determinism(cfg: CfgNode) -> None:
    """Follow `SOLVER.DETERMINISTIC`. Of CUDA operators that have no such form, torch warns."""
    if cfg.SOLVER.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


def run_seed(cfg: CfgNode) -> int:
    """`SEED`, or if it is not set, one that the processes draw together."""
    return cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()


class SeededSteps(HookBase):
    """
    Every step draws from a random stream of its own, which follows from the run's seed, the
    iteration and the rank. So there is no random state to be saved.
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
    Keeps the running mean of positive anchors by which RetinaNet divides its losses. It is no
    buffer of the model, so checkpoints lack it.
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
    Keeps the latest scalars, over which Detectron2's writers smooth, across a resume. Earlier ones,
    which upstream keeps and never reads again, are dropped: they are in metrics.json.
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
        # In a run that has nothing left to do, upstream counts an iteration too many.
        self.trainer.storage.iter = min(self.trainer.iter, self.trainer.max_iter)

    def state_dict(self) -> Dict[str, Any]:
        storage = getattr(self.trainer, "storage", None)
        if storage is None:  # before the training
            return {}
        first = self.trainer.iter - _WINDOW
        smooth = storage.smoothing_hints()
        latest = storage.latest()
        kept = {}
        for name, history in storage.histories().items():
            # Of an iteration there may be several: one of each part of a step.
            values = [(v, i) for v, i in history.values() if i > first]
            kept[name] = (smooth[name], values or [latest[name]])
        return {"scalars": kept}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self._resumed = state["scalars"]
