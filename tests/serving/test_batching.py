"""Images of concurrent requests share batches, and each request gets its own answer."""

import asyncio
import threading

import pytest

from libra_d2.inference.slicing import Slicing
from libra_d2.serving import batching
from libra_d2.serving.batching import BatchDetector, Batcher, Job, QueueFull


class Detector:
    """Answers with the content; a batch waits until it is let through."""

    def __init__(self):
        self.batches, self.gate = [], threading.Semaphore(0)

    def __call__(self, jobs):
        self.gate.acquire()
        self.batches.append([job.content for job in jobs])
        return [ValueError("bad") if job.content == b"bad" else job.content for job in jobs]

    def let_through(self, number=1000):
        for _ in range(number):
            self.gate.release()


def run(scenario, **options):
    """Run a coroutine with a detector and its batcher."""
    options = {"max_batch": 3, "max_delay": 0.0, "max_queue": 10, **options}

    async def within():
        detector = Detector()
        batcher = Batcher(detector, **options)
        batcher.start()
        try:
            await asyncio.wait_for(scenario(detector, batcher), 30)
        finally:
            detector.let_through()
            await batcher.stop()
        return detector.batches

    return asyncio.run(within())


def submitted(batcher, *contents):
    jobs = [Job(content) for content in contents]
    batcher.submit(jobs)
    return [job.result for job in jobs]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_images_that_come_during_a_batch_form_the_next_ones():
    async def scenario(detector, batcher):
        first = submitted(batcher, b"0")
        await until(lambda: len(batcher) == 0)  # the batch of the first one has started
        later = [submitted(batcher, b"%d" % i) for i in range(1, 6)]
        detector.let_through()
        assert await asyncio.gather(*first, *(r for rs in later for r in rs)) == [
            b"%d" % i for i in range(6)
        ]

    assert run(scenario) == [[b"0"], [b"1", b"2", b"3"], [b"4", b"5"]]


def test_a_full_batch_does_not_wait():
    async def scenario(detector, batcher):
        detector.let_through()
        await asyncio.gather(*submitted(batcher, b"0", b"1", b"2"))

    assert run(scenario, max_delay=1e6) == [[b"0", b"1", b"2"]]


def test_images_wait_for_others_that_come_soon():
    async def scenario(detector, batcher):
        detector.let_through()
        first = submitted(batcher, b"0")
        await asyncio.sleep(0.01)
        await asyncio.gather(*first, *submitted(batcher, b"1"))

    assert run(scenario, max_delay=1.0, max_batch=2) == [[b"0", b"1"]]


def test_a_full_queue_refuses_all_images_of_a_request():
    async def scenario(detector, batcher):
        submitted(batcher, b"0")
        await until(lambda: len(batcher) == 0)
        kept = submitted(batcher, b"1", b"2", b"3")
        assert not batcher.is_full
        with pytest.raises(QueueFull) as e:
            submitted(batcher, b"4", b"5")
        assert len(batcher) == 3 and 1 <= e.value.retry_after <= 60
        kept += submitted(batcher, b"6")
        assert batcher.is_full
        detector.let_through()
        await asyncio.gather(*kept)
        assert not batcher.is_full and batcher.is_running

    assert run(scenario, max_queue=4) == [[b"0"], [b"1", b"2", b"3"], [b"6"]]


def test_a_request_of_more_images_than_the_queue_has_is_accepted_when_nothing_waits():
    async def scenario(detector, batcher):
        detector.let_through()
        await asyncio.gather(*submitted(batcher, b"0", b"1", b"2"))

    assert run(scenario, max_queue=2) == [[b"0", b"1", b"2"]]


def test_an_image_fails_alone_and_those_of_clients_that_left_are_left_out():
    async def scenario(detector, batcher):
        submitted(batcher, b"0")
        await until(lambda: len(batcher) == 0)
        bad, good = submitted(batcher, b"bad", b"good")
        gone = [Job(b"gone"), Job(b"gone, too")]
        batcher.submit(gone)
        assert len(batcher) == 4
        batcher.forget(gone)
        assert len(batcher) == 2, "they take the room of others"
        detector.let_through()
        assert await good == b"good"
        with pytest.raises(ValueError, match="bad"):
            await bad

    assert run(scenario) == [[b"0"], [b"bad", b"good"]]


def test_a_defect_of_the_detector_is_the_answer_and_not_the_end():
    async def scenario(detector, batcher):
        calls = []

        def fails_once(jobs):
            calls.append(len(jobs))
            if len(calls) == 1:
                raise RuntimeError("defect")
            return [job.content for job in jobs]

        batcher._detect = fails_once
        with pytest.raises(RuntimeError, match="defect"):
            await submitted(batcher, b"0")[0]
        assert await submitted(batcher, b"1")[0] == b"1"

    run(scenario)


def test_an_image_that_the_network_refuses_does_not_take_others_with_it():
    class Predictor:
        def preprocess(self, content):
            if content == b"unreadable":
                raise ValueError("cannot be read")
            return {"image": content}

        def predict(self, records):
            if {"image": b"too large"} in records:
                raise MemoryError
            return records

        def detect_slices(self, content, slicing):
            assert slicing == Slicing(64)
            return {"image": b"slices of " + content}

    class Detections:
        @staticmethod
        def from_instances(instances):
            return instances["image"]

    async def within():
        jobs = [Job(c) for c in (b"a", b"unreadable", b"too large", b"b")]
        return BatchDetector(Predictor())([*jobs, Job(b"c", Slicing(64))])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "Detections", Detections)
        a, unreadable, large, b, c = asyncio.run(within())
    assert (a, b, c) == (b"a", b"b", b"slices of c")
    assert isinstance(unreadable, ValueError) and isinstance(large, MemoryError)
