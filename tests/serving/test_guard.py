"""The limit of all bodies together, which needs requests that are in progress at the same time."""

import asyncio

import pytest

from libra_d2.serving.guard import Guard
from libra_d2.serving.limits import Limits
from libra_d2.serving.metrics import Metrics

HTTPException = pytest.importorskip("fastapi").HTTPException


def scope():
    return {"type": "http", "method": "POST", "path": "/detect", "headers": []}


def test_bodies_of_all_requests_count_until_they_are_answered():
    statuses = []

    async def within():
        arrived, answered = asyncio.Event(), asyncio.Event()

        async def app(scope, receive, send):
            status = 200
            try:
                while (await receive()).get("more_body"):
                    pass
            except HTTPException as e:
                status = e.status_code
            arrived.set()
            await answered.wait()
            await send({"type": "http.response.start", "status": status, "headers": []})

        async def send(message):
            statuses.append(message["status"])

        def receive(*parts):
            messages = iter(parts)

            async def next_one():
                body = next(messages)
                return {"type": "http.request", "body": body, "more_body": body != b""}

            return next_one

        limits = Limits(max_bytes=100, max_total_bytes=150)
        guard = Guard(app, limits=limits, metrics=Metrics(1), paths=frozenset())
        first = asyncio.ensure_future(guard(scope(), receive(b"x" * 90, b""), send))
        await arrived.wait()
        second = asyncio.ensure_future(guard(scope(), receive(b"x" * 60, b"x", b""), send))
        await asyncio.sleep(0.01)
        answered.set()
        await asyncio.gather(first, second)
        assert guard.bytes_in_progress == 0
        await guard(scope(), receive(b"x" * 90, b"x" * 10, b""), send)
        await guard(scope(), receive(b"x" * 90, b"x" * 11, b""), send)

    asyncio.run(within())
    assert statuses == [200, 503, 200, 413]
