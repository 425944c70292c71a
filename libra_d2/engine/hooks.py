"""Hooks of training: evaluation, checkpoints, early stopping, batch norm and pictures."""

import contextlib
import logging
import math
import os
import time
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Optional, Tuple

from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from fvcore.nn.precise_bn import get_bn_modules

from ..errors import UserError
from ..utils.interrupts import Interrupted
from ..utils.system_errors import as_user_error
from ..visualization.detection_pictures import save_prediction_grid
from ..visualization.loss_curve import save_loss_curve
from .stopping import StopAtSignal

logger = logging.getLogger(__name__)


class Evaluation(hooks.EvalHook):
    """
    Evaluates every `eval_period` iterations and at the end, like Detectron2's `EvalHook`.

    Unlike there, the last evaluation is part of the last step, so that the checkpoint of that step
    contains the result. The trained weights are saved before the last evaluation
    (`model_final.pth`), and whenever an evaluation fails or is stopped. A run that is resumed from
    such a checkpoint begins with the evaluation.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function,
        checkpointer: Checkpointer,
        metric: str = "",
        *,
        interruptible: Callable[[], ContextManager] = contextlib.nullcontext,
        stop: Optional[StopAtSignal] = None,
    ):
        """
        Args:
            metric: a result that other hooks need. A warning is logged if it is missing.
            interruptible: a context in which a signal raises :class:`Interrupted`.
            stop: the hook that saves the trained weights when the evaluation is stopped.
        """
        super().__init__(eval_period, eval_function, eval_after_train=False)
        self.checkpointer = checkpointer
        self.metric = metric
        self.is_pending = False  # whether the last step still has to be evaluated
        self._interruptible = interruptible
        self._stop = stop

    def after_step(self) -> None:
        step = self.trainer.iter + 1
        is_last = step >= self.trainer.max_iter
        if not is_last and (self._period <= 0 or step % self._period):
            return
        self.is_pending = True
        if is_last:
            self.checkpointer.save("model_final", tag=False, iteration=self.trainer.iter)
        try:
            with self._interruptible():
                self._do_eval()
        except Interrupted as e:
            if self._stop is None:
                raise
            self._stop.save()
            raise Interrupted(e.signal_number, self._stop.message(e.signal_number)) from None
        except Exception:
            self.checkpointer.save(f"model_{self.trainer.iter:07d}", iteration=self.trainer.iter)
            raise
        self.is_pending = False
        latest = self.trainer.storage.latest()
        if self.metric and self.metric not in latest and comm.is_main_process():
            known = sorted(k for k, (_, i) in latest.items() if "/" in k and i == self.trainer.iter)
            logger.warning(
                f"TEST.BEST_METRIC must be one of the results {known}, got {self.metric!r}"
            )

    def state_dict(self) -> Dict[str, Any]:
        return {"is_pending": True} if self.is_pending else {}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.is_pending = state["is_pending"]


class FinalEvaluation(hooks.EvalHook):
    """Evaluates once after the last step, unless training has failed."""

    def __init__(
        self,
        eval_function,
        interruptible: Callable[[], ContextManager] = contextlib.nullcontext,
    ):
        super().__init__(0, eval_function, eval_after_train=False)
        self._interruptible = interruptible

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            with self._interruptible():
                self._do_eval()
        super().after_train()


class PreciseBN(hooks.PreciseBN):
    """
    Updates the statistics of batch norms like Detectron2's `PreciseBN`. Unlike there, every update
    uses the same images, and the weights can be those of a context. The statistics are updated in
    place, since :class:`EMA` refers to the same tensors.
    """

    def __init__(self, *args, weights: Callable[[], ContextManager], **kwargs):
        super().__init__(*args, **kwargs)
        self._weights = weights

    def update_stats(self) -> None:
        self._data_iter = None
        with self._weights():
            before = [(m, m.running_mean, m.running_var) for m in get_bn_modules(self._model)]
            super().update_stats()
            for module, mean, var in before:
                mean.copy_(module.running_mean)
                var.copy_(module.running_var)
                module.running_mean, module.running_var = mean, var


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """
    Writes checkpoints like Detectron2's `PeriodicCheckpointer`, also if training ends before
    `max_iter` (see :class:`EarlyStopping`).
    """

    def after_step(self) -> None:
        self.max_iter = self.trainer.max_iter
        super().after_step()

    def resume_at(
        self, iteration: int, checkpoint: str, max_iter: int, is_pending: bool = False
    ) -> None:
        """
        Count the existing checkpoints among those to keep, and create the checkpoints of the last
        step that are missing because the run was killed.

        Args:
            iteration: the first iteration of the resumed run.
            checkpoint: file from which the run resumes, written at the end of the iteration before.
            max_iter: the number of iterations of the whole run.
            is_pending: whether the iteration before still has to be evaluated, so that its
                checkpoints are not due yet.
        """
        due = [f"model_{iteration - 1:07d}"] if iteration % self.period == 0 else []
        due += ["model_final"] if iteration == max_iter else []
        if is_pending:
            due, iteration = [], iteration - 1
        name = Path(checkpoint).stem
        for other in due:
            if other != name:
                self.checkpointer.link(name, other)
        if "model_final" in due:
            self.checkpointer.tag_last_checkpoint("model_final.pth")
        files = sorted(Path(self.checkpointer.save_dir).glob("model_[0-9]*.pth"))
        files = [f for f in files if int(f.stem[len("model_") :]) < iteration]
        extra = len(files) - (self.max_to_keep or len(files))
        for file in files[: max(extra, 0)]:
            file.unlink()
        self.recent_checkpoints = [str(f) for f in files[max(extra, 0) :]]


class BestCheckpointer(HookBase):
    """
    Keeps the checkpoints of the best evaluations. `model_best.pth` is the best of all. If several
    are kept, each has a file `model_best_<iteration>.pth`. Of equal results, the earlier counts as
    better.
    """

    def __init__(
        self, checkpointer: Checkpointer, metric: str, num_best: int = 1, mode: str = "max"
    ):
        """
        Args:
            metric: name of an evaluation's result, such as "bbox/AP".
            num_best: number of checkpoints to keep.
            mode: "max" if larger values are better, "min" if smaller ones are.

        Raises:
            UserError: a setting is outside of its range.
        """
        check_metric_mode(mode)
        if num_best < 1:
            raise UserError(f"TEST.BEST_TO_KEEP must be at least 1, got {num_best}")
        self.checkpointer = checkpointer
        self.metric = metric
        self.num_best = num_best
        self.sign = 1 if mode == "max" else -1
        self.best: List[Tuple[float, int]] = []  # (value, iteration), the best first

    def before_train(self) -> None:
        if not self.checkpointer.save_to_disk:
            return
        folder = Path(self.checkpointer.save_dir)
        if len(self.best) == 1 and self.num_best > 1:  # TEST.BEST_TO_KEEP was 1 until now
            name = self._name(self.best[0][1])
            if not (folder / f"{name}.pth").exists():
                self.checkpointer.link("model_best", name)
        self.best = [x for x in self.best if (folder / f"{self._name(x[1])}.pth").exists()]
        known = {self._name(iteration) for _, iteration in self.best}
        for path in folder.glob("model_best_*.pth"):
            if path.stem not in known:  # written after the checkpoint that the run resumes from
                path.unlink()
        self._link_best()

    def after_step(self) -> None:
        value = result_of_this_step(self.trainer, self.metric)
        if value is None:
            return
        iteration = self.trainer.iter
        ranked = sorted([*self.best, (value, iteration)], key=lambda x: (-self.sign * x[0], x[1]))
        dropped = ranked[self.num_best :]
        self.best = ranked[: self.num_best]
        if (value, iteration) in dropped:
            logger.info(f"{self.metric} {value:.5f} is not among the best, {self._describe()}")
            return
        self.checkpointer.save(self._name(iteration), iteration=iteration)
        self._link_best()
        for _, old in dropped:
            if self.num_best > 1 and self.checkpointer.save_to_disk:
                Path(self.checkpointer.save_dir, f"{self._name(old)}.pth").unlink(missing_ok=True)
        logger.info(f"Best {self.metric} so far: {self._describe()}")

    def _name(self, iteration: int) -> str:
        return "model_best" if self.num_best == 1 else f"model_best_{iteration:07d}"

    def _link_best(self) -> None:
        if self.num_best > 1 and self.best:
            self.checkpointer.link(self._name(self.best[0][1]), "model_best")

    def _describe(self) -> str:
        return ", ".join(f"{value:.5f} (iteration {iteration})" for value, iteration in self.best)

    def state_dict(self) -> Dict[str, Any]:
        return {"metric": [self.metric, self.sign], "best": self.best}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        if state["metric"] == [self.metric, self.sign]:  # else values cannot be compared
            self.best = [tuple(x) for x in state["best"]][: self.num_best]


class EarlyStopping(HookBase):
    """Ends training after a number of consecutive evaluations without improvement."""

    def __init__(
        self,
        eval_period: int,
        metric: str,
        patience: int,
        min_delta: float = 0.0,
        mode: str = "max",
    ):
        """
        Args:
            eval_period: number of iterations from one evaluation to the next.
            metric: name of an evaluation's result, such as "bbox/AP".
            patience: number of evaluations without improvement after which training ends.
            min_delta: smallest difference that counts as an improvement, in units of the metric.
            mode: "max" if larger values are better, "min" if smaller ones are.

        Raises:
            UserError: a setting is outside of its range.
        """
        check_metric_mode(mode)
        if patience < 1 or min_delta < 0:
            raise UserError(
                f"TEST.EARLY_STOPPING_PATIENCE must be at least 1, got {patience}; min_delta must "
                f"be at least 0, got {min_delta}"
            )
        if not metric or eval_period <= 0:
            raise UserError(
                "TEST.EARLY_STOPPING_PATIENCE needs a TEST.BEST_METRIC that is not empty, got "
                f"{metric!r}, and a TEST.EVAL_PERIOD above 0, got {eval_period}"
            )
        self.eval_period = eval_period
        self.metric = metric
        self.patience = patience
        self.min_delta = min_delta
        self.sign = 1 if mode == "max" else -1
        self.best = -math.inf  # the best value times the sign
        self.num_without = 0

    def before_step(self) -> None:
        if self.num_without >= self.patience:
            self.trainer.max_iter = self.trainer.iter
            raise TrainingEnded

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.eval_period:
            return
        # Only the main process has the result.
        value = comm.all_gather(result_of_this_step(self.trainer, self.metric))[0]
        if value is None:
            return
        if self.sign * value > self.best + self.min_delta:
            self.best, self.num_without = self.sign * value, 0
            return
        self.num_without += 1
        if self.num_without >= self.patience:
            logger.info(
                f"Stopping early, after iteration {self.trainer.iter}: {self.metric} has not "
                f"improved on {self.sign * self.best:.5f} in {self.num_without} evaluations"
            )
            # The hooks that follow in this step see that it is the last one.
            self.trainer.max_iter = self.trainer.iter + 1

    def state_dict(self) -> Dict[str, Any]:
        metric = [self.metric, self.sign]
        return {"metric": metric, "best": self.best, "num_without": self.num_without}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        if state["metric"] == [self.metric, self.sign]:  # else values cannot be compared
            self.best, self.num_without = state["best"], state["num_without"]


class TrainingEnded(BaseException):
    """
    Ends the loop of Detectron2's trainer. Not an `Exception`, since the loop would log one as a
    failure.
    """


def check_metric_mode(mode: str) -> None:
    if mode not in ("max", "min"):
        raise UserError(f"mode must be 'max' or 'min', got {mode!r}")


def result_of_this_step(trainer, metric: str):
    """
    Return the value of a metric if this step was evaluated and the value is finite; else None.
    """
    latest = trainer.storage.latest()
    value, iteration = latest.get(metric, (math.nan, -1))
    if iteration == trainer.iter and math.isfinite(value):
        return value
    return None


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
        if self.trainer.iter < self.trainer.max_iter:
            return  # the run failed; its own error message is what matters
        try:
            self._draw()
        except Exception as e:  # a finished run must not fail because of a picture
            error = as_user_error(e, self.output_dir)
            what = "Could not draw the pictures of the run"
            logger.warning(f"{what}: {error}" if error else what, exc_info=error is None)

    def _draw(self) -> None:
        metrics = os.path.join(self.output_dir, "metrics.json")
        curve = os.path.join(self.output_dir, "loss_curve.png")
        if os.path.isfile(metrics) and save_loss_curve(metrics, curve):
            logger.info(f"Loss curve: {curve}")
        fresh = os.path.isfile(self.predictions) and os.path.getmtime(self.predictions) > self.start
        if self.dataset_name and fresh:
            grid = os.path.join(self.output_dir, "predictions.png")
            save_prediction_grid(self.dataset_name, self.predictions, grid)
            logger.info(f"Predictions next to ground truth: {grid}")
