"""Continuing a run after its last checkpoint as if it had not been interrupted."""

import logging
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Sequence, Type, TypeVar

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from ..checkpoint.changes import changed_settings, listed
from ..data.loader import TrainingBatches
from ..utils.files import remove_partial
from .hooks import Evaluation, PeriodicCheckpointer
from .reproducibility import SeededSteps, run_seed
from .resumed_optimizer import apply_group_settings, check_optimizer_fits, group_settings
from .train_loop import LibraTrainLoop
from .writers import MetricsFile, TensorBoardWriter

logger = logging.getLogger(__name__)

_Hook = TypeVar("_Hook", bound=HookBase)


class Resuming:
    """
    Restores what Detectron2's trainer does not restore from a checkpoint: the seed and the position
    of the data loader, the files of metrics, the schedule of checkpoints, and an evaluation that
    was interrupted.
    """

    def __init__(
        self,
        trainer: DefaultTrainer,
        loop: LibraTrainLoop,
        *,
        seeds: SeededSteps,
        after_step: Sequence[HookBase],
        writers: Sequence[EventWriter],
    ):
        """
        Args:
            trainer: a weak reference, since the trainer owns this object.
            loop: the loop of the trainer, which reads the training data.
            seeds: the hook that knows the seed of the run.
            after_step: the evaluation and the hooks that follow it in a step.
            writers: writers of metrics; empty in other processes than the main one.
        """
        self.trainer = trainer
        self.loop = loop
        self._seeds = seeds
        self._after_step = after_step
        self._files = [w for w in writers if isinstance(w, (MetricsFile, TensorBoardWriter))]

    @contextmanager
    def optimizer_settings_kept(self, state: Dict[str, Any]) -> Iterator[None]:
        """
        Within, the trainer loads the state of a checkpoint. Afterwards, the optimizer has the
        settings of this run's config again, such as a changed weight decay.

        Raises:
            UserError: the state is that of another optimizer, or of other parameters.
        """
        trainer, checkpointer = self.trainer, self.trainer.checkpointer
        changes = changed_settings(checkpointer.settings_before, checkpointer.settings)
        check_optimizer_fits(state, trainer.optimizer, changes)
        settings = group_settings(trainer.optimizer)
        yield
        apply_group_settings(trainer.optimizer, trainer.scheduler, settings)

    def prepare(self) -> None:
        """Prepare what is not in a checkpoint, after the trainer has loaded one or weights."""
        trainer = self.trainer
        if comm.is_main_process():
            remove_partial(trainer.cfg.OUTPUT_DIR, recursive=True)
        if trainer.start_iter == 0:
            for file in self._files:
                file.start_over()
            return
        self._restore_data()
        if comm.is_main_process():
            self._log_changed_settings()
            self._restore_files()

    def _restore_data(self) -> None:
        trainer, cfg, seeds = self.trainer, self.trainer.cfg, self._seeds
        if cfg.SEED >= 0:  # otherwise the seed is the one that the start of the run has drawn
            seeds.seed = cfg.SEED
        if seeds.seed != seed_of(self.loop.data_loader, cfg):
            self.loop.reset_data_loader(lambda: trainer.build_train_loader(cfg, seeds.seed))
        batches = getattr(self.loop.data_loader, "batch_sampler", None)
        if isinstance(batches, TrainingBatches):
            batches.start = trainer.start_iter

    def _log_changed_settings(self) -> None:
        checkpointer = self.trainer.checkpointer
        start, end = self.trainer.start_iter, self.trainer.max_iter
        changes = changed_settings(checkpointer.settings_before, checkpointer.settings)
        changes.pop("MODEL.WEIGHTS", None)  # it only matters at the start of a run
        if changes:
            logger.info(
                f"Changed settings, which take effect from iteration {start}: {listed(changes)}"
            )
        if start >= end:
            logger.info(
                f"SOLVER.MAX_ITER is {end}, and {start} iterations are done: nothing is left to "
                "train"
            )

    def _restore_files(self) -> None:
        start = self.trainer.start_iter
        is_pending = self._has_pending_evaluation()
        for file in self._files:
            file.resume_after(start - (2 if is_pending else 1))
        periodic = self._hook(PeriodicCheckpointer)
        if periodic is not None:
            checkpoint = self.trainer.checkpointer.get_checkpoint_file()
            periodic.resume_at(start, checkpoint, self.trainer.max_iter, is_pending)

    def finish_last_step(self) -> None:
        """Evaluate the last step, and call the hooks after it, if this was interrupted."""
        if not self._has_pending_evaluation():
            return
        trainer = self.trainer
        trainer.iter = trainer.storage.iter = trainer.start_iter - 1
        try:
            for hook in self._after_step:
                hook.after_step()
        finally:
            if trainer.iter < trainer.start_iter:
                trainer.iter = trainer.start_iter

    def _has_pending_evaluation(self) -> bool:
        evaluation = self._hook(Evaluation)
        return evaluation is not None and evaluation.is_pending

    def _hook(self, kind: Type[_Hook]) -> Optional[_Hook]:
        return next((hook for hook in self._after_step if isinstance(hook, kind)), None)


def seed_of(data_loader, cfg: CfgNode) -> int:
    """Return the seed of a training loader, or of the run if the loader has none."""
    batches = getattr(data_loader, "batch_sampler", None)
    return batches.seed if isinstance(batches, TrainingBatches) else run_seed(cfg)
