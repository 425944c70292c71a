"""Log files on a disk that gets full: the run goes on without them."""

import contextlib
import functools
import logging
import os
import sys

from ..storage_errors import as_user_error


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
