"""Files that are either whole or not there."""

import glob
import os
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """
    Yields a path beside `path` to write to, which takes its place if nothing was raised: also
    after a power failure, the one or the other is there as a whole.
    """
    partial = f"{path}.partial{os.getpid()}"
    try:
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
        _to_disk(os.path.dirname(path) or ".")
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def remove_partial(folder: str) -> None:
    """Remove what :func:`replacing` left in a folder when its process was killed."""
    for path in glob.glob(os.path.join(glob.escape(folder), "*.partial[0-9]*")):
        os.remove(path)


def _to_disk(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # a folder, on Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
