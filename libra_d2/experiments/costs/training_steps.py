"""Training steps on made-up images."""

import itertools
from typing import Any, Dict, List

from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn

from ...engine.solver import build_optimizer
from ...engine.train_loop import build_train_loop
from ...modeling.default_trainer import allow_training


class TrainingStep:
    """
    The step of a real training, with its precision, accumulation and gradient clipping, always on
    the same images. The learning rate is 0, so that random weights do not diverge; the work is the
    same.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, batch: List[Dict[str, Any]]):
        """
        Args:
            model: is switched to training mode.
            batch: inputs of the model with ground truth.
        """
        optimizer = build_optimizer(cfg, model)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        allow_training(model)
        model.train()
        self._loop = build_train_loop(
            cfg, model, itertools.repeat(batch), optimizer, after_backward=lambda: None
        )

    def __call__(self) -> None:
        with EventStorage():
            self._loop.run_step()
