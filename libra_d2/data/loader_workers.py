"""Worker processes of a data loader that leave signals to the main process and report failures."""

import errno
import logging
import multiprocessing.queues
import os
import re
import signal
import sys
import threading
import traceback
from typing import Any, Iterator

from torch.utils.data import DataLoader

from ..errors import UserError
from ..utils.system_errors import as_user_error, shared_memory_is_full

try:
    import resource
except ModuleNotFoundError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

WARN_AFTER = 60  # seconds without a batch
GIVE_UP_AFTER = 1800  # seconds, when other processes of the run give up waiting, too


def init_worker(worker_id: int) -> None:
    """Set up a worker process. This is the `worker_init_fn` of a `DataLoader`."""
    # A terminal or scheduler signals the whole process group, but only the main process handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_if_parent_says_so, daemon=True).start()
    # Otherwise, a batch that cannot be sent would be dropped, and be waited for forever.
    setattr(  # noqa: B010
        multiprocessing.queues.Queue, "_on_queue_feeder_error", staticmethod(_end_of_failed_send)
    )
    sys.excepthook = _print_unless_disconnected


def _print_unless_disconnected(kind, error, trace) -> None:
    """
    Print an error of the thread that passes tensors on, unless the main process has disconnected,
    as it does when it is stopped.
    """
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _end_if_parent_says_so() -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid in (0, os.getppid()):
            os._exit(0)


def _end_of_failed_send(error: BaseException, batch: Any) -> None:
    """Exit with the system's error number, which :mod:`libra_d2.utils.system_errors` explains."""
    number = getattr(error, "errno", None)
    if not number:
        in_text = re.search(r"\((\d+)\)$", str(error).strip())  # "No space left on device (28)"
        number = int(in_text.group(1)) if in_text else 0
    if number not in (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        traceback.print_exception(type(error), error, error.__traceback__)
        number = 1
    sys.stderr.flush()
    os._exit(errno.EMFILE if number == errno.ENFILE else number)


def require_open_files(num_workers: int, batch_size: int) -> None:
    """
    Raise the limit on open files, as far as the system allows, if the workers need more.

    The pipes to workers and the tensors that they pass on are all open files. A process that
    reaches the limit would wait for images forever.

    Args:
        num_workers: number of worker processes.
        batch_size: number of images in a batch of one worker.

    Raises:
        UserError: The system does not allow enough open files.
    """
    if num_workers == 0 or resource is None:
        return
    in_use = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 32
    pipes = 4 * num_workers + 2
    tensors = 3 * batch_size * (num_workers + 1)  # an image, its boxes and its classes
    needed = in_use + pipes + tensors + 16
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return
    if most != resource.RLIM_INFINITY and most < needed:
        raise UserError(
            f"the system lets this process open {most} files, but DATALOADER.NUM_WORKERS "
            f"{num_workers} needs about {needed}. Raise the limit (`ulimit -n 4096`), or lower "
            "DATALOADER.NUM_WORKERS (0 starts no worker processes)"
        )
    wanted = 2 * needed if most == resource.RLIM_INFINITY else min(2 * needed, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class WatchedLoader(DataLoader):
    """
    Like torch's `DataLoader`, loads batches in worker processes. In addition, it warns when workers
    are slow, and ends the run with a one-line error when they have died or do not respond. The
    workers ignore signals from the start.

    Raises:
        UserError: The system does not allow enough open files for the workers.
    """

    def __init__(self, *args, num_workers: int = 0, **kwargs):
        batches = kwargs.get("batch_sampler")
        require_open_files(num_workers, batches.batch_size if batches else kwargs["batch_size"])
        watched = {"worker_init_fn": init_worker, "timeout": WARN_AFTER} if num_workers else {}
        super().__init__(*args, **{"num_workers": num_workers, **watched, **kwargs})

    # torch documents an iterator, but annotates a private class.
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        blocked = {signal.SIGINT, signal.SIGTERM}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # workers inherit it
        try:
            batches = super().__iter__()
        except OSError as e:
            if e.errno == errno.ENOSPC and not e.filename:  # of the semaphores of its queues
                raise shared_memory_is_full() from e
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._watched(batches) if self.num_workers else batches

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        waited = 0.0
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as e:
                if "timed out" not in str(e):
                    raise as_user_error(e) or e from e
                waited += self.timeout
                state = f"the loader workers have sent no images for {waited:.0f} s"
                if waited >= GIVE_UP_AFTER:
                    raise UserError(
                        f"{state}. Check whether the drive of the images is still available. With "
                        "DATALOADER.NUM_WORKERS 0, the main process loads them and shows where it "
                        "waits"
                    ) from e
                logger.warning(f"{state}; still waiting")
                continue
            waited = 0.0
            yield batch
