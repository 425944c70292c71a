"""Turn system errors, such as a full disk, into messages of one line that say what to do."""

import errno
import os
import re
from contextlib import contextmanager
from typing import Iterator, Optional, Union

from ..errors import UserError
from .messages import printable

# In a training run, `{here}` and `{workers}` are replaced by the settings to change.
_ADVICE = {
    errno.ENOSPC: "free disk space, or write to another disk{here}",
    errno.EDQUOT: "free space, or write to a disk where your quota is larger{here}",
    errno.EROFS: "write to a place that is not mounted read-only{here}",
    errno.EACCES: "write to a folder where you have permission{here}, or change the permissions",
    errno.EPERM: "write to a folder where you have permission{here}, or change the permissions",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f unlimited`), or write to "
    "another disk{here}",
    errno.EMFILE: "raise the limit on open files (`ulimit -n 4096`){workers}",
    errno.ENFILE: "close other programs, or raise the system's limit on open files{workers}",
    errno.EIO: "the drive or the connection to it has failed: write to another one{here}",
    errno.ENOENT: "create the folder first, or name another one{here}",
    errno.EEXIST: "a part of the path is a file, not a folder: name another folder{here}",
    errno.ENOTDIR: "a part of the path is a file, not a folder: name another folder{here}",
    errno.EISDIR: "this is a folder: name another file, or move the folder away",
    errno.ENAMETOOLONG: "give it a shorter name{here}",
    errno.ELOOP: "the links of the path lead in a circle: name another path{here}",
}
_FEWER_WORKERS = "lower DATALOADER.NUM_WORKERS (0: no worker processes)"
_OF_PROCESSES = {
    errno.EAGAIN: f"the system allows no more processes (`ulimit -u`): {_FEWER_WORKERS}",
    errno.ENOMEM: f"there is not enough memory: {_FEWER_WORKERS} or SOLVER.IMS_PER_BATCH",
}
# Only writing a file raises these.
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
SHARED_MEMORY = "/dev/shm"


class WriteError(OSError, UserError):
    """A file cannot be written. The message, one line, also says what to do."""

    def __str__(self) -> str:
        return f"{printable(self.filename)} cannot be written: {self.strerror}"


def write_error(error: OSError, path: str = "") -> OSError:
    """
    Convert an error of a command, whose options name the files to write.

    Args:
        error: error that was raised while a file was written or a folder was created.
        path: path of the file, if the error does not name it.

    Returns:
        A :class:`WriteError` that says what to do, or `error` itself if that is not known.
    """
    path = path or error.filename
    if isinstance(error, WriteError) or error.errno not in _ADVICE or not path:
        return error
    reason = _reason(error.errno, _advice(error.errno, of_run=False))
    return WriteError(error.errno, reason, os.fsdecode(path))


def describe(error: OSError) -> str:
    """Describe an error of a file, which may have been read or written, in one line."""
    known = write_error(error)
    if isinstance(known, WriteError) and error.errno in _OF_WRITING:
        return str(known)
    return f"{printable(os.fsdecode(error.filename))}: {error.strerror or error}"


def as_user_error(
    error: Optional[BaseException], path: Union[str, os.PathLike, None] = None
) -> Optional[UserError]:
    """
    Convert an error of a training run, which writes to `OUTPUT_DIR` and has worker processes.

    Args:
        error: any error. A UserError is returned as it is.
        path: path that was written to, for errors that do not name it.

    Returns:
        A UserError whose message, one line, says what to do; None if the user cannot solve it.
    """
    if error is None or isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        return _of_run(error, path)
    if isinstance(error, RuntimeError):
        return _of_torch(str(error))
    return None


def _of_run(error: OSError, path: Union[str, os.PathLike, None]) -> Optional[UserError]:
    advice = _OF_PROCESSES.get(error.errno or 0) or _advice(error.errno, of_run=True)
    if not advice or error.errno == errno.ENOENT:  # for example, a module lacks a file of its own
        return None
    place = error.filename if isinstance(error.filename, (str, bytes)) else path
    reason = _reason(error.errno, advice)
    return UserError(f"{os.fsdecode(place)}: {reason}" if place else reason)


def _advice(number: Optional[int], *, of_run: bool) -> str:
    here, workers = (" (set OUTPUT_DIR)", f", or {_FEWER_WORKERS}") if of_run else ("", "")
    return _ADVICE.get(number or 0, "").format(here=here, workers=workers)


def _reason(number: Optional[int], advice: str) -> str:
    return f"{os.strerror(number or 0)}. {advice[0].upper()}{advice[1:]}"


def _of_torch(text: str) -> Optional[UserError]:
    """Convert an error of a loader worker, or of a tensor that is passed between processes."""
    worker = re.search(r"DataLoader worker \(pid[^)]*\)", text)
    code = re.search(r"exit code (\d+)", text)
    number = int(code.group(1)) if code else 0
    too_many = "Too many open files" in text or "ancdata" in text or number == errno.EMFILE
    if too_many and (worker or "shared memory" in text or "ancdata" in text or "ulimit" in text):
        return UserError(f"too many open files: {_advice(errno.EMFILE, of_run=True)}")
    in_shared_memory = re.search(r"</torch_[^>]*>.*\((\d+)\)", text)
    number = int(in_shared_memory.group(1)) if in_shared_memory else number
    if number == errno.ENOSPC or "Bus error" in text or "unable to write to file </torch_" in text:
        return shared_memory_is_full()
    if in_shared_memory:
        return UserError(
            f"the shared memory {SHARED_MEMORY}, through which loader workers pass images, cannot "
            f"be used ({os.strerror(number)}). Mount it with permission to write"
        )
    if worker and ("Killed" in text or number == errno.ENOMEM):
        return UserError(
            "a loader worker was killed, probably by the system because memory ran out: "
            f"{_OF_PROCESSES[errno.ENOMEM]}"
        )
    if worker and "exited unexpectedly" in text:
        return UserError(
            f"a loader worker ended{f' with exit status {number}' if code else ''} without a "
            f"Python error. If {_shared_memory_size()} is too small, enlarge it (docker: "
            f"--shm-size 8g), or {_FEWER_WORKERS}, which also shows what failed"
        )
    return None


def shared_memory_is_full() -> UserError:
    return UserError(
        f"{_shared_memory_size()}, through which loader workers pass images, is full. "
        f"Enlarge it (docker: --shm-size 8g), or {_FEWER_WORKERS}"
    )


def _shared_memory_size() -> str:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return f"the shared memory {SHARED_MEMORY}"
    size = status.f_blocks * status.f_frsize / 2**20
    return f"the shared memory {SHARED_MEMORY} of {size:.1f} MB"


@contextmanager
def writing(path: Union[str, os.PathLike]) -> Iterator[None]:
    """
    Within the context, raise system errors as a :class:`UserError` that names the path. This
    includes errors that `torch.save` hides behind one of its own.
    """
    try:
        yield
    except (OSError, RuntimeError) as e:
        cause = e
        if isinstance(e, RuntimeError) and isinstance(e.__context__, OSError):
            cause = e.__context__
        error = as_user_error(cause, path)
        if error is None or error is e:
            raise
        raise error from e
