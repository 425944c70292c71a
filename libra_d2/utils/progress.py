"""Show the progress of work that may take more than two seconds."""

import sys
import threading
import time
from contextlib import contextmanager
from typing import Any, Iterable, Iterator, Optional

from tqdm import tqdm

from .messages import printable

DELAY = 2  # seconds; work that takes less time shows nothing
LINE_PERIOD = 30  # seconds between two lines if the output is not a terminal


def _is_main_process() -> bool:
    """Whether this is the first of the processes that work together, or the only one."""
    if "detectron2" not in sys.modules:  # it is what starts them
        return True
    from detectron2.utils import comm

    return comm.is_main_process()


class Progress(tqdm):
    """
    Show a bar on a terminal and, elsewhere, such as in the log of a batch system, a line every half
    minute. Both are written to standard error, with the rate and the remaining time. In a run with
    several processes only the first one shows them.
    """

    def __init__(
        self,
        items: Optional[Iterable[Any]] = None,
        desc: Optional[str] = None,
        *,
        unit: str = "image",
        **kwargs: Any,
    ):
        """
        Args:
            items: the items to iterate over; None if :meth:`update` is called instead.
            others: see `tqdm.tqdm`.
        """
        self._on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._line_time, self._line_n = 0.0, -1
        kwargs.setdefault("disable", not _is_main_process())
        interval = 0.1 if self._on_terminal else LINE_PERIOD
        super().__init__(
            items,
            desc,
            unit=unit,
            file=sys.stderr,
            delay=DELAY,
            mininterval=interval,
            maxinterval=max(interval, 10),
            miniters=None if self._on_terminal else 1,  # never wait for a number of items
            dynamic_ncols=self._on_terminal,
            leave=self._on_terminal,  # lines of a file stay anyway
            **kwargs,
        )

    def display(self, msg: Optional[str] = None, pos: Optional[int] = None) -> bool:
        if self._on_terminal:
            return super().display(msg, pos)
        if msg is None and self._time() - self._line_time >= LINE_PERIOD:
            self._write_line()
        return False

    def clear(self, nolock: bool = False) -> None:
        if self._on_terminal:  # a line of a file cannot be taken back
            super().clear(nolock)

    def close(self) -> None:
        if not getattr(self, "disable", True) and self._line_n >= 0 and self.n != self._line_n:
            self._write_line()
        super().close()

    def _write_line(self) -> None:
        self._line_time, self._line_n = self._time(), self.n
        self.fp.write(f"{self.format_meter(**{**self.format_dict, 'ncols': 0})}\n")
        self.fp.flush()


def progress(
    items: Optional[Iterable[Any]] = None, desc: Optional[str] = None, **kwargs: Any
) -> Progress:
    """
    Iterate over the items while their progress is shown. See :class:`Progress`.

        for image in progress(images, "Checking"):
            ...
    """
    return Progress(items, desc, **kwargs)


@contextmanager
def announced(text: str, *, at_once: bool = False) -> Iterator[None]:
    """
    Announce a single slow call, which cannot report its progress. If it takes longer than `DELAY`,
    one line says what is done, and another one says afterwards how long it took.

    Args:
        text: what is done, such as "Reading model.pth".
        at_once: whether to write the first line before the call. This is needed for C code that
            blocks all other threads, including the one that would write the line.
    """
    start, said = time.monotonic(), threading.Event()

    def say() -> None:
        said.set()
        _say_line(f"{text} ...")

    timer = threading.Timer(DELAY, say)
    timer.daemon = True
    if at_once and _is_main_process():
        say()
    elif _is_main_process():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.is_alive():
            timer.join()
    if said.is_set():
        _say_line(f"{text}: {time.monotonic() - start:.1f} s")


def _say_line(text: str) -> None:
    if sys.stderr is not None:
        tqdm.write(printable(text), file=sys.stderr)  # above bars
        sys.stderr.flush()
