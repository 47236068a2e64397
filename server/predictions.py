"""The routes of predictions: ASGI apps that take a row of numbers and answer a number.

FastAPI documents them, but a request does not pass through its middlewares, exit stacks and router, which took
more time than everything else in a request together (decision 20).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from .problems import ROW, BodyTooLargeError, BodyTooSlowError, ContentTypeError, answer_to

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
            row = ROW.validate_json(await self._read(scope, receive))
            body = repr(await self._predict(row)).encode()
        except ClientDisconnect:
            return  # nobody is there to read an answer
        except Exception as error:
            response = answer_to(error, self._limit)
            if response is None:
                raise
            await response(scope, receive, send)
            return
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [JSON, length]})
        await send({"type": "http.response.body", "body": body})

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body, which is taken as JSON where there is no Content-Type.

        The clients of the original benchmark send none.
        """
        length = 0
        for name, value in scope["headers"]:
            if name == b"content-type":
                kind = value.partition(b";")[0].strip().lower()
                if kind != b"application/json" and not kind.endswith(b"+json"):
                    raise ContentTypeError
            elif name == b"content-length":  # the server refuses what is no number
                digits = value.lstrip(b"0")
                length = int(digits or 0) if len(digits) <= len(str(self._limit)) else self._limit + 1
        if length > self._limit:
            raise BodyTooLargeError
        body = bytearray()
        try:
            # A client that stalls would keep the server from stopping.
            async with asyncio.timeout(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    body += message.get("body", b"")
                    if len(body) > self._limit:
                        raise BodyTooLargeError
                    more = message.get("more_body", False)
        except TimeoutError:
            raise BodyTooSlowError from None
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
            endpoint = self._endpoints.get(scope["path"])
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await self.api(scope, receive, send)
