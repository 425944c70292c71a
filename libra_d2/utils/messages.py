"""Format values and names from files of other people for messages."""

import logging
import re
import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 3


def shown(value: Any) -> str:
    """Return the `repr` of a value with at most 80 characters per string and three levels."""
    return _short.repr(value)


def printable(name: str) -> str:
    """
    Make a name safe to print on any terminal: control characters, and bytes of a file name that are
    not valid UTF-8, become escapes such as `\\x1b` and `\\udcff`.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def printable_lines(text: str) -> str:
    """Apply :func:`printable` to each line of a message."""
    return "\n".join(map(printable, text.split("\n")))


class PrintableLines(logging.Filter):
    """Filter for log handlers that applies :func:`printable` to messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = _KEPT.sub(_escaped, message), ()
        return True


def make_logs_printable() -> None:
    """Apply :func:`printable` to all log messages. Call this after the loggers are set up."""
    handlers = [*filter(None, [logging.lastResort]), *logging.root.handlers]
    for logger in list(logging.root.manager.loggerDict.values()):
        handlers += getattr(logger, "handlers", ())
    for handler in handlers:
        if not any(isinstance(f, PrintableLines) for f in handler.filters):
            handler.addFilter(PrintableLines())


# Keep the color codes of Detectron2's messages.
_KEPT = re.compile(r"\x1b\[[0-9;]*m|[^\n\t ]", re.DOTALL)


def _escaped(match: "re.Match[str]") -> str:
    return match[0] if len(match[0]) > 1 else printable(match[0])


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line, or its type if the message is empty."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def duration(seconds: float) -> str:
    """
    Return a duration in the unit in which it is easy to read.

    >>> duration(40), duration(600), duration(9000)
    ('40 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
