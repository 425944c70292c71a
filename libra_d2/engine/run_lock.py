"""
A lock that lets only one run at a time train in a folder: `run.lock` in OUTPUT_DIR.

A lock that was left behind, by SIGKILL or a power failure, is recognized. On the same machine, the
process is looked up by its id and its start time, since ids are reused. From other machines and
containers, the modification time of the file is checked, which a run renews while it is alive.
"""

import atexit
import contextlib
import datetime
import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from detectron2.utils import comm

from ..errors import UserError
from ..utils.system_errors import writing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # mypy lets no module be None

NAME = "run.lock"
RENEWED_EVERY = 20  # seconds
STALE_AFTER = 120  # seconds, if the process cannot be looked up from here

_held: Dict[str, "_Lock"] = {}  # by the real path of the folder


@contextmanager
def run_lock(output_dir: str) -> Iterator[None]:
    """
    Hold the lock of a folder within the context. The main process of a run holds it for the others.

    Raises:
        UserError: another process holds it.
    """
    acquire(output_dir)
    try:
        yield
    finally:
        release(output_dir)


def acquire(output_dir: str) -> None:
    """Hold the lock until :func:`release` or the end of the process. A second call does nothing."""
    folder = os.path.realpath(output_dir)
    if comm.is_main_process() and folder not in _held:
        _held[folder] = _Lock(os.path.join(folder, NAME), shown=os.path.join(output_dir, NAME))


def release(output_dir: str) -> None:
    lock = _held.pop(os.path.realpath(output_dir), None)
    if lock is not None:
        lock.remove()


@atexit.register
def _release_all() -> None:
    for folder in list(_held):
        release(folder)


def holder(output_dir: str) -> str:
    """
    Return the process that holds the lock of a folder, such as "process 123 on host, since
    2026-01-31T12:00:00+00:00"; "" if none does.
    """
    path = os.path.join(output_dir, NAME)
    try:
        with open(path, encoding="utf-8") as file:
            owner = _read(file)
        held = owner is not None and _is_alive(owner, path)
    except FileNotFoundError:  # it may be removed at any time
        return ""
    return _described(owner) if owner is not None and held else ""


def _described(owner: Dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}, since {owner['time']}"


class _Lock:
    def __init__(self, path: str, shown: str):
        self.path = path
        self.owner = _this_process()
        with writing(shown):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with _opened_alone(path) as file:
                other = _read(file)
                if other is not None and _is_alive(other, path):
                    raise UserError(
                        f"another run is training in {os.path.dirname(shown) or '.'}: "
                        f"{_described(other)}. Set another OUTPUT_DIR, or end that run first (if "
                        f"it has ended, delete {shown})"
                    )
                file.seek(0)
                file.truncate()
                json.dump(self.owner, file)
                file.flush()
        self._ended = threading.Event()
        threading.Thread(target=self._renew, daemon=True).start()

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def remove(self) -> None:
        self._ended.set()
        if os.getpid() != self.owner["pid"]:  # forked
            return
        with contextlib.suppress(OSError), _opened_alone(self.path) as file:
            if _read(file) == self.owner:
                os.remove(self.path)


@contextmanager
def _opened_alone(path: str) -> Iterator[Any]:
    """Open the file, or create it, while other processes that call this wait."""
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                    file.seek(0)
                    yield file
                    return
        # It was removed while this process waited for it.


def _read(file: Any) -> Optional[Dict[str, Any]]:
    """Return the owner; None if there is none, or if it was killed while it wrote the file."""
    try:
        owner = json.loads(file.read())
    except ValueError:
        return None
    known = isinstance(owner, dict) and {"host", "place", "pid", "start", "time"} <= set(owner)
    return owner if known and isinstance(owner["pid"], int) else None


def _this_process() -> Dict[str, Any]:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "host": socket.gethostname(),
        "place": _place(),
        "pid": os.getpid(),
        "start": _start(os.getpid()),
        "time": now,
    }


def _place() -> str:
    """Return a name of the boot and the container, within which process ids can be compared."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _start(pid: int) -> str:
    """Return a process's start time in ticks since boot; "" if it has ended or /proc is missing."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else others[18]


def _is_alive(owner: Dict[str, Any], path: str) -> bool:
    if owner["place"] != _place():
        return time.time() - os.path.getmtime(path) < STALE_AFTER
    if os.path.isdir("/proc/self"):
        return bool(owner["start"]) and owner["start"] == _start(owner["pid"])
    try:
        os.kill(owner["pid"], 0)
        return True
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
