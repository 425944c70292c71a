"""Continuing a run after its last checkpoint as if it had not been interrupted."""

import logging
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple, Type, TypeVar

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from ..checkpoint.changes import changed_settings, listed
from ..config.flattening import flat
from ..config.schedule import STEPS, notes_of
from ..data.loader import TrainingBatches
from ..errors import UserError
from ..utils.files import remove_partial
from ..utils.yaml_files import parse_yaml
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
            UserError: the state is that of another optimizer, or of other parameters, or the steps
                of the schedule have not moved with the end of the run.
        """
        trainer, checkpointer = self.trainer, self.trainer.checkpointer
        changes = changed_settings(checkpointer.settings_before, checkpointer.settings)
        check_optimizer_fits(state, trainer.optimizer, changes)
        check_steps_move(checkpointer.settings_before, trainer.cfg)
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


def check_steps_move(before: str, cfg: CfgNode) -> None:
    """
    Check that a resumed run whose length has changed does not keep the steps of the old length. An
    extended run would otherwise be trained with the low learning rate of its old end.

    Args:
        before: settings of the checkpoint, as YAML.
        cfg: settings of the resumed run. Steps that its command line names, or that are shares of
            the run, are right.

    Raises:
        UserError: the steps have not changed. The message names steps in proportion.
    """
    solver, notes = cfg.SOLVER, notes_of(cfg)
    if notes.steps_on_command_line or notes.shares_in_steps:
        return
    if solver.LR_SCHEDULER_NAME != "WarmupMultiStepLR":
        return
    try:
        old = flat(parse_yaml(before.encode(), "config"))
    except UserError:
        return
    length, steps = old.get("SOLVER.MAX_ITER"), tuple(solver.STEPS)
    if not isinstance(length, int) or length in (0, solver.MAX_ITER):
        return
    if tuple(old.get(STEPS) or ()) != steps or not any(step < length for step in steps):
        return
    moved = tuple(dict.fromkeys(max(round(s * solver.MAX_ITER / length), 1) for s in steps))
    raise UserError(
        f"--resume: SOLVER.MAX_ITER has changed from {length} to {solver.MAX_ITER}, but "
        f"SOLVER.STEPS {steps} has not. Give SOLVER.STEPS {_quoted(moved)} to move the steps in "
        f"proportion, or SOLVER.STEPS {_quoted(steps)} on the command line to keep them"
    )


def _quoted(steps: Tuple[int, ...]) -> str:
    return f'"({",".join(map(str, steps))}{"," if len(steps) == 1 else ""})"'


def seed_of(data_loader, cfg: CfgNode) -> int:
    """Return the seed of a training loader, or of the run if the loader has none."""
    batches = getattr(data_loader, "batch_sampler", None)
    return batches.seed if isinstance(batches, TrainingBatches) else run_seed(cfg)
