"""The application for any model: FastAPI for its documents and operations, and the routes of predictions."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol

from fastapi import FastAPI, Response, params
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchers import Batcher, create_batcher

from .alone import Alone
from .answers import TooManyItemsError, add_error_handlers
from .cycle import DirectEndpoint, driver_of
from .direct import use_direct_path
from .document import ANSWERS, document
from .endpoints import Endpoint, EndpointResponse, Process, ServedApp
from .models import Model
from .payloads import ModelError, dump
from .service import Service, add_operations
from .settings import Settings
from .uvicorn_server import running_server

logger = logging.getLogger("uvicorn.error")

CALLS_ALONE = 40
"""Calls of the model for one request alone at most, at a time: as many as FastAPI has threads for."""


class ModelService(Service):
    """A model and its batcher, from the start of a server to the end of its drain."""

    def __init__(self, model: Model, settings: Settings) -> None:
        """Make the batcher; nothing is loaded or started."""
        self.model = model
        self.settings = settings
        self.problem = ""
        self.batcher: Batcher[Any, Any] = create_batcher(
            settings.backend, model.function, **settings.batcher_options()
        )
        super().__init__(
            self.batcher,
            drain_delay=settings.drain_delay,
            drain_timeout=settings.drain_timeout,
            head_timeout=settings.head_timeout,
        )

    async def start(self) -> None:
        """Load the model and warm it up. Raises ModelError."""
        try:
            await self.model.start(self.settings.largest_batch)
        except ModelError as error:
            self.problem = f"error: {error}"
            raise
        await super().start()

    async def stop(self) -> None:
        """Answer what was accepted, then end the batcher and close the model."""
        await super().stop()
        try:
            await self.model.stop()
        except ModelError as error:
            logger.error("%s", error)  # noqa: TRY400 - it names the place


ONE = "Put this request into a batch with others."
MANY = "Put a list of items into batches; all are answered, or none."
ALONE = "Call the model for this request alone."


class _ShortStart:
    """Middleware: if the model cannot be loaded, the start ends with one line in the place of a traceback."""

    def __init__(self, app: ASGIApp, service: Predicts) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_in_short(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._service.problem:
                message["message"] = self._service.problem
            await send(message)

        await self._app(scope, receive, send_in_short)


def create_app(
    model: Any,  # noqa: ANN401 - the user's
    settings: Settings | None = None,
    *,
    path: str = "/predict",
    alone: str | None = None,
    about: Mapping[str, Any] | None = None,
    dependencies: Sequence[params.Depends] = (),
    title: str = "batchers",
    description: str = "",
    version: str = "",
) -> ServedApp:
    """Return the ASGI application that serves a model.

    model
        A function of a list of items, or an object with `predict(batch)` and, where it has them, `load()`,
        `warm_up(size)`, `close()` and `example`. The types of items and results come from the annotations of the
        function. A class is called without arguments.
    settings
        Default None: the default settings; the environment is not read.
    path
        The route of predictions: `POST` of one item. `path` + "_many" takes a list of items, at most as many as
        the queue; all of them are answered, or none.
    alone
        One more route, which calls the model for each request alone, for comparisons. Default None: there is none.
    about
        More for the JSON object of `/stats`. Default None: nothing.
    dependencies
        Of all routes, as those of a FastAPI application: `[Depends(function)]`. Default (): none.
    title, description, version
        For the document of the API.

    Raises ModelError for what is no model, and OptionError for wrong settings.
    """
    service = ModelService(Model(model), Settings.model_construct() if settings is None else settings)
    texts = {"title": title, "description": description, "version": version or "0"}
    return app_of_model(service, routes_of(service, path, alone), about, dependencies, **texts)


def app_of_model(
    service: ModelService,
    routes: Sequence[Route],
    about: Mapping[str, Any] | None = None,
    dependencies: Sequence[params.Depends] = (),
    **texts: str,
) -> ServedApp:
    """Return the application of a service; `create_app` documents the arguments."""
    app = assemble(service, routes, dependencies=dependencies, **texts)
    document(app.api, service.model, {route.path: route.kind for route in routes})
    add_operations(app.api, service, _about(service.settings) | dict(about or {}))
    return app


class Route(NamedTuple):
    """A route of predictions."""

    path: str
    kind: Literal["item", "items"]
    text: str
    endpoint: Endpoint
    batcher: Batcher[Any, Any] | None
    """The batcher to which the protocol hands items directly."""


class Predicts(Protocol):
    """What the application needs of a service."""

    problem: str

    @property
    def settings(self) -> Settings:
        """The settings of the server."""
        ...

    @property
    def is_draining(self) -> bool:
        """True when the server is about to stop."""
        ...

    def lifespan(self, api: FastAPI, /) -> AbstractAsyncContextManager[None]:
        """Live as long as the server."""
        ...


def assemble(
    service: Predicts, routes: Sequence[Route], *, dependencies: Sequence[params.Depends] = (), **texts: str
) -> ServedApp:
    """Return an application with these routes, without its document and operations."""
    direct: dict[str, DirectEndpoint] = {}

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        _choose_path(app, service.settings, direct)
        async with service.lifespan(api):
            yield

    api = FastAPIOffline(**texts, lifespan=lifespan, dependencies=list(dependencies), redirect_slashes=False)
    api.add_middleware(_ShortStart, service=service)
    add_error_handlers(api)
    endpoints: dict[str, ASGIApp] = {}
    for route in routes:
        for place in (route.path, f"{route.path}/"):  # with the slash at the end, too
            endpoints[place] = route.endpoint
            if route.batcher is not None:
                direct[place] = DirectEndpoint(route.endpoint, route.batcher)
            is_named = place == route.path
            add = api.post(place, description=route.text, responses=ANSWERS, include_in_schema=is_named)
            add(_passed_to(route.endpoint))
    app = ServedApp(api, endpoints, lambda: service.is_draining)
    return app


def _choose_path(app: ServedApp, settings: Settings, direct: Mapping[str, DirectEndpoint]) -> None:
    """Take the direct path where it is possible, and log which one it is."""
    server = running_server()
    if not settings.direct:
        why = "BATCHER_DIRECT is false"
    elif server is None:
        why = "no uvicorn of this process runs the app"
    else:
        why = use_direct_path(server, app, direct)
    logger.info("Predictions take %s", f"the way through ASGI: {why}" if why else "the direct path")


def _about(settings: Settings) -> dict[str, Any]:
    return {"backend": settings.backend, "policy": settings.policy}


def routes_of(service: ModelService, path: str, alone: str | None) -> list[Route]:
    """Return the routes to a model in this process; the first one is that of single items."""
    settings, model = service.settings, service.model

    def parse_many(body: bytes) -> list[Any]:
        items = model.items.parse_many(body)
        if 0 <= settings.max_queue_size < len(items):
            raise TooManyItemsError(settings.max_queue_size)
        return items

    batcher = service.batcher
    check_room = driver_of(batcher).check_room
    one = endpoint_of(settings, batcher.process, model.items.parse, dump, check_room)
    many = endpoint_of(settings, batcher.process_many, parse_many, dump, check_room)
    routes = [Route(path, "item", ONE, one, batcher), Route(f"{path}_many", "items", MANY, many, None)]
    if alone is not None:
        calls = Alone(model.function, CALLS_ALONE, settings.timeout)
        service.alone.append(calls)
        only = endpoint_of(settings, calls.process, model.items.parse, dump)
        routes.append(Route(alone, "item", ALONE, only, None))
    return routes


def endpoint_of(  # noqa: PLR0917 - as those of `Endpoint`
    settings: Settings,
    process: Process,
    parse: Callable[[bytes], Any],
    dump: Callable[[Any], bytes],
    check_room: Callable[[], None] = lambda: None,
    kind: type[Endpoint] = Endpoint,
) -> Endpoint:
    """Return an endpoint with the limits of the settings."""
    return kind(
        process,
        parse,
        dump,
        max_body_size=settings.max_body_size,
        body_timeout=settings.body_timeout,
        longest=settings.timeout,
        check_room=check_room,
    )


def _passed_to(endpoint: Endpoint) -> Callable[[], Any]:
    async def predict() -> Response:
        return EndpointResponse(endpoint)

    return predict
