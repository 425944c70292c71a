"""Progress of everything that may take more than two seconds."""

import sys
from typing import Any, Iterable, Optional

from tqdm import tqdm

DELAY = 2  # seconds: what is done by then shows nothing
LINE_PERIOD = 30  # seconds between two lines where the output is no terminal


class Progress(tqdm):
    """
    A bar on a terminal, and elsewhere, such as in the log of a batch system, a line every half
    minute. Both go to standard error, with the rate and the time that is left.
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
            items: what is iterated over; None if :meth:`update` is called instead.
            others: see `tqdm.tqdm`.
        """
        self._on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._line_time, self._line_n = 0.0, -1
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
