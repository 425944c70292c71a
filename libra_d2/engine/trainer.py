"""Detectron2's DefaultTrainer with libra_d2's mapper, checkpointer, evaluator and hooks."""

import contextlib
import logging
import os
import weakref
from contextlib import suppress
from typing import Any, ContextManager, Dict, List, Optional, Sequence, Union

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn
from torch.utils.data import DataLoader

from ..checkpoint import LibraCheckpointer
from ..data import LibraDatasetMapper
from ..data.datasets.setup import category_ids, class_names, with_descriptions
from ..data.epochs import in_iterations
from ..data.loader import build_train_loader
from ..errors import UserError
from ..modeling.build import build_model
from ..modeling.default_trainer import allow_training
from ..utils.system_errors import as_user_error
from . import evaluating
from .ema import EMA
from .hooks import TrainingEnded
from .log_files import report_in_one_line, survive_full_disk
from .reproducibility import SeededSteps, run_seed
from .resuming import Resuming, seed_of
from .run_folder import restore_config
from .run_lock import run_lock
from .solver import build_lr_scheduler, build_optimizer
from .stopping import StopAtSignal, StopSignals
from .train_loop import build_train_loop, distributed, unwrapped
from .trainer_hooks import build_evaluation_hooks, build_saving_hooks, build_step_hooks
from .writers import MetricsFile, TensorBoardWriter, TrainingLines

logger = logging.getLogger(__name__)


class LibraTrainer(DefaultTrainer):
    """
    Trains and evaluates what a config describes, like Detectron2's `DefaultTrainer`.

    In addition, an unreadable image does not end the run, a run can be stopped and resumed at any
    step with the same result, data sets are evaluated with COCO's metrics, and a loss curve and a
    grid of predictions are drawn. If `TEST.AUG.ENABLED`, the final model is also evaluated with
    test-time augmentation.
    """

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer.__init__ builds another loop and cannot train on several CPUs in parallel.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(in_iterations(cfg), comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        this = weakref.proxy(self)
        self._signals = StopSignals()
        self._trainer = build_train_loop(
            cfg,
            distributed(model, cfg.MODEL.DEVICE),
            data_loader,
            optimizer,
            after_backward=lambda: this.after_backward(),
            stop_requested=lambda: this._signals.requested,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> List[HookBase]:
        """Build the hooks in the order in which they act: see :mod:`.trainer_hooks`."""
        cfg, this = self.cfg, weakref.proxy(self)
        decay = cfg.SOLVER.EMA_DECAY
        self.ema = EMA(unwrapped(self.model), self.optimizer, decay=decay) if decay else None
        self.checkpointer = LibraCheckpointer(
            self.model,
            cfg.OUTPUT_DIR,
            class_names=class_names(cfg),
            category_ids=category_ids(cfg),
            weights_to_save=self.averaged,
            # As in the saved config, so that resuming with that one changes nothing.
            settings=with_descriptions(cfg).dump(),
            trainer=this,
        )
        seeds = SeededSteps(seed_of(self.data_loader, cfg))
        stop = StopAtSignal(self.checkpointer, os.path.join(cfg.OUTPUT_DIR, "config.yaml"))
        before = build_step_hooks(cfg, self.model, seeds, self.ema)
        evaluation = build_evaluation_hooks(self, self._signals.at_once, stop)
        writers = self.build_writers() if comm.is_main_process() else []
        after = [*evaluation, *build_saving_hooks(cfg, self.checkpointer, writers), stop]
        self._resuming = Resuming(
            this, self._trainer, seeds=seeds, after_step=after, writers=writers
        )
        return [*before, *after]

    def averaged(self) -> ContextManager:
        """Return a context within which the model has the weights that are evaluated and saved."""
        return contextlib.nullcontext() if self.ema is None else self.ema.averaged()

    def evaluate_now(self) -> Dict[str, Any]:
        """Evaluate the weights of this step, also by their validation loss if it is configured."""
        with self.averaged():
            results = evaluating.test_with_validation_loss(type(self), self.cfg, self.model)
        self._last_eval_results = results
        return results

    def evaluate_now_with_tta(self) -> Dict[str, Any]:
        """Evaluate the weights of this step with test-time augmentation."""
        with self.averaged():
            results = self.test_with_tta(self.cfg, self.model)
        self._last_eval_results = {**getattr(self, "_last_eval_results", {}), **results}
        return results

    def build_writers(self) -> List[EventWriter]:
        """Build the writers of metrics, which the main process alone uses."""
        folder = self.cfg.OUTPUT_DIR
        os.makedirs(folder, exist_ok=True)
        metrics = MetricsFile(os.path.join(folder, "metrics.json"))
        return [TrainingLines(self.max_iter), metrics, TensorBoardWriter(folder)]

    def resume_or_load(self, resume: bool = True) -> None:
        """
        Load the last checkpoint of a run, or `MODEL.WEIGHTS`.

        Raises:
            UserError: a setting was changed that a resumed run cannot change, or no checkpoint is
                complete.
        """
        try:
            super().resume_or_load(resume)
        except UserError:
            if resume:
                restore_config(self.cfg.OUTPUT_DIR)
            raise
        self._resuming.prepare()

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Restore the state as Detectron2 does, but keep the optimizer settings of this run."""
        with self._resuming.optimizer_settings_kept(state_dict):
            super().load_state_dict(state_dict)

    @property
    def stop_signal(self) -> int:
        """The signal that asks this run to stop, the same one in all processes, or 0."""
        alone = comm.get_world_size() == 1
        return self._signals.requested if alone else self._trainer.stop_signal

    def before_train(self) -> None:
        super().before_train()
        self._resuming.finish_last_step()

    def train(self) -> Any:
        """
        Train until the end, or until SIGINT or SIGTERM asks for a stop.

        Raises:
            Interrupted: the run was stopped, and a checkpoint of its last step was written.
            UserError: training failed for a reason that the user can fix, such as a full disk.
        """
        survive_full_disk()
        report_in_one_line()
        try:
            with run_lock(self.cfg.OUTPUT_DIR), self._signals, suppress(TrainingEnded):
                with self._signals.at_once():
                    comm.synchronize()  # from here on, a signal finds all processes in training
                return super().train()
        except Exception as e:
            error = as_user_error(e)
            if error is None or error is e:
                raise
            raise error from e
        finally:
            loader = self._trainer.data_loader
            self._trainer.reset_data_loader(lambda: loader)  # ends its workers

    @classmethod
    def build_model(cls, cfg: CfgNode):
        model = build_model(cfg)
        logger.info(f"Model:\n{model}")
        allow_training(model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model):
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer):
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, seed: Optional[int] = None):
        """
        Build a loader of training images like Detectron2's, in an order that depends on the seed
        only: see :mod:`..data.loader`.
        """
        mapper = LibraDatasetMapper(cfg, is_train=True)
        return build_train_loader(cfg, mapper, run_seed(cfg) if seed is None else seed)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        return evaluating.build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, folder: str = "inference"
    ) -> DatasetEvaluator:
        return evaluating.build_evaluator(cfg, dataset_name, folder)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: Union[DatasetEvaluator, Sequence[DatasetEvaluator], None] = None,
        reuse: bool = False,
    ) -> Dict[str, Any]:
        """
        Evaluate the model on the data sets of `DATASETS.TEST`, like Detectron2's trainer.

        Args:
            evaluators: one for each data set, by default those of `build_evaluator`.
            reuse: whether to take the saved predictions of a data set, instead of running the
                model, if the same model and settings made them: see
                :mod:`..predictions.saved_predictions`.

        Returns:
            The results of the only data set, or data set -> its results if there are several.
        """
        return evaluating.test_on_datasets(cls, cfg, model, evaluators, reuse)

    @classmethod
    def test_with_tta(cls, cfg: CfgNode, model: nn.Module, reuse: bool = False) -> Dict[str, Any]:
        """Like `test`, with test-time augmentation. The keys of the results end with `_TTA`."""
        return evaluating.test_with_tta(cls, cfg, model, reuse)

    @classmethod
    def evaluate(cls, cfg: CfgNode, resume: bool = False, reuse: bool = False) -> Dict[str, Any]:
        """
        Evaluate `MODEL.WEIGHTS`, or with `resume` the last checkpoint in `OUTPUT_DIR`.

        Returns:
            The results of `test`, and if `TEST.AUG.ENABLED`, those of `test_with_tta`.

        Raises:
            UserError: `DATASETS.TEST` is empty, a setting of `TEST` is invalid, or the weights do
                not fit the model.
        """
        return evaluating.evaluate_weights(cls, cfg, resume, reuse)
