"""Collect the images of concurrent requests into batches for a detector."""

import asyncio
import contextlib
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, List, Optional, Sequence

from ..inference.predictor import Predictor
from ..inference.slicing import Slicing
from ..predictions.detections import Detections
from ..utils.threads import num_threads


class QueueFull(Exception):
    """
    There is no room for more images. `retry_after` is the number of seconds after which there
    probably is.
    """

    def __init__(self, retry_after: int):
        super().__init__(f"too many images are waiting. Try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class Job:
    """An image that waits for the detector: the content of its file, and how it is cut."""

    content: bytes
    slicing: Optional[Slicing] = None
    arrived: float = field(default_factory=time.monotonic)
    result: "asyncio.Future[Detections]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class BatchDetector:
    """
    Detects objects in the images of a batch. An image that cannot be read fails alone.

    Several threads read and resize images. On a CPU, an ONNX file runs on each core with an image
    of its own; a model in torch gets batches of images of the same size.
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._readers = ThreadPoolExecutor(num_threads(), "read")

    def __call__(self, jobs: Sequence[Job]) -> List[Any]:
        """Return the :class:`Detections` of each job, or the exception that it caused."""
        results = list(self._readers.map(self._read, jobs))  # records first, where there are any
        good = [i for i, r in enumerate(results) if isinstance(r, dict)]
        for i, instances in zip(good, self._predict([results[i] for i in good])):
            results[i] = instances
        for i, job in enumerate(jobs):
            if job.slicing is not None:
                results[i] = _attempt(self._predictor.detect_slices, job.content, job.slicing)
        return [r if isinstance(r, Exception) else Detections.from_instances(r) for r in results]

    def _read(self, job: Job) -> Any:
        """Return a record or an exception; None for an image that is cut, which takes memory."""
        if job.slicing is not None:
            return None
        return _attempt(self._predictor.preprocess, job.content)

    def _predict(self, records: Sequence[Any]) -> Sequence[Any]:
        """Return the instances in each image, or an exception."""
        if not records:
            return []
        found = _attempt(self._predictor.predict, records)
        if not isinstance(found, Exception):
            return found
        if len(records) == 1:
            return [found]
        return [self._predict([record])[0] for record in records]  # find out which one it is

    def close(self) -> None:
        self._readers.shutdown(cancel_futures=True)


def _attempt(f: Callable, *args: Any) -> Any:
    try:
        return f(*args)
    except Exception as e:
        return e


class Batcher:
    """
    Collects jobs of concurrent requests, and gives them to a detector in batches.

    A batch starts as soon as it is full, or when its first image has waited for `max_delay`. While
    one is running, the next one fills up, so that under load batches are full without any delay.
    All methods must be called in the event loop.
    """

    def __init__(
        self,
        detect: Callable[[Sequence[Job]], List[Any]],
        *,
        max_batch: int,
        max_delay: float,
        max_queue: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ):
        """
        Args:
            detect: returns the result of each job, or an exception. It is run in a thread.
            max_batch: largest number of images of a batch.
            max_delay: seconds.
            max_queue: largest number of images that wait.
            observe: is called with the size of each batch, and the seconds that it took.
        """
        self._detect, self._observe = detect, observe
        self.max_batch, self.max_delay, self.max_queue = max_batch, max_delay, max_queue
        self._waiting: Deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "detect")
        self._task: Optional[asyncio.Task] = None
        self._seconds_per_image = 0.1

    def __len__(self) -> int:
        """Return the number of images that wait."""
        return len(self._waiting)

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self.max_queue

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop. Requests must have been answered before, as the server does it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=True)

    def submit(self, jobs: Sequence[Job]) -> None:
        """
        Add the images of a request, all or none of them. Their `result` is set when they are done.

        Raises:
            QueueFull: there is no room for them.
        """
        if self._waiting and len(self._waiting) + len(jobs) > self.max_queue:
            raise QueueFull(self.retry_after())
        self._waiting.extend(jobs)
        self._arrived.set()

    def forget(self, jobs: Sequence[Job]) -> None:
        """Do not detect objects in the images of a request that has ended, to make room."""
        for job in jobs:
            job.result.cancel()
        self._waiting = deque(job for job in self._waiting if not job.result.done())

    def retry_after(self) -> int:
        """Return the seconds until the images that wait now are done, from 1 to 60."""
        return min(60, max(1, round(len(self._waiting) * self._seconds_per_image)))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs = await self._batch()
            if not jobs:
                continue
            start = time.monotonic()
            try:
                results = await loop.run_in_executor(self._thread, self._detect, jobs)
            except Exception as e:  # a defect; the server goes on
                results = [e] * len(jobs)
            seconds = time.monotonic() - start
            self._seconds_per_image += 0.2 * (seconds / len(jobs) - self._seconds_per_image)
            self._observe(len(jobs), seconds)
            for job, result in zip(jobs, results):
                if job.result.done():  # its request has gone
                    continue
                if isinstance(result, Exception):
                    job.result.set_exception(result)
                else:
                    job.result.set_result(result)

    async def _batch(self) -> List[Job]:
        while not self._waiting:
            await self._next_arrival()
        due = self._waiting[0].arrived + self.max_delay
        while 0 < len(self._waiting) < self.max_batch and (left := due - time.monotonic()) > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._next_arrival(), left)
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), self.max_batch))]

    async def _next_arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()
