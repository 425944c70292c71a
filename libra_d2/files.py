"""Files that are either whole or not there."""

import os
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yields a path beside `path` to write to, which takes its place if nothing was raised."""
    partial = f"{path}.partial{os.getpid()}"
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
