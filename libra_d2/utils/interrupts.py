"""Turn SIGINT (Ctrl-C) and SIGTERM into exceptions, with the exit statuses that shells expect."""

import signal
import threading
from contextlib import contextmanager
from types import FrameType
from typing import Iterator, List, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """
    A signal ended the run.

    Args:
        signal_number: number of the signal.
        message: message for the user; empty in processes that leave it to the main process.
    """

    def __init__(self, signal_number: int, message: str = "interrupted"):
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """130 for SIGINT and 143 for SIGTERM, like in shells."""
        return 128 + self.signal_number


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Return the exit status after an interrupt, even if Python itself has raised it."""
    return interrupt.exit_status if isinstance(interrupt, Interrupted) else 128 + signal.SIGINT


def _raise(number: int, frame: Optional[FrameType]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process at once
    raise Interrupted(number)


@contextmanager
def raising_interrupts(even_if_ignored: bool = False) -> Iterator[None]:
    """
    Within the context, SIGINT and SIGTERM raise :class:`Interrupted`. In threads other than the
    main one, this does nothing.

    Args:
        even_if_ignored: whether to raise even if the process was started with the signal ignored,
            for example by `nohup` or by a shell in the background.
    """
    with handled_by(_raise, even_if_ignored):
        yield


@contextmanager
def handled_by(handler, even_if_ignored: bool = False) -> Iterator[None]:
    """Like :func:`raising_interrupts`, but call `handler(number, frame)` for each signal."""
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


@contextmanager
def deferring_interrupts() -> Iterator[None]:
    """
    Keep SIGINT and SIGTERM back until the end of the context, whose steps belong together. In
    threads other than the main one, in which signals do not arrive, this does nothing.
    """
    arrived: List[int] = []
    try:
        with handled_by(lambda number, frame: arrived.append(number)):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)


@contextmanager
def workers_end_quietly() -> Iterator[None]:
    """
    After an exception from the context, let the workers of data loaders end without another one.
    The process that exits ends them, and torch's handler would raise an error for a worker that has
    just started, or that has failed.
    """
    try:
        yield
    except BaseException:
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise
