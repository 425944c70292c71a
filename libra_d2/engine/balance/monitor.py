"""Measure during training how balanced its samples, its loss and its features are."""

import logging
import math
import os
from typing import Any, Dict, List

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch.nn.parallel import DistributedDataParallel

from ...config.detectors import is_retinanet
from ...errors import UserError
from ...utils.system_errors import as_user_error
from . import measures as measures
from .picture import save_balance_picture, smooth_l1_name
from .probe import BalanceProbe

logger = logging.getLogger(__name__)


class BalanceMonitor(HookBase):
    """
    Measures what Libra R-CNN balances every `BALANCE.PERIOD` steps, with the batch of the step.

    Writes scalars `balance/*` and histograms of the negatives' IoUs, and draws `balance.png` into
    OUTPUT_DIR at each evaluation and at the end. Steps that are not measured are not changed. In
    a run with several processes, the process that has this hook measures its part of the batch.
    """

    def __init__(self, cfg: CfgNode, model):
        """
        Raises:
            UserError: `BALANCE.PERIOD` is not positive.
        """
        if cfg.BALANCE.PERIOD < 1:
            raise UserError(f"BALANCE.PERIOD must be at least 1, got {cfg.BALANCE.PERIOD}")
        self.period = cfg.BALANCE.PERIOD
        self.eval_period = cfg.TEST.EVAL_PERIOD
        self.picture = os.path.join(cfg.OUTPUT_DIR, "balance.png")
        node = cfg.MODEL.RETINANET if is_retinanet(cfg) else cfg.MODEL.ROI_BOX_HEAD
        self.loss_name = node.BBOX_REG_LOSS_TYPE
        if self.loss_name == "smooth_l1":
            name = "SMOOTH_L1_LOSS_BETA" if is_retinanet(cfg) else "SMOOTH_L1_BETA"
            self.loss_name = smooth_l1_name(node[name])
        self.probe = BalanceProbe(
            model.module if isinstance(model, DistributedDataParallel) else model,
            bg_iou_thresh=cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0],
            beta=node.BALANCED_L1.BETA,
        )
        self.last: Dict[str, Any] = {}
        self.history: List[Dict[str, float]] = []

    def state_dict(self) -> Dict[str, Any]:
        return {"last": self.last, "history": self.history}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.last, self.history = state["last"], state["history"]

    def before_step(self) -> None:
        if self._measures_now():
            self.probe.attach()

    def after_step(self) -> None:
        if self._measures_now():
            self.probe.detach()
            self._write()
            self.probe.clear()
        if self.eval_period > 0 and (self.trainer.iter + 1) % self.eval_period == 0:
            self._draw()

    def after_train(self) -> None:
        self.probe.detach()  # left over from a step that failed
        self._draw()

    def _measures_now(self) -> bool:
        return self.period > 0 and (self.trainer.iter + 1) % self.period == 0

    def _write(self) -> None:
        try:
            if self.probe.failure is not None:
                raise self.probe.failure
            measurement = self.probe.measurement()
        except Exception:  # a failed measurement must not end the run
            logger.warning(
                "Could not measure the balance. The rest of the run does not measure it",
                exc_info=True,
            )
            self.period = 0
            return
        scalars = summary(measurement)
        storage = self.trainer.storage
        for name, value in scalars.items():
            storage.put_scalar(f"balance/{name}", value, smoothing_hint=False)
        for name, ious in self.probe.negative_ious().items():
            if ious.numel():
                storage.put_histogram(f"balance/iou_of_negatives/{name}", ious.cpu(), bins=50)
        self.last = {"iteration": self.trainer.iter, **measurement}
        self.history.append({"iteration": self.trainer.iter, **scalars})

    def _draw(self) -> None:
        if not self.history:
            return
        try:
            save_balance_picture(
                self.last, self.history, self.loss_name, self.probe.beta, self.picture
            )
            logger.info(f"Balance of training: {self.picture}")
        except Exception as e:  # a failed picture must not end the run
            error = as_user_error(e, self.picture)
            what = "Could not draw the balance of the training"
            logger.warning(f"{what}: {error}" if error else what, exc_info=error is None)


def summary(measurement: Dict[str, Any]) -> Dict[str, float]:
    """
    Return the numbers to plot over the run, from a result of :meth:`BalanceProbe.measurement`.

    Returns:
        `hard_negatives/{all,sampled}` (share), `positives_per_object/{all,sampled}`,
        `positives_unevenness/{all,sampled}`, `easy_gradient/{in_use,smooth_l1}`,
        `easy_gradient/samples` (shares), `levels/{before,after}/<name>` (root mean square) and
        `level_spread/{before,after}`, as far as they were measured.
    """
    ret = {}
    for name, x in measurement.get("negatives", {}).items():
        ret[f"hard_negatives/{name}"] = x["hard"]
    for name, x in measurement.get("positives", {}).items():
        ret[f"positives_per_object/{name}"] = x["mean"]
        ret[f"positives_unevenness/{name}"] = x["unevenness"]
    for name, x in measurement.get("gradient", {}).items():
        ret[f"easy_gradient/{name}"] = x
    levels = measurement.get("levels", {"names": []})
    for when in ("before", "after"):
        norms = levels.get(when, [])
        for name, norm in zip(levels["names"], norms):
            ret[f"levels/{when}/{name}"] = norm
        ret[f"level_spread/{when}"] = measures.spread(norms)
    # Values are NaN if there was nothing to measure, and infinite in a step that a scaler skips.
    return {name: value for name, value in ret.items() if math.isfinite(value)}
