"""Tell local paths from URLs."""

import os
import re
from typing import Union

from ..errors import UserError

# A scheme has at least two letters, because "C://folder" is a path on Windows.
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.\-]+:/+", re.ASCII)


def is_url(path: str) -> bool:
    """Whether a name begins with a scheme, such as `https://` or `packed://`."""
    return "://" in path and _SCHEME.match(path) is not None


def local_path(path: Union[str, os.PathLike], what: str) -> str:
    """
    Check that a name is a path on this machine. Detectron2's `PathManager` downloads anything that
    looks like a URL, to a place that the URL chooses. Therefore every name except `MODEL.WEIGHTS`
    is checked here and then opened with `open`.

    Args:
        path: a name from the command line, or from a file that somebody else may have written.
        what: what the name stands for, such as "DATASETS.TRAIN" or "the image". The message begins
            with it.

    Returns:
        The path as it is.

    Raises:
        UserError: it is a URL or contains a NUL character.
    """
    path = os.fspath(path)
    if is_url(path):
        hint = (
            "Give the path without file://"
            if path.strip().lower().startswith("file:")
            else "Download the file yourself and give its path"
        )
        raise UserError(f"{what} must be a path on this machine, got the URL {path!r}. {hint}")
    if "\0" in path:
        raise UserError(f"{what} must be a path without NUL characters, got {path!r}")
    return path


def is_inside(path: str, folder: str) -> bool:
    """Whether a file lies in a folder or its subfolders, after all links are resolved."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder
