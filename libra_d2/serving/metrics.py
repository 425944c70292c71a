"""Counters of a server, in the format of Prometheus."""

from typing import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, max_batch: int):
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "libra_d2_requests", "Answered requests.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "libra_d2_request_seconds",
            "Time from the first byte of a request to the last one of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "libra_d2_requests_in_progress",
            "Requests that are not answered yet.",
            registry=registry,
        )
        self.images = Counter(
            "libra_d2_images", "Images in which objects were detected.", registry=registry
        )
        self.detections = Counter("libra_d2_detections", "Returned detections.", registry=registry)
        self.batch_size = Histogram(
            "libra_d2_batch_size",
            "Images of a batch.",
            buckets=[n for n in (1, 2, 4, 8, 16, 32, 64) if n < max_batch] + [max_batch],
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "libra_d2_batch_seconds",
            "Time of reading the images of a batch and detecting objects in them.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue = Gauge(
            "libra_d2_queue_images", "Images that wait for the detector.", registry=registry
        )

    def watch_queue(self, length: Callable[[], int]) -> None:
        self._queue.set_function(length)

    def observe_batch(self, size: int, seconds: float) -> None:
        self.batch_size.observe(size)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
