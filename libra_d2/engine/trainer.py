"""Detectron2's DefaultTrainer with libra_d2's mapper, checkpointer, evaluator and pictures."""

import contextlib
import logging
import os
import warnings
import weakref
from contextlib import suppress
from typing import Any, ContextManager, Dict, List, Optional, Sequence

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.nn.precise_bn import get_bn_modules

from ..checkpoint import LibraCheckpointer
from ..checkpoint.changes import changed_settings, listed
from ..checkpoint.checkpointer import load_trained
from ..data import LibraDatasetMapper
from ..data.checks.config_limits import warn_of_limits
from ..data.checks.images import require_readable
from ..data.datasets.setup import category_ids
from ..data.loader import TrainingBatches, build_train_loader
from ..data.loader_workers import WatchedLoader
from ..data.precomputed_proposals import dataset_dicts
from ..errors import UserError
from ..evaluation import LibraCOCOEvaluator
from ..evaluation.coco_metrics import chosen_backend, evaluation_limit
from ..evaluation.validation_loss import validation_losses
from ..modeling import build_tta
from ..modeling.build import build_model
from ..modeling.default_trainer import allow_training
from ..predictions.saved_predictions import made_by
from ..utils.files import remove_partial
from ..utils.progress import progress
from ..utils.system_errors import as_user_error
from .balance.monitor import BalanceMonitor
from .ema import EMA
from .hooks import (
    BestCheckpointer,
    EarlyStopping,
    Evaluation,
    FinalEvaluation,
    PeriodicCheckpointer,
    PreciseBN,
    RunPictures,
    TrainingEnded,
)
from .log_files import report_in_one_line, survive_full_disk
from .mlflow_tracking import MLflowTracker
from .reproducibility import LossNormalizer, ScalarHistory, SeededSteps, run_seed
from .resumed_optimizer import apply_group_settings, check_optimizer_fits, group_settings
from .run_folder import restore_config
from .run_lock import run_lock
from .run_record import FirstStep
from .run_summary import RunSummary
from .solver import advise_learning_rate, build_lr_scheduler, build_optimizer
from .stopping import StopAtSignal, StopSignals
from .train_loop import build_train_loop, unwrapped
from .writers import WRITE_PERIOD, MetricsFile, TensorBoardWriter, TrainingLines

logger = logging.getLogger(__name__)


class LibraTrainer(DefaultTrainer):
    """
    As upstream, and: an unreadable image does not end the run, data sets are evaluated by COCO's
    metrics, at the end also with test-time augmentation if `TEST.AUG.ENABLED`, and a loss curve and
    a grid of predictions are drawn.
    """

    def __init__(self, cfg: CfgNode):
        # As upstream's, which names a GPU to DistributedDataParallel even for a model on the CPU.
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        on_cpu = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*broadcast_buffers.*deprecated", FutureWarning)
            model = create_ddp_model(model, broadcast_buffers=False, **on_cpu)
        this = weakref.proxy(self)
        self._signals = StopSignals()
        self._trainer = build_train_loop(
            cfg,
            model,
            data_loader,
            optimizer,
            after_backward=lambda: this.after_backward(),
            stop_requested=lambda: this._signals.requested,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        advise_learning_rate(cfg)
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> List[HookBase]:
        """
        As upstream, in another order: a checkpoint is the last thing of a step, so that it knows
        all that happened in it.
        """
        cfg = self.cfg
        self.ema = self._build_ema()
        self.checkpointer = LibraCheckpointer(
            self.model,
            cfg.OUTPUT_DIR,
            class_names=cfg.DATASETS.CLASS_NAMES,
            category_ids=category_ids(cfg),
            weights_to_save=self._averaged,
            settings=cfg.dump(),
            trainer=weakref.proxy(self),
        )
        self._stop = StopAtSignal(self.checkpointer, os.path.join(cfg.OUTPUT_DIR, "config.yaml"))
        before = [
            SeededSteps(self._seed()),
            LossNormalizer(self.model),
            ScalarHistory(),
            self.ema,
            hooks.IterationTimer(),
            hooks.LRScheduler(),
        ]
        if comm.is_main_process() and cfg.BALANCE.PERIOD:
            before.append(BalanceMonitor(cfg, self.model))
        self._after_step = [*self._evaluation_hooks(), *self._saving_hooks(), self._stop]
        return [*before, *self._after_step]

    def _build_ema(self) -> Optional[EMA]:
        decay = self.cfg.SOLVER.EMA_DECAY
        if not decay:
            return None
        model = unwrapped(self.model)
        return EMA(model, self.optimizer, decay=decay)

    def _averaged(self) -> ContextManager:
        """Within, the model has the weights that are to be evaluated and saved."""
        return contextlib.nullcontext() if self.ema is None else self.ema.averaged()

    def _evaluation_hooks(self) -> List[HookBase]:
        cfg, test = self.cfg, self.cfg.TEST
        ret = []
        if test.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            loader = self.build_train_loader(cfg)
            num_iter = test.PRECISE_BN.NUM_ITER
            ret.append(
                PreciseBN(test.EVAL_PERIOD, self.model, loader, num_iter, weights=self._averaged)
            )
        if cfg.DATASETS.TEST:
            chosen_backend(test.EVAL_BACKEND)  # refused here, not at the first evaluation
            interruptible = self._signals.at_once
            self._evaluation = Evaluation(
                test.EVAL_PERIOD,
                self._evaluate,
                self.checkpointer,
                test.BEST_METRIC,
                interruptible=interruptible,
                stop=self._stop,
            )
            ret.append(self._evaluation)
            if test.AUG.ENABLED:
                build_tta(cfg, self.model)  # a bad setting is refused here, not at the end
                ret.append(FinalEvaluation(self._test_with_tta_at_end, interruptible))
        return ret

    def _saving_hooks(self) -> List[HookBase]:
        cfg, test = self.cfg, self.cfg.TEST
        ret: List[HookBase] = []
        if comm.is_main_process():
            ret.append(hooks.PeriodicWriter(self.build_writers(), WRITE_PERIOD))
        metric, patience = test.BEST_METRIC, test.EARLY_STOPPING_PATIENCE
        mode = "min" if "loss" in metric else "max"
        if patience:
            ret.append(EarlyStopping(test.EVAL_PERIOD, metric, patience, mode=mode))
        if metric:
            ret.append(BestCheckpointer(self.checkpointer, metric, test.BEST_TO_KEEP, mode))
        if comm.is_main_process():
            self._periodic = PeriodicCheckpointer(
                self.checkpointer,
                cfg.SOLVER.CHECKPOINT_PERIOD,
                max_to_keep=cfg.SOLVER.CHECKPOINTS_TO_KEEP or None,
            )
            first = cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else ""
            ret += [
                FirstStep(cfg.OUTPUT_DIR),
                self._periodic,
                RunPictures(cfg, inference_dir(cfg, first)),
            ]
            if cfg.MLFLOW.ENABLED:
                ret.append(MLflowTracker(cfg))  # behind the others: of all that they leave
            ret.append(RunSummary(cfg))
        return ret

    def build_writers(self) -> List[EventWriter]:
        folder = self.cfg.OUTPUT_DIR
        os.makedirs(folder, exist_ok=True)
        self._files = [
            MetricsFile(os.path.join(folder, "metrics.json")),
            TensorBoardWriter(folder),
        ]
        return [TrainingLines(self.max_iter), *self._files]

    def _seed(self) -> int:
        batches = getattr(self._trainer.data_loader, "batch_sampler", None)
        return batches.seed if isinstance(batches, TrainingBatches) else run_seed(self.cfg)

    def _evaluate(self) -> Dict[str, Any]:
        with self._averaged():
            results = self.test(self.cfg, self.model)
            losses = (
                validation_losses(self.cfg, self.model) if self.cfg.TEST.VALIDATION_LOSS else {}
            )
        if losses:
            logger.info(f"Validation loss: {losses}")
            results["validation"] = losses
        self._last_eval_results = results
        return results

    def _test_with_tta_at_end(self) -> Dict[str, Any]:
        with self._averaged():
            results = self.test_with_tta(self.cfg, self.model)
        self._last_eval_results = {**getattr(self, "_last_eval_results", {}), **results}
        return results

    def resume_or_load(self, resume: bool = True) -> None:
        """
        Load a run's last checkpoint, or `MODEL.WEIGHTS`.

        Raises:
            UserError: a setting was changed that a resumed run cannot change, or there are no whole
                checkpoints.
        """
        try:
            super().resume_or_load(resume)
        except UserError:
            if resume:
                restore_config(self.cfg.OUTPUT_DIR)
            raise
        if comm.is_main_process():
            remove_partial(self.cfg.OUTPUT_DIR, recursive=True)
        if self.start_iter == 0:
            if comm.is_main_process():
                for file in self._files:
                    file.start_anew()
            return
        seeds = next(h for h in self._hooks if isinstance(h, SeededSteps))
        if self.cfg.SEED >= 0:  # else that of the run's first part was drawn
            seeds.seed = self.cfg.SEED
        if seeds.seed != self._seed():
            self._trainer.reset_data_loader(lambda: self.build_train_loader(self.cfg, seeds.seed))
        batches = getattr(self._trainer.data_loader, "batch_sampler", None)
        if isinstance(batches, TrainingBatches):
            batches.start = self.start_iter
        if comm.is_main_process():
            self._log_changed_settings()
            is_pending = self._has_pending_evaluation()
            for file in self._files:
                file.resume_after(self.start_iter - (2 if is_pending else 1))
            checkpoint = self.checkpointer.get_checkpoint_file()
            self._periodic.resume_at(self.start_iter, checkpoint, self.max_iter, is_pending)

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Restore the state as Detectron2 does, but keep the optimiser settings of this run."""
        checkpointer = self.checkpointer
        changes = changed_settings(checkpointer.settings_before, checkpointer.settings)
        check_optimizer_fits(state_dict, self.optimizer, changes)
        settings = group_settings(self.optimizer)
        super().load_state_dict(state_dict)
        apply_group_settings(self.optimizer, self.scheduler, settings)

    def _log_changed_settings(self) -> None:
        before = self.checkpointer.settings_before
        changes = changed_settings(before, self.checkpointer.settings)
        changes.pop("MODEL.WEIGHTS", None)  # only of a new run
        if changes:
            logger.info(
                f"Changed settings, which take effect from iteration {self.start_iter}: "
                f"{listed(changes)}"
            )
        if self.start_iter >= self.max_iter:
            logger.info(
                f"SOLVER.MAX_ITER is {self.max_iter}, and {self.start_iter} iterations are done: "
                "nothing is left to train"
            )

    def _has_pending_evaluation(self) -> bool:
        return bool(self.cfg.DATASETS.TEST) and self._evaluation.is_pending

    @property
    def stop_signal(self) -> int:
        """The signal that asks this run to stop, the same one in all processes, or 0."""
        alone = comm.get_world_size() == 1
        return self._signals.requested if alone else self._trainer.stop_signal

    def before_train(self) -> None:
        super().before_train()
        if not self._has_pending_evaluation():
            return
        self.iter = self.storage.iter = self.start_iter - 1
        try:
            for hook in self._after_step:
                hook.after_step()
        finally:
            if self.iter < self.start_iter:
                self.iter = self.start_iter

    def train(self) -> Any:
        """
        Train until the end, or until SIGINT or SIGTERM asks for a stop.

        Raises:
            Interrupted: the run was stopped, and a checkpoint of its last step was written.
            UserError: among others, the disk is full.
        """
        survive_full_disk()
        report_in_one_line()
        try:
            with run_lock(self.cfg.OUTPUT_DIR), self._signals, suppress(TrainingEnded):
                return super().train()
        except Exception as e:
            error = as_user_error(e)
            if error is None or error is e:
                raise
            raise error from e
        finally:
            loader = self._trainer.data_loader
            self._trainer.reset_data_loader(lambda: loader)  # its workers end

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
        """As upstream, in an order that follows from the seed: see :mod:`..data.loader`."""
        mapper = LibraDatasetMapper(cfg, is_train=True)
        return build_train_loader(cfg, mapper, run_seed(cfg) if seed is None else seed)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        mapper = LibraDatasetMapper(cfg, is_train=False)
        dicts = dataset_dicts(cfg, "TEST", [dataset_name], filter_empty=False)
        loader = build_detection_test_loader(
            dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
        )
        return WatchedLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=loader.sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, folder: str = "inference"
    ) -> DatasetEvaluator:
        return LibraCOCOEvaluator(
            dataset_name,
            output_dir=inference_dir(cfg, dataset_name, folder),
            backend=cfg.TEST.EVAL_BACKEND,
            max_dets_per_image=evaluation_limit(cfg.TEST.DETECTIONS_PER_IMAGE),
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model,
        evaluators: Optional[Sequence[DatasetEvaluator]] = None,
        reuse: bool = False,
    ) -> Dict[str, Any]:
        """
        Evaluate the model on the test sets, as Detectron2's trainer does.

        Args:
            reuse: do not run the network on a data set whose saved predictions fit: see
                :mod:`..predictions.saved_predictions`.
        """
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None and len(evaluators) != len(names):
            raise ValueError(f"{len(evaluators)} evaluators for the data sets {names}")
        results = {}
        for i, name in enumerate(names):
            loader = cls.build_test_loader(cfg, name)  # first: it loads the data set
            evaluator = evaluators[i] if evaluators else cls.build_evaluator(cfg, name)
            results[name] = cls._reused(cfg, model, name, evaluator, reuse)
            if results[name] is None:
                disable = not comm.is_main_process()
                results[name] = inference_on_dataset(
                    model, progress(loader, f"Evaluating on {name}", disable=disable), evaluator
                )
            if comm.is_main_process():
                print_csv_format(_as_upstream(results[name]))
        return results[names[0]] if len(names) == 1 else results

    @classmethod
    def _reused(
        cls, cfg: CfgNode, model, name: str, evaluator: DatasetEvaluator, reuse: bool
    ) -> Optional[Dict[str, Any]]:
        if not isinstance(evaluator, LibraCOCOEvaluator):
            return None
        if comm.is_main_process():
            evaluator.made_by = made_by(cfg, name, evaluator.images, model)
        return evaluator.evaluate_saved() if reuse else None

    @classmethod
    def test_with_tta(cls, cfg: CfgNode, model, reuse: bool = False) -> Dict[str, Any]:
        """As `test`, with test-time augmentation: results under keys with the suffix `_TTA`."""
        logger.info("Evaluating with test-time augmentation")
        evaluators = [cls.build_evaluator(cfg, name, "inference_TTA") for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, build_tta(cfg, model), evaluators, reuse)
        return {f"{key}_TTA": value for key, value in results.items()}

    @classmethod
    def evaluate(cls, cfg: CfgNode, resume: bool = False, reuse: bool = False):
        """
        Results of `MODEL.WEIGHTS`, or of the last checkpoint in `OUTPUT_DIR`, by test set; those
        of test-time augmentation, if `TEST.AUG.ENABLED`, have the suffix `_TTA`.
        """
        if not cfg.DATASETS.TEST:
            raise UserError(
                "nothing to evaluate on: set DATASETS.TEST, such as coco:val.json,images"
            )
        chosen_backend(cfg.TEST.EVAL_BACKEND)
        for name in cfg.DATASETS.TEST if not reuse else ():
            require_readable(name)
        model = cls.build_model(cfg)
        checkpointer = LibraCheckpointer(
            model, cfg.OUTPUT_DIR, class_names=cfg.DATASETS.CLASS_NAMES, require_classes=True
        )
        load_trained(checkpointer, cfg.MODEL.WEIGHTS, resume=resume)
        if cfg.TEST.AUG.ENABLED:
            build_tta(cfg, model)  # a bad setting is refused here, not after the plain evaluation
        if comm.is_main_process():
            warn_of_limits(cfg)
        results = cls.test(cfg, model, reuse=reuse)
        if cfg.TEST.AUG.ENABLED:
            results.update(cls.test_with_tta(cfg, model, reuse))
        return results


def inference_dir(cfg: CfgNode, dataset_name: str, folder: str = "inference") -> str:
    """Where the evaluation of a data set writes its predictions."""
    return os.path.join(cfg.OUTPUT_DIR, folder, dataset_name)


def _as_upstream(results: Dict[str, Any]) -> Dict[str, Any]:
    """Without average recalls, which upstream does not have: its line of numbers stays the same."""
    return {
        task: {k: v for k, v in numbers.items() if not k.startswith("AR")}
        if isinstance(numbers, dict)
        else numbers
        for task, numbers in results.items()
    }
