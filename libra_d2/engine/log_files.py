"""Let a run continue if its log cannot be written, for example because the disk is full."""

import contextlib
import functools
import logging
import os
import sys
import threading
from typing import Callable

from ..utils.system_errors import as_user_error


def survive_full_disk() -> None:
    """Make log files that can no longer be written close themselves, with one line on stderr."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.Logger.manager.loggerDict)]
    for handler in {h for logger in loggers for h in logger.handlers}:
        name = getattr(getattr(handler, "stream", None), "name", None)
        if not isinstance(handler, logging.StreamHandler) or not isinstance(name, str):
            continue
        if os.path.isfile(name):
            on_error = functools.partial(close_if_full, handler, handler.handleError)
            setattr(handler, "handleError", on_error)  # noqa: B010 (mypy refuses an assignment)


def close_if_full(
    handler: logging.StreamHandler,
    otherwise: Callable[[logging.LogRecord], None],
    record: logging.LogRecord,
) -> None:
    """
    Handle the error of a log file that cannot be written: close it, with one line on stderr.

    Args:
        otherwise: called with `record` after another error.
    """
    name = getattr(handler.stream, "name", None)
    error = as_user_error(sys.exc_info()[1], name)
    if error is None:
        otherwise(record)
        return
    stream, handler.stream = handler.stream, open(os.devnull, "w")  # noqa: SIM115
    with contextlib.suppress(OSError):  # its buffer cannot be written either
        stream.close()
    print(f"warning: {error}. The run continues without this log", file=sys.stderr)


def report_in_one_line() -> None:
    """
    Report system errors in threads, such as that of TensorBoard's writer, in one line instead of a
    stack trace. Do not report those of Python's cleanup at exit, because the call that needed the
    resource raises its own error.
    """
    if getattr(threading.excepthook, "_in_one_line", False):
        return
    of_threads, of_cleanup = threading.excepthook, sys.unraisablehook

    def in_thread(args) -> None:
        error = as_user_error(args.exc_value)
        if error is None:
            of_threads(args)
        else:
            print(f"warning: {error}", file=sys.stderr)

    def at_end(args) -> None:
        if as_user_error(args.exc_value) is None:
            of_cleanup(args)

    setattr(in_thread, "_in_one_line", True)  # noqa: B010 (mypy knows no attributes of functions)
    threading.excepthook, sys.unraisablehook = in_thread, at_end
