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
    Averages the trainable weights and the statistics of batch norms after each optimizer step. It
    never waits for the device.

    Within `averaged()`, the model has the averaged weights. A checkpoint that is written there
    contains the average under "model", where plain Detectron2 finds it, and in the state of this
    hook the raw weights, with which training continues.
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
            decay: share of the old average that remains after a step, in (0, 1).
            warmup: whether to limit the decay of step n, counted from 0, to (1 + n) / (10 + n).

        Raises:
            UserError: the decay is outside of its range.
        """
        if not 0 < decay < 1:
            raise UserError(f"SOLVER.EMA_DECAY must be above 0 and below 1, got {decay}")
        self.decay, self.warmup = decay, warmup
        self.updates = 0
        self._names, self._own = zip(*_averaged_tensors(model).items())
        self._other = [tensor.detach().clone() for tensor in self._own]
        self._model_has_average = False
        optimizer.register_step_post_hook(lambda *_: self.update())

    def before_train(self) -> None:
        if not self.updates:  # weights may have been loaded since the hook was built
            with torch.no_grad():
                torch._foreach_copy_(self._other, self._own)

    def update(self) -> None:
        """Update the average with the current weights of the model."""
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        own = [tensor.detach() for tensor in self._own]
        get_ema_multi_avg_fn(decay)(self._other, own, None)
        self.updates += 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has the averaged weights; afterwards, its own weights again."""
        if self._model_has_average:  # nested in another `averaged()`
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
        """
        Return the weights that the model does not have: within `averaged()` the raw weights,
        otherwise the average.
        """
        return {
            "updates": self.updates,
            "weights": dict(zip(self._names, self._other)),
            "raw": self._model_has_average,
        }

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Restore the state after the model has loaded the weights of the same checkpoint."""
        self.updates = state["updates"]
        with torch.no_grad():
            for name, own, tensor in zip(self._names, self._own, self._other):
                # A weight that was frozen when the checkpoint was written has no average yet.
                tensor.copy_(state["weights"].get(name, own))
        if state["raw"]:
            self._swap()
            self._model_has_average = False


def _averaged_tensors(model: torch.nn.Module) -> Dict[str, torch.Tensor]:
    tensors: Dict[str, torch.Tensor] = {}
    tensors.update((name, p) for name, p in model.named_parameters() if p.requires_grad)
    for prefix, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            for name, buffer in module.named_buffers(prefix, recurse=False):
                if buffer.is_floating_point():
                    tensors[name] = buffer
    return tensors
