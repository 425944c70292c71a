"""Exponential moving average of the weights."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator

import torch
from detectron2.engine import HookBase
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import UserError


class EMA(HookBase):
    """
    Averages the trainable weights, and the statistics of batch norms, after each step of the
    optimiser that is taken. Nothing of it waits for the device.

    Within `averaged()` the model has the average. A checkpoint that is written there holds the
    average under "model", where any Detectron2 reads it, and the raw weights in the state of this
    hook, with which training goes on.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        decay: float,
        warmup: bool = True,
    ):
        """
        Args:
            model: not wrapped for distributed training.
            decay: share of the old average that a step keeps, in (0, 1).
            warmup: the n-th step, from 0, keeps at most (1 + n) / (10 + n).
        """
        if not 0 < decay < 1:
            raise UserError(f"SOLVER.EMA_DECAY must be between 0 and 1, got {decay}")
        self.decay, self.warmup = decay, warmup
        self.updates = 0
        self._names, self._own = zip(*_averaged_tensors(model).items())
        self._other = [tensor.detach().clone() for tensor in self._own]
        self._model_has_average = False
        optimizer.register_step_post_hook(lambda *_: self.update())

    def before_train(self) -> None:
        if not self.updates:  # weights may have been loaded since
            with torch.no_grad():
                torch._foreach_copy_(self._other, self._own)

    def update(self) -> None:
        """Take the model's present weights into the average."""
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        own = [tensor.detach() for tensor in self._own]
        get_ema_multi_avg_fn(decay)(self._other, own, None)
        self.updates += 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has the average; afterwards, its own weights, unchanged."""
        if self._model_has_average:  # within another one
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, tensor in enumerate(self._own):
            tensor.data, self._other[i] = self._other[i], tensor.data
        self._model_has_average = not self._model_has_average

    def state_dict(self) -> Dict[str, Any]:
        """What the model does not have: within `averaged()` the raw weights, else the average."""
        return {
            "updates": self.updates,
            "weights": dict(zip(self._names, self._other)),
            "raw": self._model_has_average,
        }

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """To be called when the model has the weights of the same checkpoint."""
        self.updates = state["updates"]
        with torch.no_grad():
            for name, own, tensor in zip(self._names, self._own, self._other):
                tensor.copy_(state["weights"].get(name, own))  # own: was frozen until now
        if state["raw"]:
            self._swap()
            self._model_has_average = False


def _averaged_tensors(model: torch.nn.Module) -> Dict[str, torch.Tensor]:
    tensors = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for prefix, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            for name, buffer in module.named_buffers(prefix, recurse=False):
                if buffer.is_floating_point():
                    tensors[name] = buffer
    return tensors
