"""What every request goes through: the token, the limits of its body, the log and the metrics."""

import asyncio
import hmac
import logging
import time
import uuid
from typing import Any, Dict, FrozenSet, Optional

from fastapi import HTTPException
from starlette.responses import JSONResponse

from .limits import Limits
from .logs import log
from .metrics import Metrics

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


class Guard:
    """
    ASGI middleware around the routes of a server.

    Requests to `protected` paths need the token. A body must have arrived within
    `limits.upload_timeout`, and must not be larger than `limits.max_bytes`. Each request is one
    line in the log.
    """

    def __init__(
        self,
        app: Any,
        *,
        limits: Limits,
        metrics: Metrics,
        paths: FrozenSet[str],
        protected: FrozenSet[str] = frozenset(),
        token: str = "",
    ):
        """
        Args:
            paths: those that have metrics of their own.
            token: "" if there is none.
        """
        self.app, self.limits, self.metrics = app, limits, metrics
        self.paths, self.protected, self._token = paths, protected, token.encode()
        self._in_progress = 0
        self.bytes_in_progress = 0

    async def __call__(self, scope: Dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Watched(scope, receive, send, self)
        self._in_progress += 1
        self.metrics.in_progress.inc()
        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, request.receive, request.send)
            else:
                await self.app(scope, request.receive, request.send)
        except Exception:  # a defect: the client gets one line, and the log the rest
            log("failed", logging.ERROR, exc_info=True, id=request.id)
            if request.status is None:
                answer = JSONResponse({"detail": "the server has failed. See its log"}, 500)
                await answer(scope, request.receive, request.send)
        finally:
            self._in_progress -= 1
            self.bytes_in_progress -= request.received
            self.metrics.in_progress.dec()
            self._record(scope, request)

    def _refusal(self, scope: Dict[str, Any]) -> Optional[JSONResponse]:
        headers = dict(scope["headers"])
        if self._token and scope["path"] in self.protected:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            is_right = hmac.compare_digest(given.strip(), self._token)
            if scheme.lower() != b"bearer" or not is_right:
                detail = "send the token of this server as `Authorization: Bearer TOKEN`"
                return JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": "Bearer"})
        # Any page in a browser may send a form to this machine.
        if scope["path"] in self.protected and headers.get(b"sec-fetch-site") == b"cross-site":
            detail = "requests from pages of other sites are refused"
            return JSONResponse({"detail": detail}, 403)
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.limits.max_bytes:
            return JSONResponse({"detail": _too_large(self.limits)}, 413, {"Connection": "close"})
        if self._in_progress > self.limits.max_requests and scope["path"] in self.protected:
            detail = "too many requests are in progress. Try again in 1 s"
            return JSONResponse({"detail": detail}, 503, {"Retry-After": "1"})
        return None

    def _record(self, scope: Dict[str, Any], request: "_Watched") -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"
        seconds = time.monotonic() - request.start
        status = request.status or 499  # as in nginx: the client has gone
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        client = scope.get("client") or ("", 0)
        log(
            "request",
            id=request.id,
            client=client[0],
            method=scope["method"],
            path=path,
            status=status,
            seconds=round(seconds, 4),
            bytes=request.received,
            **scope.get("state", {}).get("logged", {}),
        )


def _too_large(limits: Limits) -> str:
    return f"a request must have at most {limits.max_bytes} bytes"


class _Watched:
    """The messages of a request, with limits, and what is known of it."""

    def __init__(self, scope: Dict[str, Any], receive: Any, send: Any, guard: Guard):
        self.id, self.start = uuid.uuid4().hex[:12], time.monotonic()
        self.status: Optional[int] = None
        self.received = 0
        self._receive, self._send = receive, send
        self._guard, self._limits = guard, guard.limits
        self._due = self.start + self._limits.upload_timeout
        self._is_whole = False
        scope.setdefault("state", {})["logged"] = {}

    async def receive(self) -> Any:
        if self._is_whole:  # what follows is the end of the connection, however long it takes
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._due - time.monotonic())
        except asyncio.TimeoutError:
            raise HTTPException(
                408,
                f"a request must have arrived within {self._limits.upload_timeout:g} s",
                {"Connection": "close"},
            ) from None
        number = len(message.get("body", b""))
        self.received += number
        self._guard.bytes_in_progress += number
        if self.received > self._limits.max_bytes:
            raise HTTPException(413, _too_large(self._limits), {"Connection": "close"})
        if self._guard.bytes_in_progress > self._limits.max_total_bytes:
            headers = {"Retry-After": "1", "Connection": "close"}
            raise HTTPException(503, "too many bytes are in progress. Try again in 1 s", headers)
        self._is_whole = message["type"] != "http.request" or not message.get("more_body")
        return message

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {**_HEADERS, b"x-request-id": self.id.encode()}
            given = {name.lower() for name, _ in message["headers"]}
            added = [(name, value) for name, value in own.items() if name not in given]
            message = {**message, "headers": [*message["headers"], *added]}
        await self._send(message)
