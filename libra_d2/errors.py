import errno
import os

from .messages import printable, printable_lines


class UserError(ValueError):
    """
    A mistake in what the user gave: shown as one line, without a stack trace. Names in it may be
    other people's: control characters of theirs are escaped.
    """

    def __str__(self) -> str:
        return printable_lines(super().__str__())


class WriteError(OSError, UserError):
    """A file cannot be written, and what to do: shown as one line, too."""

    def __str__(self) -> str:
        return f"{printable(self.filename)} cannot be written: {self.strerror}"


_WHAT_TO_DO = {
    errno.ENOSPC: "Free disk space, or write to another disk",
    errno.EDQUOT: "Free space, or write to a disk where your quota is larger",
    errno.EROFS: "Write to a place that is not mounted read-only",
    errno.EACCES: "Write to a folder where you have permission, or get it",
    errno.EPERM: "Write to a folder where you have permission, or get it",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or write to another disk",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    errno.ENFILE: "Close other programs, or raise the system's limit on open files",
    errno.EIO: "The disk reports an error: write to another one",
    errno.ENOENT: "Make the folder first, or name another one",
    errno.EEXIST: "A folder of the path is a file: name another folder",
    errno.ENOTDIR: "A folder of the path is a file: name another folder",
    errno.EISDIR: "Name a file, not a folder",
    errno.ENAMETOOLONG: "Give it a shorter name",
    errno.ELOOP: "The links of the path lead in a circle: name another path",
}

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def write_error(error: OSError, path: str = "") -> OSError:
    """
    Args:
        error: raised while a file was written, or a folder made.
        path: of the file, if the error does not name it.

    Returns:
        A :class:`WriteError` that says what to do; `error` itself if that is not known.
    """
    path = path or error.filename
    if isinstance(error, WriteError) or error.errno not in _WHAT_TO_DO or not path:
        return error
    reason = f"{os.strerror(error.errno)}. {_WHAT_TO_DO[error.errno]}"
    return WriteError(error.errno, reason, os.fsdecode(path))


def describe(error: OSError) -> str:
    """One line on an error of a file that may have been read or written."""
    known = write_error(error)
    if isinstance(known, WriteError) and error.errno in _OF_WRITING:
        return str(known)
    return f"{printable(os.fsdecode(error.filename))}: {error.strerror or error}"
