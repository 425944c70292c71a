"""Training hooks."""

import logging
import os

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from ..inference.drawing import save_prediction_grid
from .curves import save_loss_curve

logger = logging.getLogger(__name__)


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

    def after_train(self) -> None:
        metrics = os.path.join(self.output_dir, "metrics.json")
        curve = os.path.join(self.output_dir, "loss_curve.png")
        if os.path.isfile(metrics) and save_loss_curve(metrics, curve):
            logger.info(f"Loss curve: {curve}")
        if self.dataset_name and os.path.isfile(self.predictions):
            grid = os.path.join(self.output_dir, "predictions.png")
            save_prediction_grid(self.dataset_name, self.predictions, grid)
            logger.info(f"Predictions beside ground truth: {grid}")
