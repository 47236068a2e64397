"""What lives as long as a server: its batchers, and whether requests should come to it."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from batchers import Batcher
from batchers.integrations.prometheus import BatcherCollector

from .alone import Alone
from .uvicorn_server import close_slow_heads, drain_on_signals, log_failure, running_server

logger = logging.getLogger("uvicorn.error")


class Service:
    """The batchers of a server, from its start to the end of its drain.

    drain_delay
        Seconds for which a server that has to stop still takes requests, so that proxies notice: 0 or more.
    drain_timeout
        Seconds for which it waits for the answers of accepted requests; then they get 503. Above 0.
    head_timeout
        Seconds that a client has for the head of a request, up to a quarter more. Above 0.

    The limits need uvicorn, in the process of the app; under another server a warning says that they have no
    effect.
    """

    def __init__(
        self,
        *batchers: Batcher[Any, Any],
        drain_delay: float = 0.0,
        drain_timeout: float = 20.0,
        head_timeout: float = 10.0,
    ) -> None:
        """Initialise the service; nothing is started."""
        self.batchers = batchers
        self.alone: list[Alone] = []
        self.is_draining = False
        self.drain_delay = drain_delay
        self.drain_timeout = drain_timeout
        self.head_timeout = head_timeout
        self.has_started = False
        self._end: asyncio.Task[None] | None = None
        self._registry = CollectorRegistry()
        self._registry.register(BatcherCollector(*batchers))

    @property
    def is_healthy(self) -> bool:
        """False if a batcher is broken in a way that only a restart mends."""
        return all(batcher.healthy for batcher in self.batchers)

    @property
    def is_alive(self) -> bool:
        """False if only a restart of this process mends it."""
        return self.is_healthy

    @property
    def is_ready(self) -> bool:
        """True while requests should come: the start has ended, the batchers are healthy, and no drain goes on."""
        return self.has_started and not self.is_draining and self.is_healthy

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Be the `lifespan` of a FastAPI or Starlette application."""
        server = running_server()
        if server is not None:
            drain_on_signals(server, self, self.drain_delay, self.drain_timeout)
        try:
            await self.start()
            async with _slow_heads_closed(server, self.head_timeout):
                yield
        finally:
            await self.stop()

    async def start(self) -> None:
        """Take all objects of this moment out of the sight of the garbage collector, and be ready.

        With the objects of TensorFlow on the heap one full collection stops a server for 250 ms.
        """
        gc.collect()
        gc.freeze()
        self.has_started = True
        for batcher in self.batchers:
            logger.info("Serving with %r", batcher)

    async def stop(self) -> None:
        """Answer what was accepted, then end; what has no answer when the time for it is over gets 503."""
        self.is_draining = True
        # The end of the event loop may have cancelled the task of give_up before it began.
        given_up = self._end is not None
        timeout = 0.0 if given_up else self.drain_timeout
        await _all(batcher.stop(force=given_up, timeout=timeout) for batcher in self.batchers)
        for alone in self.alone:
            alone.stop()

    def give_up(self) -> None:
        """Answer 503 to all who still wait. On the event loop."""
        stops = (batcher.stop(force=True, timeout=0.0) for batcher in self.batchers)
        self._end = asyncio.create_task(_all(stops))
        for alone in self.alone:
            alone.give_up()

    async def metrics(self) -> bytes:
        """Return the metrics of the batchers in the text format of Prometheus."""
        return generate_latest(self._registry)

    async def statistics(self) -> dict[str, Any]:
        """Return the counters and last decisions of the batchers; of several ones, by their names."""
        found = {batcher.name: _statistics(batcher) for batcher in self.batchers}
        return next(iter(found.values())) if len(found) == 1 else found


class Reports(Protocol):
    """What has the reports of batchers."""

    async def metrics(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        ...

    async def statistics(self) -> dict[str, Any]:
        """Return the counters and last decisions."""
        ...


async def _all(stops: Any) -> None:  # noqa: ANN401 - an iterable of awaitables
    awaitables: list[Awaitable[None]] = list(stops)
    await asyncio.gather(*awaitables)


@asynccontextmanager
async def _slow_heads_closed(server: uvicorn.Server | None, seconds: float) -> AsyncIterator[None]:
    if server is None:
        logger.warning("No uvicorn of this process runs the app: head_timeout and a drain have no effect")
        yield
        return
    task = asyncio.create_task(close_slow_heads(server, seconds))
    task.add_done_callback(log_failure)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def add_operations(api: FastAPI, service: Service, about: Mapping[str, Any] | None = None) -> None:
    """Add the routes `/healthz`, `/readyz`, `/metrics` and `/stats` to a FastAPI application.

    `about` is more for `/stats`, for instance settings. With several batchers `/stats` has an object for
    each, by its name.
    """

    @api.get("/healthz", responses={503: {"description": "So many batches hang that only a restart helps."}})
    async def healthz() -> JSONResponse:
        """Answer 200 as long as the process can serve, now or later."""
        if service.is_alive:
            return JSONResponse({"status": "alive"})
        return JSONResponse({"status": "stuck"}, 503)

    @api.get("/readyz", responses={503: {"description": "Starting or stopping."}})
    async def readyz() -> JSONResponse:
        """Answer 200 while requests are served."""
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503)

    add_reports(api, service, about or {})


def add_reports(api: FastAPI, service: Reports, about: Mapping[str, Any]) -> None:
    """Add the routes `/metrics` and `/stats`."""

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Show the counters of the batchers in Prometheus' text format."""
        return Response(await service.metrics(), media_type=CONTENT_TYPE_LATEST)

    @api.get("/stats")
    async def stats() -> dict[str, Any]:
        """Show the settings, counters and last decisions of the batchers as JSON."""
        return {**about, **await service.statistics()}


def _statistics(batcher: Batcher[Any, Any]) -> dict[str, Any]:
    decisions = [dispatch._asdict() for dispatch in batcher.decisions()]
    return {**dataclasses.asdict(batcher.stats()), "decisions": decisions}
