"""Values and names of other people's files, as they are written into messages."""

import logging
import re
import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 3


def shown(value: Any) -> str:
    """A value as Python writes it, shortened: at most 80 letters of a text, three levels deep."""
    return _short.repr(value)


def printable(name: str) -> str:
    """
    A name that can be printed on every terminal: control characters, and bytes of a file name that
    are not UTF-8, become escapes such as `\\x1b` and `\\udcff`. Other letters stay.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def printable_lines(text: str) -> str:
    """As :func:`printable` of each line of a message."""
    return "\n".join(map(printable, text.split("\n")))


class PrintableLines(logging.Filter):
    """For handlers of logs, whose records may hold names of other people's files."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = _KEPT.sub(_escaped, message), ()
        return True


def make_logs_printable() -> None:
    """Escape what :func:`printable` escapes in all that is logged. Call it after the set-up."""
    handlers = [logging.lastResort, *logging.root.handlers]
    for logger in list(logging.root.manager.loggerDict.values()):
        handlers += getattr(logger, "handlers", ())
    for handler in handlers:
        if not any(isinstance(f, PrintableLines) for f in handler.filters):
            handler.addFilter(PrintableLines())


# Not the colours that Detectron2's own messages have.
_KEPT = re.compile(r"\x1b\[[0-9;]*m|[^\n\t ]", re.DOTALL)


def _escaped(match: "re.Match[str]") -> str:
    return match[0] if len(match[0]) > 1 else printable(match[0])


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, or its type where it has none."""
    return printable(" ".join(str(error).split())) or type(error).__name__
