"""Write files completely or not at all, and never over the inputs."""

import os
import re
import stat
import time
import uuid
from contextlib import contextmanager, suppress
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from ..errors import UserError
from .system_errors import write_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # typeshed declares a module

# Partial files have 32 random digits in their names, and a suffix for writers that need one.
_PARTIAL = re.compile(r".*\.[0-9a-f]{32}\.libra-partial(\.\w+)?", re.DOTALL)
_LENGTH_OF_OURS = 64  # bytes, of the 255 that a name may have
_ABANDONED_AFTER = 24 * 3600  # seconds, where files cannot be locked


@contextmanager
def replacing(path: Union[str, os.PathLike], suffix: str = "") -> Iterator[str]:
    """
    Yield the path of a new, empty file next to `path`. It replaces `path` if the block ends without
    an exception, so that either the old or the new content is there completely, even after a power
    failure. The file gets the usual permissions of new files.

    Args:
        path: the file to write. It may exist.
        suffix: suffix of the new file, such as ".mp4", for writers that choose the format by it.

    Raises:
        UserError: `path` exists and is not a regular file, such as `/dev/null`.
        WriteError: the file cannot be written. This replaces any exception that the writer raised.
    """
    path = os.fspath(path)
    try:
        if os.path.lexists(path) and not _may_be_replaced(path):
            raise UserError(f"{path} is a folder, pipe or device. Name a file to write")
        partial, descriptor = _new_partial(path, suffix)
    except OSError as e:
        raise write_error(e, path) from None
    try:
        try:
            yield partial
        except OSError:
            raise
        except Exception:
            # torch and LMDB raise other errors if the disk is full. Then this write fails, too.
            os.lseek(descriptor, 0, os.SEEK_END)
            os.write(descriptor, bytes(1 << 16))
            os.fsync(descriptor)
            raise
        _to_disk(partial)
        os.replace(partial, path)
        _to_disk(os.path.dirname(path) or ".")
    except OSError as e:
        if e.filename in (None, partial, path):
            raise write_error(e, path) from None
        raise
    finally:
        os.close(descriptor)
        with suppress(OSError):
            os.remove(partial)


def write_text(path: str, text: str) -> None:
    """Replace a file by one with this text. What UTF-8 cannot encode is escaped."""
    with (
        replacing(path) as partial,
        open(partial, "w", encoding="utf-8", errors="backslashreplace") as f,
    ):
        f.write(text)


def _may_be_replaced(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:  # a link that leads nowhere
        return True


def _new_partial(path: str, suffix: str) -> Tuple[str, int]:
    """
    Create a file and return its path and descriptor. The descriptor holds a lock until it is
    closed. The name is random, so that nobody can prepare a link of that name, and so that
    processes in different containers and on different machines never share it.
    """
    folder, name = os.path.split(path)
    name = os.fsdecode(os.fsencode(name)[: 255 - _LENGTH_OF_OURS - len(suffix)])
    while True:
        partial = os.path.join(folder, f"{name}.{uuid.uuid4().hex}.libra-partial{suffix}")
        # Not tempfile.mkstemp, whose files nobody else may read.
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with suppress(OSError):  # a file system without locks
                _lock(descriptor)
            if os.path.exists(partial):  # not removed before it was locked
                return partial, descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """
    Lock a file without waiting.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: files cannot be locked here.
    """
    if fcntl is None:
        raise OSError("no locks")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_partial(folder: Union[str, os.PathLike], recursive: bool = False) -> None:
    """
    Remove the files that :func:`replacing` leaves behind when its process is killed. Files that a
    process is still writing are kept, and so are all files with other names.

    Args:
        recursive: also search subfolders. Links are not followed.
    """
    for root, folders, names in os.walk(os.fspath(folder)):
        for name in filter(_PARTIAL.fullmatch, names):
            with suppress(OSError):  # another user's, or removed by another process
                _remove_if_abandoned(os.path.join(root, name))
        if not recursive:
            folders.clear()


def _remove_if_abandoned(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        _lock(descriptor)
    except BlockingIOError:
        return
    except OSError:
        if time.time() - os.fstat(descriptor).st_mtime < _ABANDONED_AFTER:
            return
    else:
        os.remove(path)
        return
    finally:
        os.close(descriptor)
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


def make_folder_of(path: str) -> None:
    """
    Create the folder of a file, if necessary.

    Raises:
        WriteError: the system refuses to create it.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    except OSError as e:
        raise write_error(e, path) from None


Paths = Union[str, Sequence[str], None]


def check_outputs(outputs: Mapping[str, Paths], inputs: Mapping[str, Paths]) -> None:
    """
    Check, before anything is read or written, that no output is the same file as an input or as
    another output, whichever paths or links lead to it. Then remove what killed processes have
    left next to the outputs.

    Args:
        outputs: paths to write, by the option that names them. Empty paths are ignored.
        inputs: paths to read, by the option that names them or by a description.

    Raises:
        UserError: an output is the same file as an input or another output.
    """
    taken: Dict[object, str] = {}
    for what, path in _each(inputs):
        for place in _places(path):
            taken.setdefault(place, f"{what} {path}")
    for what, path in _each(outputs):
        places = _places(path)
        for place in places:
            if place in taken:
                raise UserError(
                    f"{what} {path} would replace {taken[place]}: name another file to write"
                )
        taken.update((place, f"{what} {path}") for place in places)
    for folder in {os.path.dirname(path) or "." for _, path in _each(outputs)}:
        remove_partial(folder)


def _each(named: Mapping[str, Paths]) -> Iterator[Tuple[str, str]]:
    for what, paths in named.items():
        for path in (paths,) if isinstance(paths, (str, os.PathLike)) else paths or ():
            if path:
                yield what, os.fspath(path)


def _places(path: str) -> Tuple[object, ...]:
    """
    Return keys that all paths of one file share: the path without links and, if the file exists,
    its device and inode, because hard links and names in another case can lead to the same file.
    """
    identity: Optional[Tuple[int, int]] = None
    with suppress(OSError, ValueError):
        status = os.stat(path)
        identity = (status.st_dev, status.st_ino)
    with suppress(OSError, ValueError):
        return tuple(p for p in (os.path.normcase(os.path.realpath(path)), identity) if p)
    return ()


def file_stamp(path: str) -> List[int]:
    """Return the size in bytes and the modification time in ns; [] if the file does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]
