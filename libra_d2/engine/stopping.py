"""
Stopping a run by Ctrl-C or by SIGTERM, which a scheduler sends before it takes a machine away.

Training finishes its step, writes a checkpoint and ends, so that nothing is lost. All other phases,
such as the start of a run or an evaluation, end immediately.
"""

import math
import os
import shlex
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Dict, Iterator, Optional

from detectron2.checkpoint import Checkpointer
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..utils.interrupts import Interrupted, handled_by

STOPPED = "model_stopped"  # name of the checkpoint of a run that was stopped
_AGAIN = 0.05  # seconds
_fork_ends = -math.inf  # time until which this process forks, on the clock of `time.monotonic`


def _before_fork() -> None:
    global _fork_ends
    _fork_ends = math.inf


def _after_fork() -> None:
    global _fork_ends
    _fork_ends = time.monotonic() + _AGAIN / 2  # the hooks of others may still run


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class StopSignals:
    """
    A context around training in which the first signal only requests a stop. The trainer stops
    after the current step. A second Ctrl-C ends the process immediately.

    Attributes:
        requested: number of the signal that has arrived in this process, or 0.
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
        if os.getpid() != self._process:  # a process that was just forked from this one
            return
        if self._raises and time.monotonic() < _fork_ends:
            # Python ignores exceptions in hooks of a fork, such as those of `logging`.
            threading.Timer(_AGAIN, os.kill, (self._process, number)).start()
            return
        first, self.requested = not self.requested, self.requested or number
        if not first:  # torchrun, srun and our launcher repeat the signal that the terminal sends
            return
        if comm.get_world_size() == 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._raises:
            raise Interrupted(number)
        if comm.is_main_process():
            again = "; press Ctrl-C again to end at once" if number == signal.SIGINT else ""
            name = signal.Signals(number).name
            # Not `print`, which cannot be called again if the signal interrupts one.
            text = f"{name}: finishing the step and writing a checkpoint{again}\n"
            os.write(2, text.encode())

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """
        Within, a signal raises :class:`Interrupted` immediately instead of at the end of the step.
        So does a signal that has already arrived.

        All processes leave the context together. Otherwise, one of them could already be in the
        next step, which it cannot finish without another one that a signal ends in the context.
        """
        before = self._raises
        self._raises = True
        try:
            if self.requested:
                raise Interrupted(self.requested)
            yield
        finally:
            self._raises = before
        try:
            comm.synchronize()
        except RuntimeError as e:  # a signal has ended another process
            if not self.requested:
                raise
            raise Interrupted(self.requested) from e


class StopAtSignal(HookBase):
    """The last hook of a step. If a stop was requested, it writes a checkpoint and ends the run."""

    def __init__(self, checkpointer: Checkpointer, config: str):
        """
        Args:
            config: config file to resume with, for the message.
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
        comm.synchronize()  # when one process ends, the launcher ends the others
        raise Interrupted(number, self.message(number))

    def save(self) -> None:
        """Write a checkpoint from which `--resume` continues after this step."""
        if self.checkpointer.resumes_after != self.trainer.iter:
            self.checkpointer.save(STOPPED, iteration=self.trainer.iter)

    def message(self, number: int) -> str:
        """Return a line for the user that says how to resume; "" on other than the main process."""
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
        if processes > 1 and "LOCAL_RANK" not in os.environ:  # not started by torchrun
            command += ["--num-gpus", str(processes)]
        return (
            f"stopped by {signal.Signals(number).name} after {done} of {of} iterations, which are "
            f"saved. Resume with: {shlex.join(command)}"
        )


@contextmanager
def passing_signals_on(processes) -> Iterator[Dict[str, int]]:
    """
    Within, the first signal is passed on to the processes, and this process continues to wait for
    them. A second Ctrl-C ends all of them immediately.

    Args:
        processes: processes of `multiprocessing`.

    Yields:
        A dict that receives the number of the signal under "signal".
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
