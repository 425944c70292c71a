"""SIGINT (Ctrl-C) and SIGTERM as exceptions, and the exit statuses that shells expect for them."""

import signal
import threading
from contextlib import contextmanager
from types import FrameType
from typing import Iterator, Optional

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
    with handled_by(_raise, even_if_ignored):
        yield


@contextmanager
def handled_by(handler, even_if_ignored: bool = False) -> Iterator[None]:
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
