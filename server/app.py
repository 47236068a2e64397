"""The app: `BATCHER_BACKEND=threading|asyncio uvicorn server.app:app`."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchers import Batcher, create_batcher

from .alone import Alone
from .metrics import make_registry
from .model import FEATURES, ModelFileError, Predictor, load
from .predictions import Endpoint, Front, Handed
from .problems import ROW
from .process import close_slow_heads, drain_on_signals, running_server, say_if_it_failed
from .settings import Settings, read_settings

logger = logging.getLogger("uvicorn.error")

DESCRIPTION = f"""
Two ways to the same prediction: `/predict` calls the model for one request alone, `/optimized_predict`
puts concurrent requests into one batch. Both take a JSON array of {FEATURES} finite numbers and answer a
JSON number.
"""

CALLS_ALONE = 40
"""Calls of the model for one request alone at most, at a time: as many as FastAPI has threads for."""


class Service:
    """What lives as long as the server: the model and its batcher."""

    def __init__(self, settings: Settings) -> None:
        """Make the batcher; nothing is loaded or started."""
        self.settings = settings
        self.draining = False
        self._loaded = False
        self._end: asyncio.Task[None] | None = None
        self.problem = ""
        self.model: Predictor | None = None
        self.alone = Alone(self._predict, CALLS_ALONE, settings.timeout)
        self.batcher: Batcher[list[float], float] = create_batcher(
            settings.backend, self._predict, **settings.batcher_options()
        )

    async def start(self) -> None:
        """Load the model and warm it up, then take its objects out of the garbage collector's sight.

        With TensorFlow's objects on the heap one full collection stops the server for 250 ms. Raises
        ModelFileError.
        """
        try:
            self.model = await run_in_threadpool(load, self.settings.model_file, self.settings.model_call)
            await run_in_threadpool(self.model.warm_up, self.settings.largest_batch)
        except ModelFileError as error:
            self.problem = f"error: MODEL_FILE={self.settings.model_file}: {error}"
            raise
        gc.collect()
        gc.freeze()
        self._loaded = True
        logger.info("Serving with %r, model call: %s", self.batcher, self.settings.model_call)

    @property
    def ready(self) -> bool:
        """Whether requests should come here: the model is loaded, batches run, and the server is not to stop."""
        return self._loaded and not self.draining and self.batcher.healthy

    async def stop(self) -> None:
        """Answer what was accepted, then end; what has no answer when the time for it is over gets 503."""
        self.draining = True
        # The end of the event loop may have cancelled the task of give_up before it began.
        given_up = self._end is not None
        await self.batcher.stop(force=given_up, timeout=0.0 if given_up else self.settings.drain_timeout)
        self.alone.stop()

    def give_up(self) -> None:
        """Answer 503 to all who still wait. On the event loop."""
        self._end = asyncio.create_task(self.batcher.stop(force=True, timeout=0.0))
        self.alone.give_up()

    def _predict(self, rows: list[list[float]]) -> list[Any]:
        if self.model is None:
            msg = "the model is not loaded: run the app with its lifespan"
            raise RuntimeError(msg)
        return self.model.predict(rows)


class StartInShort:
    """Middleware: where the model file is bad, the start ends with one line instead of a traceback."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        """Wrap the app."""
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, but what the app says of a failed start."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_in_short(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._service.problem:
                message["message"] = self._service.problem
            await send(message)

        await self._app(scope, receive, send_in_short)


def create_app(settings: Settings) -> Front:
    """Return the app for these settings."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server = running_server()
        if server is not None:
            drain_on_signals(server, service, settings.drain_delay, settings.drain_timeout)
        try:
            await service.start()
            async with _slow_heads_closed(server, settings.head_timeout):
                yield
        finally:
            await service.stop()

    api = FastAPIOffline(
        title="batchers", description=DESCRIPTION, version="0.2.0", lifespan=lifespan, redirect_slashes=False
    )
    api.add_middleware(StartInShort, service=service)
    endpoints = _add_predictions(api, service)
    _add_operations(api, service)
    return Front(api, endpoints, lambda: service.draining)


@asynccontextmanager
async def _slow_heads_closed(server: uvicorn.Server | None, seconds: float) -> AsyncIterator[None]:
    if server is None:
        logger.warning("No uvicorn of this process runs the app: BATCHER_HEAD_TIMEOUT and a drain have no effect")
        yield
        return
    task = asyncio.create_task(close_slow_heads(server, seconds))
    task.add_done_callback(say_if_it_failed)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def _add_predictions(api: FastAPI, service: Service) -> dict[str, ASGIApp]:
    documented: dict[str, Any] = {
        "openapi_extra": _request_body(service.settings),
        "responses": {
            408: {"description": "The body did not come in time."},
            413: {"description": "The body is too large."},
            422: {
                "description": "The body is no JSON array of 10 finite numbers, or X-Request-Timeout no number."
            },
            503: {"description": "The queue is full, there is no memory, or the server stops; see Retry-After."},
            504: {"description": "No prediction in time."},
        },
    }
    limits = service.settings.max_body_size, service.settings.body_timeout
    alone = Endpoint(service.alone.process, *limits, service.settings.timeout)
    batched = Endpoint(service.batcher.process, *limits, service.settings.timeout)

    @api.post("/predict", response_model=float, **documented)
    async def predict() -> Response:
        """Call the model for this request alone."""
        return Handed(alone)

    @api.post("/optimized_predict", response_model=float, **documented)
    async def optimized_predict() -> Response:
        """Put this request into a batch with others."""
        return Handed(batched)

    # The original benchmark's clients post with the slash at the end.
    api.post("/predict/", include_in_schema=False)(predict)
    api.post("/optimized_predict/", include_in_schema=False)(optimized_predict)
    return {
        "/predict": alone,
        "/predict/": alone,
        "/optimized_predict": batched,
        "/optimized_predict/": batched,
    }


def _add_operations(api: FastAPI, service: Service) -> None:
    registry = make_registry(service.batcher.stats)

    @api.get("/healthz", responses={503: {"description": "So many batches hang that only a restart helps."}})
    async def healthz() -> JSONResponse:
        """Answer 200 as long as the process can serve, now or later."""
        if service.batcher.healthy:
            return JSONResponse({"status": "alive"})
        return JSONResponse({"status": "stuck"}, 503)

    @api.get("/readyz", responses={503: {"description": "Starting or stopping."}})
    async def readyz() -> JSONResponse:
        """Answer 200 while requests are served."""
        if service.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503)

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Show the batcher's counters in Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @api.get("/stats")
    async def stats() -> dict[str, Any]:
        """Show the batcher's settings, its counters and its last decisions as JSON."""
        found = dataclasses.asdict(service.batcher.stats())
        decisions = [dispatch._asdict() for dispatch in service.batcher.decisions()]
        settings = service.settings
        kept = {"backend": settings.backend, "policy": settings.policy, "model_call": settings.model_call}
        return {**kept, **found, "decisions": decisions}


def _request_body(settings: Settings) -> dict[str, Any]:
    described = settings.description
    schema = ROW.json_schema() | {
        "title": "Measurements",
        "description": "In this order: " + ", ".join(described.features),
        "examples": [described.example],
    }
    content = {"application/json": {"schema": schema, "example": described.example}}
    return {"requestBody": {"required": True, "content": content}}


app = create_app(read_settings())
