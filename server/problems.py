"""Requests that cannot be answered: reading a body with limits, and errors as HTTP answers.

Bad input is 422 in FastAPI's own shape (a list of `type`, `loc` and `msg`), but without the input itself:
it may be what cannot be encoded. Too large a body is 413 in the same shape.
"""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect

from batchers import BatcherStoppedError, DeadlineExceededError, QueueFullError

from .model import FEATURES, NoPredictionError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Row = Annotated[list[Number], Field(min_length=FEATURES, max_length=FEATURES)]

ROW: TypeAdapter[list[float]] = TypeAdapter(Row)


class BodyTooLargeError(Exception):
    """The body has more bytes than allowed."""


async def read_row(request: Request, limit: int, seconds: float) -> list[float]:
    """Return the row of numbers in the body of a request: at most `limit` bytes that come within `seconds`.

    A body without a Content-Type is taken as JSON, as the clients of the original benchmark send it.
    Raises RequestValidationError, BodyTooLargeError, TimeoutError or ClientDisconnect.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        msg = "send the numbers as JSON with Content-Type: application/json"
        raise RequestValidationError([_problem("content_type", ("header", "content-type"), msg)])
    length = request.headers.get("content-length", "").lstrip("0")  # uvicorn refuses what is no number
    if len(length) > len(str(limit)) or int(length or "0") > limit:
        raise BodyTooLargeError
    body = bytearray()
    async with asyncio.timeout(seconds):  # a client that stalls would keep the server from stopping
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise BodyTooLargeError
    try:
        return ROW.validate_json(bytes(body))
    except ValidationError as error:
        raise RequestValidationError(
            [_problem(found["type"], ("body", *found["loc"]), found["msg"]) for found in error.errors()]
        ) from None


def _problem(kind: str, where: tuple[str | int, ...], text: str) -> dict[str, Any]:
    return {"type": kind, "loc": list(where), "msg": text}


def add_handlers(app: FastAPI, limit: int) -> None:
    """Let the app answer each kind of error with its status."""

    @app.exception_handler(RequestValidationError)
    async def bad_input(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [_problem(found["type"], found["loc"], found["msg"]) for found in error.errors()]
        return JSONResponse({"detail": problems}, 422)

    @app.exception_handler(BodyTooLargeError)
    async def too_large(_: Request, __: BodyTooLargeError) -> JSONResponse:
        text = f"the body has more than {limit} bytes; send {FEATURES} numbers"
        return JSONResponse({"detail": [_problem("too_large", ("body",), text)]}, 413)

    @app.exception_handler(TimeoutError)
    async def too_slow(_: Request, __: TimeoutError) -> JSONResponse:
        text = "the body did not come in time: send all that its Content-Length says"
        return JSONResponse({"detail": [_problem("too_slow", ("body",), text)]}, 408)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    @app.exception_handler(NoPredictionError)
    async def no_prediction(_: Request, error: NoPredictionError) -> JSONResponse:
        return JSONResponse({"detail": [_problem("no_prediction", ("body",), str(error))]}, 422)

    @app.exception_handler(QueueFullError)
    async def queue_full(_: Request, error: QueueFullError) -> JSONResponse:
        seconds = max(1, math.ceil(error.retry_after))
        return JSONResponse({"detail": "too many requests wait"}, 503, {"Retry-After": str(seconds)})

    @app.exception_handler(BatcherStoppedError)
    async def stopped(_: Request, __: BatcherStoppedError) -> JSONResponse:
        return JSONResponse({"detail": "the server is stopping"}, 503, {"Retry-After": "1"})

    @app.exception_handler(DeadlineExceededError)
    async def too_late(_: Request, __: DeadlineExceededError) -> JSONResponse:
        return JSONResponse({"detail": "no prediction within the time limit"}, 504)
