"""What the system refuses while a run writes its log, in one line and without an end of the run."""

import contextlib
import functools
import logging
import os
import sys
import threading

from ..utils.system_errors import as_user_error


def survive_full_disk() -> None:
    """Have every log file that cannot be written to closed, with one line on stderr."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.Logger.manager.loggerDict)]
    for handler in {h for logger in loggers for h in logger.handlers}:
        name = getattr(getattr(handler, "stream", None), "name", None)
        of_file = isinstance(handler, logging.StreamHandler) and isinstance(name, str)
        if of_file and os.path.isfile(name):
            handler.handleError = functools.partial(_close, handler, handler.handleError, name)


def _close(handler: logging.StreamHandler, otherwise, name: str, record) -> None:
    error = as_user_error(sys.exc_info()[1], name)
    if error is None:
        otherwise(record)
        return
    stream, handler.stream = handler.stream, open(os.devnull, "w")  # noqa: SIM115
    with contextlib.suppress(OSError):  # what it still holds cannot be written
        stream.close()
    print(f"warning: {error}. The run goes on without this log", file=sys.stderr)


def report_in_one_line() -> None:
    """
    Threads, such as the one of TensorBoard's writer, and what Python tidies up at the end print no
    stack trace for what the system refuses; the call that needed it fails by itself.
    """
    if getattr(threading.excepthook, "_in_one_line", False):
        return
    of_threads, of_ends = threading.excepthook, sys.unraisablehook

    def in_thread(args) -> None:
        error = as_user_error(args.exc_value)
        if error is None:
            of_threads(args)
        else:
            print(f"warning: {error}", file=sys.stderr)

    def at_end(args) -> None:
        if as_user_error(args.exc_value) is None:
            of_ends(args)

    in_thread._in_one_line = True
    threading.excepthook, sys.unraisablehook = in_thread, at_end
