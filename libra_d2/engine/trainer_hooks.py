"""
The hooks of :class:`LibraTrainer`, in three groups that act one after the other in each step.

The order differs from Detectron2's: checkpoints are written last, so that they contain all that
happened in the step.
"""

from typing import Callable, ContextManager, List, Optional, Sequence

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.common.checkpoint import Checkpointer
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ..evaluation.coco_metrics import chosen_backend
from ..modeling import build_tta
from .balance.monitor import BalanceMonitor
from .ema import EMA
from .evaluating import inference_dir
from .hooks import (
    BestCheckpointer,
    EarlyStopping,
    Evaluation,
    FinalEvaluation,
    PeriodicCheckpointer,
    PreciseBN,
    RunPictures,
)
from .mlflow_tracking import MLflowTracker
from .reproducibility import LossNormalizer, ScalarHistory, SeededSteps
from .run_record import FirstStep
from .run_summary import RunSummary
from .stopping import StopAtSignal
from .writers import WRITE_PERIOD


def build_step_hooks(
    cfg: CfgNode, model: nn.Module, seeds: SeededSteps, ema: Optional[EMA]
) -> List[HookBase]:
    """Build the hooks of the training step itself. Their state is part of a checkpoint."""
    ret = [
        seeds,
        LossNormalizer(model),
        ScalarHistory(),
        ema,
        hooks.IterationTimer(),
        hooks.LRScheduler(),
    ]
    if comm.is_main_process() and cfg.BALANCE.PERIOD:
        ret.append(BalanceMonitor(cfg, model))
    return [hook for hook in ret if hook is not None]


def build_evaluation_hooks(
    trainer: DefaultTrainer, interruptible: Callable[[], ContextManager], stop: StopAtSignal
) -> List[HookBase]:
    """
    Build the hooks that evaluate the model that `trainer.averaged()` selects.

    Args:
        interruptible, stop: see :class:`Evaluation`.
    """
    cfg, test = trainer.cfg, trainer.cfg.TEST
    ret: List[HookBase] = []
    if test.PRECISE_BN.ENABLED and get_bn_modules(trainer.model):
        ret.append(
            PreciseBN(
                test.EVAL_PERIOD,
                trainer.model,
                trainer.build_train_loader(cfg),
                test.PRECISE_BN.NUM_ITER,
                weights=trainer.averaged,
            )
        )
    if cfg.DATASETS.TEST:
        chosen_backend(test.EVAL_BACKEND)  # reports a bad setting now, not at the first evaluation
        ret.append(
            Evaluation(
                test.EVAL_PERIOD,
                trainer.evaluate_now,
                trainer.checkpointer,
                test.BEST_METRIC,
                interruptible=interruptible,
                stop=stop,
            )
        )
        if test.AUG.ENABLED:
            build_tta(cfg, trainer.model)  # reports a bad setting now, not at the end
            ret.append(FinalEvaluation(trainer.evaluate_now_with_tta, interruptible))
    return ret


def build_saving_hooks(
    cfg: CfgNode, checkpointer: Checkpointer, writers: Sequence[EventWriter]
) -> List[HookBase]:
    """
    Build the hooks that write metrics, checkpoints and reports, and the one that ends training
    early, on which the last checkpoint depends.

    Args:
        writers: only the main process uses them.
    """
    test = cfg.TEST
    ret: List[HookBase] = []
    if comm.is_main_process():
        ret.append(hooks.PeriodicWriter(writers, WRITE_PERIOD))
    metric, patience = test.BEST_METRIC, test.EARLY_STOPPING_PATIENCE
    mode = "min" if "loss" in metric else "max"
    if patience:
        ret.append(EarlyStopping(test.EVAL_PERIOD, metric, patience, mode=mode))
    if metric:
        ret.append(BestCheckpointer(checkpointer, metric, test.BEST_TO_KEEP, mode))
    if not comm.is_main_process():
        return ret
    first = cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else ""
    ret += [
        FirstStep(cfg.OUTPUT_DIR),
        PeriodicCheckpointer(
            checkpointer,
            cfg.SOLVER.CHECKPOINT_PERIOD,
            max_to_keep=cfg.SOLVER.CHECKPOINTS_TO_KEEP or None,
        ),
        RunPictures(cfg, inference_dir(cfg, first)),
    ]
    if cfg.MLFLOW.ENABLED:
        ret.append(MLflowTracker(cfg))  # after the others, because it uploads what they write
    ret.append(RunSummary(cfg))
    return ret
