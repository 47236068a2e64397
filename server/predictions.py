"""The routes of predictions: ASGI apps that take a row of numbers and answer a number.

FastAPI documents them, but a request does not pass through its middlewares, exit stacks and router, which took
more time than everything else in a request together (decision 20).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import isfinite

from fastapi import FastAPI, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from batchers import BatcherStoppedError, DeadlineExceededError, QueueFullError

from .model import NoPredictionError
from .problems import ROW, BadRowError, BodyTooLargeError, BodyTooSlowError, ContentTypeError, answer_to

BAD_INPUT = (BadRowError, BodyTooLargeError, BodyTooSlowError, ContentTypeError)
REFUSALS = (NoPredictionError, QueueFullError, BatcherStoppedError, DeadlineExceededError)

JSON = (b"content-type", b"application/json")


class Endpoint:
    """Reads a row, asks for its prediction, and answers with it or with what went wrong."""

    def __init__(self, predict: Callable[[list[float]], Awaitable[float]], limit: int, seconds: float) -> None:
        """Accept bodies of at most `limit` bytes that come within `seconds`."""
        self._predict = predict
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            row = await self._read(scope, receive)
        except ClientDisconnect:
            return  # nobody is there to read an answer
        except BAD_INPUT as error:
            await answer_to(error, self._limit)(scope, receive, send)
            return
        try:
            value = float(await self._predict(row))
        except REFUSALS as error:
            await answer_to(error, self._limit)(scope, receive, send)
            return
        if not isfinite(value):
            msg = f"the model predicted {value}, which JSON cannot say"
            raise ValueError(msg)
        body = repr(value).encode()  # for finite floats JSON's own form
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [JSON, length]})
        await send({"type": "http.response.body", "body": body})

    async def _read(self, scope: Scope, receive: Receive) -> list[float]:
        """Return the row in the body. Raises one of `BAD_INPUT`, or ClientDisconnect."""
        self._look_at_headers(scope)
        try:
            # A client that stalls would keep the server from stopping.
            async with asyncio.timeout(self._seconds):
                body = await self._body(receive)
        except TimeoutError:
            raise BodyTooSlowError from None
        try:
            return ROW.validate_json(body)
        except ValidationError as error:
            raise BadRowError(error) from None

    def _look_at_headers(self, scope: Scope) -> None:
        """Refuse what is not JSON, or too large, before the body comes. Of several headers the first counts.

        Without a Content-Type a body is taken as JSON: the clients of the original benchmark send none.
        """
        kind, length = b"application/json", b""
        for name, value in reversed(scope["headers"]):
            if name == b"content-type":
                kind = value.partition(b";")[0].strip().lower()
            elif name == b"content-length":
                length = value.strip().lstrip(b"0")
        if kind != b"application/json" and not kind.endswith(b"+json"):
            raise ContentTypeError
        # A length that is no number says nothing: the body is measured as it comes.
        if length.isdigit() and (len(length) > len(str(self._limit)) or int(length) > self._limit):
            raise BodyTooLargeError

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
    """An ASGI app in front of the API: it answers what is posted to a few paths, and hands on the rest."""

    def __init__(self, api: FastAPI, endpoints: Mapping[str, ASGIApp]) -> None:
        """Answer POST for these paths."""
        self.api = api
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live as long as the server."""
        if scope["type"] == "http" and scope["method"] == "POST":
            endpoint = self._endpoints.get(_route_path(scope))
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await self.api(scope, receive, send)


def _route_path(scope: Scope) -> str:
    """Return the path without the prefix under which a proxy, or another app, serves this one."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}:
        return path[len(prefix) :]
    return path
