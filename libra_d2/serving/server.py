"""Run the web application until a signal asks to stop."""

import asyncio
import contextlib
import os
import socket
from typing import Any, Optional

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import UserError
from ..utils.json_files import read_regular_file
from .logs import log, set_up_logs

TOKEN = "LIBRA_D2_TOKEN"
_MAX_TOKEN = 4096  # bytes


def read_token(token_file: str = "") -> str:
    """
    Return the token that clients must send, from a file or the environment variable LIBRA_D2_TOKEN;
    "" if there is none. It is no option, because all users of a machine can see the options of
    a process.

    Raises:
        UserError: both are given, the file cannot be read, or the token is empty or not of ASCII
            letters without spaces.
    """
    of_environment = os.environ.get(TOKEN)
    if token_file and of_environment is not None:
        raise UserError(f"--token-file cannot be used with the environment variable {TOKEN}")
    if not token_file and of_environment is None:
        return ""
    where = f"the token in {token_file}" if token_file else f"the environment variable {TOKEN}"
    if token_file:
        content = read_regular_file(token_file, what="token file", max_bytes=_MAX_TOKEN)
        token = content.decode("utf-8", "replace").strip()
    else:
        token = of_environment or ""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"{where} must be printable ASCII characters without spaces")
    return token


def listen(host: str, port: int) -> socket.socket:
    """
    Return a socket that listens.

    Raises:
        UserError: the address cannot be used.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port must be in [0, 65535], got {port}")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, proto)
    except (OSError, UnicodeError) as e:
        raise UserError(f"--host must be an address of this machine, got {host!r}: {e}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(512)
    except OSError as e:
        made.close()
        raise UserError(
            f"cannot listen at --host {host} --port {port}: {e.strerror}. Give another port, or 0 "
            "for any free one"
        ) from None
    return made


def address_of(listening: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Protocol(H11Protocol):
    """Closes a connection on which the headers of a request do not arrive in time."""

    seconds = 30.0
    _timer: Optional[asyncio.TimerHandle] = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._between_requests():
            self._wait()
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        if self._between_requests():
            self.transport.close()


def serve(
    app: Any, listening: socket.socket, *, graceful_seconds: float, header_seconds: float
) -> bool:
    """
    Serve until SIGINT or SIGTERM. Then no more connections are accepted, and the requests that
    have arrived are finished, for at most `graceful_seconds`; a second signal ends it at once. The
    headers of a request must arrive within `header_seconds`.

    Returns:
        Whether the server had started.
    """
    set_up_logs()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # the application has its own
        server_header=False,
        timeout_graceful_shutdown=max(1, round(graceful_seconds)),
        ws="none",
        h11_max_incomplete_event_size=32 << 10,  # of the headers
        http=type("Protocol", (_Protocol,), {"seconds": header_seconds}),
    )
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again at the end
        server.run(sockets=[listening])
    log("stopped")
    return server.started
