"""The routes of predictions: ASGI apps that take a row of numbers and answer a number.

FastAPI documents them, but a request does not pass through its middlewares, exit stacks and router, which took
more time than everything else in a request together (decision 20).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from math import inf, isfinite
from typing import Protocol

from fastapi import FastAPI, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchers import BatcherStoppedError, BatchTimeoutError, DeadlineExceededError, QueueFullError

from .model import NoPredictionError
from .problems import (
    ROW,
    BadRowError,
    BodyTooLargeError,
    BodyTooSlowError,
    ContentTypeError,
    RequestTimeoutError,
    UpgradeError,
    answer_to,
)

logger = logging.getLogger("uvicorn.error")

BAD_INPUT = (BadRowError, BodyTooLargeError, BodyTooSlowError, ContentTypeError, RequestTimeoutError, UpgradeError)
REFUSALS = (NoPredictionError, QueueFullError, BatcherStoppedError, BatchTimeoutError, DeadlineExceededError)

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

PATIENCE = 0.02
"""Seconds after which a request that still waits looks whether its client is still there."""


class Predict(Protocol):
    """What an endpoint asks."""

    def __call__(self, row: list[float], /, *, timeout: float | None) -> Awaitable[float]:
        """Return the prediction for a row within so many seconds; None: the server's own limit."""
        ...


class Endpoint:
    """Reads a row, asks for its prediction, and answers with it or with what went wrong."""

    def __init__(self, predict: Predict, limit: int, seconds: float, longest: float | None = None) -> None:
        """Accept bodies of at most `limit` bytes that come within `seconds`.

        A request may say in X-Request-Timeout how many seconds it has, `longest` at most.
        """
        self._predict = predict
        self._limit = limit
        self._seconds = seconds
        self._longest = inf if longest is None else longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            timeout = self._look_at_headers(scope)
            row = await self._read(scope, receive)
        except ClientDisconnect:
            return  # nobody is there to read an answer
        except (*BAD_INPUT, MemoryError) as error:
            if isinstance(error, MemoryError):
                logger.error("No memory for a request: MemoryError")  # noqa: TRY400 - nobody needs to know where
            await answer_to(error, self._limit)(scope, receive, send)
            return
        watch = _Watch(receive)
        try:
            value = float(await self._predict(row, timeout=timeout))
        except REFUSALS as error:
            watch.end()
            await answer_to(error, self._limit)(scope, receive, send)
            return
        except asyncio.CancelledError:
            if not watch.has_left():
                raise
            return  # nobody is there to read an answer; the item never runs, if it did not yet
        finally:
            watch.end()
        if not isfinite(value):
            msg = f"the model predicted {value}, which JSON cannot say"
            raise ValueError(msg)
        body = repr(value).encode()  # for finite floats JSON's own form
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [JSON, length]})
        await send({"type": "http.response.body", "body": body})

    async def _read(self, scope: Scope, receive: Receive) -> list[float]:
        """Return the row in the body. Raises one of `BAD_INPUT`, or ClientDisconnect."""
        try:
            # A client that stalls would keep the server from stopping.
            async with asyncio.timeout(self._seconds):
                body = await self._body(receive)
        except TimeoutError:
            raise BodyTooSlowError from None
        if not body and _offers_upgrade(scope) and _announces_body(scope):
            raise UpgradeError
        try:
            return ROW.validate_json(body)
        except ValidationError as error:
            raise BadRowError(error) from None

    def _look_at_headers(self, scope: Scope) -> float | None:
        """Refuse what is not JSON, or too large, before the body comes; return the seconds that the client gives.

        Of several headers the first counts.

        Without a Content-Type a body is taken as JSON: the clients of the original benchmark send none.
        """
        kind, length, timeout = b"application/json", b"", None
        for name, value in reversed(scope["headers"]):
            if name == b"content-type":
                kind = value.partition(b";")[0].strip().lower()
            elif name == b"content-length":
                length = value.strip().lstrip(b"0")
            elif name == b"x-request-timeout":
                timeout = value
        if kind != b"application/json" and not kind.endswith(b"+json"):
            raise ContentTypeError
        # A length that is no number says nothing: the body is measured as it comes.
        if length.isdigit() and (len(length) > len(str(self._limit)) or int(length) > self._limit):
            raise BodyTooLargeError
        return None if timeout is None else min(_seconds(timeout), self._longest)

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise BodyTooLargeError
            more = message.get("more_body", False)
        return bytes(body)


def _offers_upgrade(scope: Scope) -> bool:
    return any(name == b"upgrade" for name, _ in scope["headers"])


def _announces_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" 0"))
        for name, value in scope["headers"]
    )


def _seconds(text: bytes) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise RequestTimeoutError from None
    if not 0 < seconds < inf:
        raise RequestTimeoutError
    return seconds


class _Watch:
    """Cancels the request that waits for its prediction when its client leaves. It begins after `PATIENCE`."""

    __slots__ = ("_left", "_receive", "_request", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._request = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._left = False
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._begin)

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._request is not None:
            self._request.cancel()

    def has_left(self) -> bool:
        """Return whether the client has; the request is then no longer cancelled."""
        if self._left and self._request is not None:
            self._request.uncancel()
        return self._left

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()


class Handed(Response):
    """A response that an ASGI app makes."""

    def __init__(self, app: ASGIApp) -> None:
        """Hand the request over to `app`."""
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer."""
        await self._app(scope, receive, send)


class Front:
    """An ASGI app in front of the API: it answers what is posted to a few paths, and hands on the rest.

    It adds headers to every answer: `SAFETY`, and `CLOSE` while the server drains, where the app has failed, and
    to requests whose body may not have been read.
    """

    def __init__(
        self, api: FastAPI, endpoints: Mapping[str, ASGIApp], drains: Callable[[], bool] = lambda: False
    ) -> None:
        """Answer POST for these paths. `drains`: whether the server is about to stop."""
        self.api = api
        self._endpoints = endpoints
        self._drains = drains

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live as long as the server."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                # uvicorn closes the connection after a 500, because the app has raised; so the client is told.
                closes = self._drains() or status == FAILED
                # What httptools has not read of such a request, it would take for the next one.
                unread = status >= BAD or (scope["method"] != "POST" and _announces_body(scope))
                closes = closes or (unread and _offers_upgrade(scope))
                message["headers"] = [*message["headers"], *SAFETY, *((CLOSE,) if closes else ())]
            await send(message)

        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = self._endpoints.get(_route_path(scope))
            if endpoint is not None:
                try:
                    await endpoint(scope, receive, send_with_headers)
                except Exception:
                    # Raised on, for uvicorn's log; but its own answer would have none of the headers.
                    await PlainTextResponse("Internal Server Error", FAILED)(scope, receive, send_with_headers)
                    raise
                return
        await self.api(scope, receive, send_with_headers)


def _route_path(scope: Scope) -> str:
    """Return the path without the prefix under which a proxy, or another app, serves this one."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}:
        return path[len(prefix) :]
    return path
