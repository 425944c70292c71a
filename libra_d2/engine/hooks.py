"""Training hooks."""

import logging
import os
import time
from typing import Any, Dict

from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks

from ..inference.drawing import save_prediction_grid
from .curves import save_loss_curve

logger = logging.getLogger(__name__)


class BestCheckpointer(hooks.BestCheckpointer):
    """As upstream; what was best so far survives a resume."""

    def state_dict(self) -> Dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


class RunPictures(HookBase):
    """Draws `loss_curve.png` and `predictions.png` into OUTPUT_DIR at the end of training."""

    def __init__(self, cfg: CfgNode, inference_dir: str):
        """
        Args:
            inference_dir: where the evaluation of the first test set writes its predictions.
        """
        self.output_dir = cfg.OUTPUT_DIR
        self.dataset_name = cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else None
        self.predictions = os.path.join(inference_dir, "coco_instances_results.json")

    def before_train(self) -> None:
        self.start = time.time()

    def after_train(self) -> None:
        if self.trainer.iter + 1 < self.trainer.max_iter:
            return  # the run failed, and its own message is the one to read
        try:
            self._draw()
        except Exception:  # a picture is not worth a finished run
            logger.warning("Could not draw the pictures of the run", exc_info=True)

    def _draw(self) -> None:
        metrics = os.path.join(self.output_dir, "metrics.json")
        curve = os.path.join(self.output_dir, "loss_curve.png")
        if os.path.isfile(metrics) and save_loss_curve(metrics, curve):
            logger.info(f"Loss curve: {curve}")
        fresh = os.path.isfile(self.predictions) and os.path.getmtime(self.predictions) > self.start
        if self.dataset_name and fresh:
            grid = os.path.join(self.output_dir, "predictions.png")
            save_prediction_grid(self.dataset_name, self.predictions, grid)
            logger.info(f"Predictions beside ground truth: {grid}")
