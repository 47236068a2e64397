"""A front end: it speaks HTTP, and sends the bodies of requests to the process with the model."""

from __future__ import annotations

import argparse
import asyncio
import json
import select
import signal
import socket
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import uvicorn

from batchers import BatcherUnavailableError
from batchers.remote import RemoteBatcher, connect

from .application import ALONE, MANY, ONE, Route, assemble, endpoint_of
from .endpoints import Endpoint, Process
from .packed import unpack
from .processes import arguments, end_with_runner, say_ready, set_up_logging
from .service import Service, add_operations
from .settings import ModelSettings, read_settings

LONGEST = 30.0
"""Seconds of a request where the settings have no limit: a process that was stopped ends no connection."""

ACCEPT_TURNS = 1000
"""Turns of the loop that a stop waits at most for the connections that the system has accepted already."""


LINGER = 1.0
"""Seconds for which connections without a request stay open after a stop has begun."""


class FrontEnd(Service):
    """The client of the batcher, from the start of a front end to the end of its drain."""

    def __init__(self, client: RemoteBatcher[Any, Any], settings: ModelSettings) -> None:
        """Initialise the service."""
        super().__init__(
            client,
            drain_delay=settings.drain_delay,
            drain_timeout=settings.drain_timeout,
            head_timeout=settings.head_timeout,
        )
        self.client = client
        self.settings = settings
        self.problem = ""

    @property
    def is_alive(self) -> bool:
        """True: a restart of this process mends nothing."""
        return True

    async def metrics(self) -> bytes:
        """Return the metrics of the process with the model."""
        return await self.client.ask("/metrics")

    async def statistics(self) -> dict[str, Any]:
        """Return the statistics of the process with the model."""
        found: dict[str, Any] = json.loads(await self.client.ask("/stats"))
        return found


class Forwarded(Endpoint):
    """An endpoint whose results are answers of the process with the model."""

    def answer(self, result: Any) -> tuple[int, bytes, bytes]:  # noqa: ANN401 - bytes
        """Return the answer as it has come."""
        return unpack(result)


class Asks:
    """Forwards requests to a route that is not the batcher's own."""

    def __init__(self, client: RemoteBatcher[Any, Any], path: str, longest: float) -> None:
        """Store the route, and the seconds of a request that says nothing of them."""
        self._client, self._path, self._longest = client, path, longest

    def process(self, item: Any, /, *, timeout: float | None) -> Awaitable[bytes]:  # noqa: ANN401 - bytes
        """Return the answer to the body of a request."""
        seconds = self._longest if timeout is None else timeout
        return self._client.ask(self._path, b"%r\n%s" % (seconds, item), timeout=seconds)


class Server(uvicorn.Server):
    """uvicorn on a listener that other processes share."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept the connections that the system has accepted already; then stop as uvicorn does, but later.

        uvicorn closes connections that have no request at this moment, and with them requests that are on their
        way. So they stay until they have had one more answer, which says that it is the last one, for LINGER
        seconds at most.
        """
        for _ in range(ACCEPT_TURNS):
            if not select.select(sockets or [], [], [], 0)[0]:
                break
            await asyncio.sleep(0)
        for each in self.servers:
            each.close()
        end = time.monotonic() + LINGER
        while time.monotonic() < end and any(map(_is_idle, self.server_state.connections)):  # noqa: ASYNC110 - as below
            await asyncio.sleep(LINGER / 100)
        await super().shutdown(sockets)


def _is_idle(connection: Any) -> bool:  # noqa: ANN401 - of one of uvicorn's protocols
    cycle = connection.cycle
    return cycle is None or cycle.response_complete


async def run(given: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    settings = read_settings(ModelSettings)
    longest = settings.timeout or LONGEST
    limit = settings.max_queue_size
    most = limit if limit < 0 else limit + 4096  # refusals of the process with the model are on their way, too
    client = connect(given.socket, codec="bytes", timeout=longest, max_pending=most, name="predictions")
    while True:
        try:
            await client.connected()
        except BatcherUnavailableError as error:  # the process with the model starts, or has just ended
            await asyncio.sleep(error.retry_after)
        else:
            break
    service = FrontEnd(client, settings)
    settings = settings.model_copy(update={"timeout": longest})

    def forwarded(process: Process) -> Endpoint:
        return endpoint_of(settings, process, bytes, bytes, kind=Forwarded)

    many = f"{given.path}_many"
    routes = [
        Route(given.path, "item", ONE, forwarded(client.process), client),
        Route(many, "items", MANY, forwarded(Asks(client, many, longest).process), None),
    ]
    if given.alone is not None:
        routes.append(
            Route(given.alone, "item", ALONE, forwarded(Asks(client, given.alone, longest).process), None)
        )
    app = assemble(service, routes, title="batchers", description="", version="0")
    add_operations(app.api, service)
    app.api.openapi = lambda: client.about["openapi"]  # type: ignore[method-assign]  # as FastAPI documents
    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=given.access_log,
        timeout_keep_alive=given.timeout_keep_alive,
    )
    server = Server(config)
    end_with_runner(given.runner, lambda: signal.raise_signal(signal.SIGTERM))
    started = asyncio.create_task(_say_when_started(server, given.ready))
    await server.serve(sockets=[socket.socket(fileno=given.fd)])
    started.cancel()


async def _say_when_started(server: uvicorn.Server, ready: int) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    say_ready(ready)


def main() -> None:
    """Run with the event loop that uvicorn takes."""
    parser = arguments("a front end")
    parser.add_argument("--access-log", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--timeout-keep-alive", type=int, default=5)
    given = parser.parse_args()
    set_up_logging(given.log_level)
    with (
        suppress(KeyboardInterrupt),  # uvicorn raises the signal of its stop once more, which a drain makes SIGINT
        asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner,
    ):
        runner.run(run(given))


if __name__ == "__main__":
    main()
