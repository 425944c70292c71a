"""Full disks, read-only folders and limits of the system, told in one line."""

import errno
import os
import re
from contextlib import contextmanager
from typing import Iterator, Optional, Union

from .errors import UserError

_FEWER_WORKERS = "lower DATALOADER.NUM_WORKERS (0: no worker processes)"
_ADVICE = {
    errno.ENOSPC: "free some space, or set OUTPUT_DIR to another disk",
    errno.EDQUOT: "free some of your quota, or set OUTPUT_DIR to another disk",
    errno.EROFS: "set OUTPUT_DIR to a folder that can be written to",
    errno.EACCES: "set OUTPUT_DIR to a folder that you may write to",
    errno.EPERM: "set OUTPUT_DIR to a folder that you may write to",
    errno.EMFILE: f"raise the limit (`ulimit -n 4096`), or {_FEWER_WORKERS}",
    errno.ENFILE: f"close other programs, or {_FEWER_WORKERS}",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f unlimited`), or set OUTPUT_DIR "
    "to another file system",
    errno.ENOTDIR: "a part of this path is a file: set OUTPUT_DIR to a folder",
    errno.EEXIST: "this is a file: set OUTPUT_DIR to a folder",
    errno.EISDIR: "this is a folder, where a file is to be written: move it away",
    errno.ENAMETOOLONG: "set OUTPUT_DIR to a shorter name",
    errno.EIO: "the drive, or the connection to it, fails",
    errno.EAGAIN: f"the system allows no more processes (`ulimit -u`): {_FEWER_WORKERS}",
    errno.ENOMEM: f"there is not enough memory: {_FEWER_WORKERS} or SOLVER.IMS_PER_BATCH",
}
SHARED_MEMORY = "/dev/shm"


def as_user_error(
    error: Optional[BaseException], path: Union[str, os.PathLike, None] = None
) -> Optional[UserError]:
    """
    The error as one line that says what to do, if it is the user's to solve; else None.

    Args:
        error: a UserError is returned as it is.
        path: what was written to, for errors that do not say it.
    """
    if error is None or isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in _ADVICE:
        place = error.filename if isinstance(error.filename, (str, bytes)) else path
        where = f"{os.fsdecode(place)}: " if place else ""
        text = f"{os.strerror(error.errno)}: {_ADVICE[error.errno]}"
        return UserError(where + (text if where else text[0].lower() + text[1:]))
    if isinstance(error, RuntimeError):
        return _of_torch(str(error))
    return None


def _of_torch(text: str) -> Optional[UserError]:
    """What a failed loader worker, or a tensor that is passed between processes, has raised."""
    worker = re.search(r"DataLoader worker \(pid[^)]*\)", text)
    code = re.search(r"exit code (\d+)", text)
    number = int(code.group(1)) if code else 0
    too_many = "Too many open files" in text or "ancdata" in text or number == errno.EMFILE
    if too_many and (worker or "shared memory" in text or "ancdata" in text or "ulimit" in text):
        return UserError(f"too many open files: {_ADVICE[errno.EMFILE]}")
    in_shared_memory = re.search(r"</torch_[^>]*>.*\((\d+)\)", text)
    number = int(in_shared_memory.group(1)) if in_shared_memory else number
    if number == errno.ENOSPC or "Bus error" in text or "unable to write to file </torch_" in text:
        return shared_memory_is_full()
    if in_shared_memory:
        return UserError(
            f"the shared memory {SHARED_MEMORY}, through which loader workers pass images, cannot "
            f"be used ({os.strerror(number)}): mount it so that it can be written to"
        )
    if worker and ("Killed" in text or number == errno.ENOMEM):
        return UserError(
            "a loader worker was killed, as the system does when memory runs out: "
            f"{_ADVICE[errno.ENOMEM]}"
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
    Within, what the system refuses is raised as a :class:`UserError` that names the path.

    `torch.save` hides the system's error behind one of its own, which is seen through.
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
