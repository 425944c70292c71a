"""
Ctrl-C and SIGTERM, which a scheduler sends before it takes a machine away.

Training finishes the step, writes a checkpoint and ends: nothing is lost. Everything else, such as
the start of a run or an evaluation, ends at once.
"""

import os
import shlex
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Dict, Iterator, Optional

from detectron2.checkpoint import Checkpointer
from detectron2.engine import HookBase
from detectron2.utils import comm

STOPPED = "model_stopped"  # name of the checkpoint of a run that was stopped
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """
    A signal ended the run.

    Args:
        signal_number: of the signal.
        message: what to tell the user; empty for the processes that leave this to another one.
    """

    def __init__(self, signal_number: int, message: str = "interrupted"):
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """130 for SIGINT, 143 for SIGTERM, as shells have it."""
        return 128 + self.signal_number


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Of a process that the interrupt ends, also if Python itself has raised it."""
    return interrupt.exit_status if isinstance(interrupt, Interrupted) else 128 + signal.SIGINT


def _raise(number: int, frame: Optional[FrameType]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends at once
    raise Interrupted(number)


@contextmanager
def raising_interrupts(even_if_ignored: bool = False) -> Iterator[None]:
    """
    Within, SIGINT and SIGTERM raise :class:`Interrupted`. In other threads than the main one this
    does nothing.

    Args:
        even_if_ignored: also if the process was started with the signal ignored, as `nohup` and
            shells do in the background.
    """
    with _handled_by(_raise, even_if_ignored):
        yield


@contextmanager
def _handled_by(handler, even_if_ignored: bool = False) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, old in before.items():
        if old is not signal.SIG_IGN or even_if_ignored:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


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
        self._context = _handled_by(self._handle)
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
        program = sys.argv[0] if sys.argv[0].endswith("train_net.py") else "train_net.py"
        command = [sys.executable, program, "--resume", "--config-file", self.config]
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

    with _handled_by(handle):
        yield received
