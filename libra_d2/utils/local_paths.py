"""Tell local paths from URLs."""

import os
import re
from typing import Union

from ..errors import UserError

# Two letters at least: "C://folder" is a path of Windows.
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.\-]+:/+", re.ASCII)


def is_url(path: str) -> bool:
    """Whether a name begins with a scheme, such as `https://` or `packed://`."""
    return "://" in path and _SCHEME.match(path) is not None


def local_path(path: Union[str, os.PathLike], what: str) -> str:
    """
    Check that a name is a path on this machine. Detectron2's `PathManager` downloads what looks
    like a URL, to a place that the URL chooses, so that everything but `MODEL.WEIGHTS` passes here
    and is then opened by `open` alone.

    Args:
        path: as somebody gave it, or as it stands in a file that somebody else may have written.
        what: it is, to begin the message with, such as "DATASETS.TRAIN" or "the image".

    Returns:
        The path as it is.

    Raises:
        UserError: it is a URL, or holds a NUL character, which no path does.
    """
    path = os.fspath(path)
    if is_url(path):
        hint = (
            "give the path without file://"
            if path.strip().lower().startswith("file:")
            else "download the file yourself and give its path"
        )
        raise UserError(f"{what} must be a path on this machine, got the URL {path!r}: {hint}")
    if "\0" in path:
        raise UserError(f"{what} {path!r} holds a NUL character, which no path does")
    return path


def is_inside(path: str, folder: str) -> bool:
    """Whether a file lies in a folder or in its folders, wherever links lead."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder
