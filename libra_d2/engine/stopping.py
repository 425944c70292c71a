"""
Ctrl-C and SIGTERM, which a scheduler sends before it takes a machine away.

Training finishes the step, writes a checkpoint and ends: nothing is lost. Everything else, such as
the start of a run or an evaluation, ends at once.
"""

import os
import shlex
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Dict, Iterator, Optional

from detectron2.checkpoint import Checkpointer
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..utils.interrupts import Interrupted, handled_by

STOPPED = "model_stopped"  # name of the checkpoint of a run that was stopped


class StopSignals:
    """
    A context around training in which the first signal only asks for a stop, which the trainer
    makes after the step. A second Ctrl-C ends the process at once.

    Attributes:
        requested: number of the signal that arrived in this process, or 0.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._raises = False
        self._process = os.getpid()

    def __enter__(self) -> "StopSignals":
        self.requested = 0
        self._context = handled_by(self._handle)
        self._context.__enter__()
        return self

    def __exit__(self, *exc) -> None:
        self._context.__exit__(*exc)

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != self._process:  # a process that was forked from this one a moment ago
            return
        first, self.requested = not self.requested, self.requested or number
        if not first:  # torchrun, srun and our launcher pass on what the terminal has sent, too
            return
        if comm.get_world_size() == 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._raises:
            raise Interrupted(number)
        if comm.is_main_process():
            again = "; press Ctrl-C again to end at once" if number == signal.SIGINT else ""
            name = signal.Signals(number).name
            # Not print: the signal may have come within another one.
            text = f"{name}: finishing the step and writing a checkpoint{again}\n"
            os.write(2, text.encode())

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """
        Within, a signal raises :class:`Interrupted` instead of waiting for the end of the step; so
        does one that came before.
        """
        before = self._raises
        self._raises = True
        try:
            if self.requested:
                raise Interrupted(self.requested)
            yield
        finally:
            self._raises = before


class StopAtSignal(HookBase):
    """The last hook of a step: if a stop is due, it writes a checkpoint and ends the run."""

    def __init__(self, checkpointer: Checkpointer, config: str):
        """
        Args:
            config: file that `--resume` goes on with, for the message.
        """
        self.checkpointer = checkpointer
        self.config = config

    def after_step(self) -> None:
        if self.checkpointer.resumes_after == self.trainer.iter and comm.is_main_process():
            Path(self.checkpointer.save_dir, f"{STOPPED}.pth").unlink(missing_ok=True)
        number = self.trainer.stop_signal
        if not number or self.trainer.iter + 1 >= self.trainer.max_iter:
            return
        self.save()
        comm.synchronize()  # a process that ends has the launcher end the others
        raise Interrupted(number, self.message(number))

    def save(self) -> None:
        """Make `--resume` go on after this step; training of it is complete."""
        if self.checkpointer.resumes_after != self.trainer.iter:
            self.checkpointer.save(STOPPED, iteration=self.trainer.iter)

    def message(self, number: int) -> str:
        """One line for the user; empty on other processes than the main one."""
        if not comm.is_main_process():
            return ""
        done, of = self.trainer.iter + 1, self.trainer.max_iter
        processes = comm.get_local_size()
        program = [sys.executable, "train_net.py"]
        if sys.argv[0].endswith("train_net.py"):
            program = [sys.executable, sys.argv[0]]
        elif sys.argv[1:2] == ["train"]:
            program = [sys.argv[0], "train"]
        command = [*program, "--resume", "--config-file", self.config]
        if processes > 1 and "LOCAL_RANK" not in os.environ:  # not by torchrun
            command += ["--num-gpus", str(processes)]
        return (
            f"stopped by {signal.Signals(number).name} after {done} of {of} iterations, which are "
            f"saved; go on with: {shlex.join(command)}"
        )


@contextmanager
def passing_signals_on(processes) -> Iterator[Dict[str, int]]:
    """
    Within, the first signal is passed on to the processes, and this one goes on to wait for them. A
    second Ctrl-C ends all of them at once.

    Args:
        processes: multiprocessing's.

    Returns:
        A dict that gets the number of the signal under "signal".
    """
    received: Dict[str, int] = {}

    def handle(number: int, frame: Optional[FrameType]) -> None:
        if not received:
            received["signal"] = number
            for process in processes:
                if process.is_alive():
                    os.kill(process.pid, number)
        elif number == signal.SIGINT:
            for process in processes:
                process.kill()

    with handled_by(handle):
        yield received
