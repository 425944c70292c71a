"""Read JSON from other people within limits, and report errors in one line."""

import json
import os
import stat
from typing import Any

import numpy as np

from ..errors import UserError
from .messages import one_line, printable
from .progress import announced

# The largest annotation file of COCO has 0.45 GB.
MAX_BYTES = 4 << 30
# Annotations have seven levels, records of runs fewer than ten.
MAX_DEPTH = 64
# Parsing 100 MB takes three seconds.
_SLOW_BYTES = 32 << 20

_NO_BRACKETS_OR_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))


def read_json(path: str, *, what: str = "", max_bytes: int = MAX_BYTES) -> Any:
    """
    Read a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        path: a regular file. Pipes and devices are refused, because they may never end.
        what: what the file is, for messages, such as "annotation file".
        max_bytes: a larger file is refused before it is read.

    Raises:
        UserError: the file does not exist, cannot be read, is too large, is not JSON, or is nested
            deeper than `MAX_DEPTH` levels. The message is one line that names the file.
    """
    name = _named(path, what)
    with announced(f"Reading {name}", at_once=is_slow(path)):
        return parse_json(read_regular_file(path, what=what, max_bytes=max_bytes), name)


def is_slow(path: str) -> bool:
    """Whether parsing a JSON file, during which no other thread runs, may take over a second."""
    try:
        return os.path.getsize(path) >= _SLOW_BYTES
    except (OSError, ValueError):
        return False


def read_regular_file(path: str, *, what: str = "", max_bytes: int = MAX_BYTES) -> bytes:
    """
    Read a file that is neither a folder nor a pipe or device.

    Raises:
        UserError: the file does not exist, cannot be read, or is too large.
    """
    name = _named(path, what)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{name} is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{name} is not a regular file")
        if status.st_size > max_bytes:
            raise UserError(f"{name} must have at most {max_bytes} bytes, got {status.st_size}")
        with open(path, "rb") as f:
            return f.read(status.st_size)  # a larger number would allocate memory for it
    except FileNotFoundError:
        raise UserError(f"{name} does not exist") from None
    except (OSError, ValueError, MemoryError) as e:  # ValueError: a NUL in the path
        why = getattr(e, "strerror", None) or one_line(e)
        raise UserError(f"{name} cannot be read: {why}") from None


def parse_json(content: bytes, name: str) -> Any:
    """
    Parse JSON within the limits of :func:`read_json`.

    Args:
        content: JSON in UTF-8, UTF-16 or UTF-32.
        name: name of the file, for messages.

    Raises:
        UserError: `content` is not JSON, or is nested deeper than `MAX_DEPTH` levels.
    """
    try:
        data = json.loads(content)
    except RecursionError:
        raise UserError(_too_deep(name)) from None
    except ValueError as e:
        raise UserError(f"{name} is not a JSON file: {one_line(e)}") from None
    if json.detect_encoding(content) not in ("utf-8", "utf-8-sig"):
        content = content.decode(json.detect_encoding(content), "replace").encode(errors="replace")
    if depth_of_json(content) > MAX_DEPTH:
        raise UserError(_too_deep(name))
    return data


def depth_of_json(content: bytes) -> int:
    """
    Count the levels of lists and objects in valid JSON in UTF-8, in less time than parsing takes.

    Example:
        >>> depth_of_json(b'{"boxes": [[1, 2], []]}')
        3
    """
    # Remove pairs of backslashes first; a backslash that is left before a quote escapes it.
    if b"\\" in content:
        content = content.replace(rb"\\", b"").replace(rb"\"", b"")
    symbols = np.frombuffer(content.translate(None, _NO_BRACKETS_OR_QUOTES), dtype=np.uint8)
    in_string = np.cumsum(symbols == ord('"'), dtype=np.uint32) & 1 == 1
    opening = np.isin(symbols, list(b"[{")) & ~in_string
    closing = np.isin(symbols, list(b"]}")) & ~in_string
    return int(np.cumsum(opening.astype(np.int32) - closing.astype(np.int32)).max(initial=0))


def _too_deep(name: str) -> str:
    return f"{name} is nested deeper than {MAX_DEPTH} levels"


def _named(path: str, what: str) -> str:
    return f"{what} {printable(str(path))}".lstrip()
