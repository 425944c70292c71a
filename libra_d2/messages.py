"""Values and names of other people's files, as they are written into messages."""

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


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, or its type where it has none."""
    return printable(" ".join(str(error).split())) or type(error).__name__
