"""What uvicorn alone does not do: leave service before it stops, and close connections that send no request."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from math import ceil
from types import FrameType
from typing import Any, Protocol

import uvicorn

logger = logging.getLogger("uvicorn.error")

LOOKS = 4
"""At connections, within the time that a head may take."""

TOLD_BEFORE = 0.8
"""The part of uvicorn's own time to drain after which those who still wait are told."""


class Drains(Protocol):
    """The receiver of the news that the server is about to stop."""

    is_draining: bool

    def give_up(self) -> None:
        """Tell all who still wait that they wait for nothing."""
        ...


def running_server() -> uvicorn.Server | None:
    """Return the uvicorn that runs this app, known by its handler of SIGTERM; None where there is none."""
    if threading.current_thread() is not threading.main_thread():
        return None
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def drain_on_signals(server: uvicorn.Server, service: Drains, delay: float, timeout: float) -> None:
    """Let SIGTERM take the server out of service first, and end it with status 0 when it has drained.

    For `delay` seconds `/readyz` says 503 and answers close their connections, so that whoever sends requests can
    go elsewhere; then uvicorn stops. A second SIGTERM ends that time. After the drain uvicorn raises the signal
    that it got: SIGTERM would end the process as killed, SIGINT ends it as done. So it is told of a SIGINT.

    `timeout` seconds after the stop began, by SIGTERM or SIGINT, the service gives up; with a second SIGINT, at
    once. Two seconds later uvicorn waits no more for those that did not end even then. Where uvicorn was told
    another --timeout-graceful-shutdown, the service gives up when four fifths of it are over, if that is earlier:
    uvicorn's end of a request is a 500.

    uvicorn's supervisors (--workers, --reload) pass one SIGTERM on, and not a second one.
    """
    if server.config.timeout_graceful_shutdown is None:
        server.config.timeout_graceful_shutdown = ceil(timeout) + 2
    else:
        timeout = min(timeout, TOLD_BEFORE * server.config.timeout_graceful_shutdown)
    loop = asyncio.get_running_loop()
    handler: Callable[[int, FrameType | None], object] = server.handle_exit

    def interrupt(_: int, frame: FrameType | None) -> None:
        service.is_draining = True  # with h11 uvicorn itself does not say that it closes a connection
        # The second one is to end the server at once, but on uvloop uvicorn still waits for all connections.
        left = 0.0 if server.should_exit else timeout
        handler(signal.SIGINT, frame)
        loop.call_soon_threadsafe(loop.call_later, left, service.give_up)

    def end() -> None:
        if not server.should_exit:  # a second SIGINT would end the drain, a second SIGTERM does not
            interrupt(signal.SIGINT, None)

    def drain(_: int, __: FrameType | None) -> None:
        if service.is_draining or not delay or not server.started:  # before the start nobody has to go elsewhere
            end()
        else:
            service.is_draining = True
            loop.call_soon_threadsafe(loop.call_later, delay, end)

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, interrupt)


async def close_slow_heads(server: uvicorn.Server, seconds: float) -> None:
    """Close each connection that has sent no complete head of a request for so long, or up to a quarter longer.

    Idle connections that were answered before are not among them: they have uvicorn's own limit.
    """
    loop = asyncio.get_running_loop()
    http: Any = server.config.http_protocol_class  # not websockets
    since: dict[Any, tuple[object, float]] = {}
    while True:
        await asyncio.sleep(seconds / LOOKS)
        now = loop.time()
        seen = {}
        connections: list[Any] = list(server.server_state.connections)
        for connection in connections:
            if not isinstance(connection, http) or not _waits_for_a_head(connection):
                continue
            last, start = since.get(connection, (connection, now))
            # Another request before means that it was answered since the last look.
            seen[connection] = connection.cycle, start if connection.cycle is last else now
            if now - seen[connection][1] >= seconds:
                connection.shutdown()
        since = seen


def log_failure(task: asyncio.Task[None]) -> None:
    """Log why the connections are watched no more, if it was not the end of the server."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("Slow heads are no longer closed: restart the server", exc_info=error)


def _waits_for_a_head(connection: Any) -> bool:  # noqa: ANN401 - of one of uvicorn's protocols
    """Whether bytes of a head, or none at all, are what has come since the last answer."""
    idle = connection.timeout_keep_alive_task is not None
    return not idle and (connection.cycle is None or connection.cycle.response_complete)
