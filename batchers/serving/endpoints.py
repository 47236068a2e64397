"""Routes of predictions: ASGI applications that read an item, wait for its result, and answer.

FastAPI documents them, but a request does not pass through the middleware, exit stacks and router of FastAPI,
which took more time than everything else in a request together (decision 20).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Any, Protocol

from fastapi import FastAPI, Response
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import (
    REFUSALS,
    BadRequestError,
    BodyTooLargeError,
    BodyTooSlowError,
    ContentTypeError,
    UpgradeError,
    answer_to,
    place_of,
)
from .requests import HEADER, parse_seconds, until_client_leaves

logger = logging.getLogger("uvicorn.error")

JSON = (b"content-type", b"application/json")
SAFETY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)
"""Headers of every answer of the app; uvicorn's own 400, to what is no HTTP, has none of them."""

CLOSE = (b"connection", b"close")
"""The header that tells a client to come back on another connection, to a server that goes on."""

BAD, FAILED = 400, 500


class Process(Protocol):
    """What an endpoint waits for."""

    def __call__(self, item: Any, /, *, timeout: float | None) -> Awaitable[Any]:  # noqa: ANN401 - the user's
        """Return the result of an item within so many seconds; None: the limit of the batcher."""
        ...


class Endpoint:
    """Reads an item, waits for its result, and answers with it or with what went wrong."""

    def __init__(
        self,
        process: Process,
        parse: Callable[[bytes], Any],
        dump: Callable[[Any], bytes],
        *,
        max_body_size: int,
        body_timeout: float,
        longest: float | None = None,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Initialise the endpoint.

        `parse` makes an item of a body, and raises BadRequestError; `dump` makes a body of a result. A body has at
        most `max_body_size` bytes, which come within `body_timeout` seconds. X-Request-Timeout may say at most
        `longest` seconds. `check_room` raises an error of `REFUSALS` if the item would be refused whatever it is;
        then the body is not parsed.
        """
        self.process = process
        self.parse = parse
        self.dump = dump
        self.check_room = check_room
        self.max_body_size = max_body_size
        self.body_timeout = body_timeout
        self._longest = inf if longest is None else longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            timeout = self.look_at_headers(scope["headers"])
            body = await self._read(scope, receive)
            self.check_room()
            item = self.parse(body)
            result = await until_client_leaves(self.process(item, timeout=timeout), receive)
        except ClientDisconnect:
            return  # nobody is there to read an answer
        except (*REFUSALS, BadRequestError, MemoryError) as error:
            if isinstance(error, MemoryError):
                logger.error("No memory for a request: MemoryError")  # noqa: TRY400 - nobody needs to know where
            await answer_to(error).response()(scope, receive, send)
            return
        status, head, body = self.answer(result)
        headers = [tuple(line.split(b": ", 1)) for line in head.splitlines()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def answer(self, result: Any) -> tuple[int, bytes, bytes]:  # noqa: ANN401 - the user's
        """Return the status, the headers and the body for a result. Raises the errors of `dump`."""
        body = self.dump(result)
        return 200, b"%s: %s\r\ncontent-length: %d\r\n" % (*JSON, len(body)), body

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body. Raises BadRequestError, or ClientDisconnect."""
        try:
            # A client that stalls would keep the server from stopping.
            async with asyncio.timeout(self.body_timeout):
                body = await self._body(receive)
        except TimeoutError:
            raise BodyTooSlowError from None
        if not body and _offers_upgrade(scope) and _announces_body(scope):
            raise UpgradeError
        return body

    def look_at_headers(self, headers: Sequence[tuple[bytes, bytes]]) -> float | None:
        """Refuse what is not JSON, or too large, before the body comes; return the seconds that the client gives.

        Of several headers the first counts.

        Without a Content-Type a body is taken as JSON: the clients of the original benchmark send none.
        """
        kind, length, timeout = b"application/json", b"", None
        for name, value in reversed(headers):
            if name == b"content-type":
                kind = value.partition(b";")[0].strip().lower()
            elif name == b"content-length":
                length = value.strip().lstrip(b"0")
            elif name == HEADER:
                timeout = value
        if kind != b"application/json" and not kind.endswith(b"+json"):
            raise ContentTypeError
        # A length that is no number says nothing: the body is measured as it comes.
        if length.isdigit() and (len(length) > len(str(self.max_body_size)) or int(length) > self.max_body_size):
            raise BodyTooLargeError(self.max_body_size)
        return None if timeout is None else min(parse_seconds(timeout), self._longest)

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > self.max_body_size:
                raise BodyTooLargeError(self.max_body_size)
            more = message.get("more_body", False)
        return bytes(body)


def _offers_upgrade(scope: Scope) -> bool:
    return any(name == b"upgrade" for name, _ in scope["headers"])


def _announces_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0"))
        for name, value in scope["headers"]
    )


class EndpointResponse(Response):
    """A response of FastAPI that an endpoint makes."""

    def __init__(self, endpoint: ASGIApp) -> None:
        """Hand the request over to `endpoint`."""
        super().__init__()
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the endpoint answer."""
        await self._endpoint(scope, receive, send)


class ServedApp:
    """An ASGI application around a FastAPI one: what is posted to some paths goes directly to their endpoints.

    It adds headers to every answer: `SAFETY`, and `CLOSE` while the server drains, where the app has failed, and
    to requests whose body may not have been read.

    As soon as the FastAPI application has middleware, a dependency of all routes, or a mount over these paths,
    all requests pass through it.
    """

    def __init__(
        self, api: FastAPI, endpoints: Mapping[str, ASGIApp], is_draining: Callable[[], bool] = lambda: False
    ) -> None:
        """Initialise the application. `is_draining` returns True when the server is about to stop."""
        self.api = api
        self.endpoints = endpoints
        self.is_draining = is_draining
        self._own_middleware = len(api.user_middleware)
        self._passes_api: bool | None = None

    def add_middleware(self, middleware: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401 - of Starlette
        """Add middleware to the FastAPI application; then predictions pass through it, too."""
        self.api.add_middleware(middleware, *args, **options)

    def between(self) -> str:
        """Return what stands between a server and the endpoints, in words; empty: nothing."""
        middleware = self.api.user_middleware[: len(self.api.user_middleware) - self._own_middleware]
        if middleware:
            return (
                f"the middleware {', '.join(getattr(each.cls, '__name__', str(each.cls)) for each in middleware)}"
            )
        if self.api.router.dependencies or self.api.dependency_overrides:
            return "dependencies of the application"
        for route in self.api.routes:
            if isinstance(route, Mount) and any(path.startswith(f"{route.path}/") for path in self.endpoints):
                return f"the mount {route.path or '/'}"
        return ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live as long as the server."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                # uvicorn closes the connection after a 500, because the app has raised; so the client is told.
                closes = self.is_draining() or status == FAILED
                # What httptools has not read of such a request, it would take for the next one.
                unread = status >= BAD or (scope["method"] != "POST" and _announces_body(scope))
                closes = closes or (unread and _offers_upgrade(scope))
                message["headers"] = [*message["headers"], *SAFETY, *((CLOSE,) if closes else ())]
            await send(message)

        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = self.endpoints.get(_route_path(scope))
            if self._passes_api is None:
                self._passes_api = bool(self.between())
            if endpoint is not None and not self._passes_api:
                try:
                    await endpoint(scope, receive, send_with_headers)
                except Exception as error:  # noqa: BLE001 - of the model
                    logger.error("A prediction failed: %s", place_of(error))  # noqa: TRY400 - it names the place
                    await PlainTextResponse("Internal Server Error", FAILED)(scope, receive, send_with_headers)
                return
        await self.api(scope, receive, send_with_headers)


def _route_path(scope: Scope) -> str:
    """Return the path without the prefix under which a proxy, or another app, serves this one."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}:
        return path[len(prefix) :]
    return path
