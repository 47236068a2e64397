"""What cannot be answered, as HTTP answers.

Bad input is 422 in FastAPI's own shape (a list of `type`, `loc` and `msg`), but without the input itself:
it may be what cannot be encoded. Too large a body is 413 in the same shape.
"""

from __future__ import annotations

import math
import random
from typing import Annotated, Any

from fastapi.responses import JSONResponse
from pydantic import Field, TypeAdapter, ValidationError

from batchers import BatcherStoppedError, BatchTimeoutError, DeadlineExceededError, QueueFullError

from .model import FEATURES, NoPredictionError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Row = Annotated[list[Number], Field(min_length=FEATURES, max_length=FEATURES)]

ROW: TypeAdapter[list[float]] = TypeAdapter(Row)


class BodyTooLargeError(Exception):
    """The body has more bytes than allowed."""


class BadRowError(Exception):
    """The body is no row; the cause is pydantic's error."""

    def __init__(self, cause: ValidationError) -> None:
        """Keep what pydantic found."""
        super().__init__()
        self.problems = cause.errors()


class ContentTypeError(Exception):
    """The body is said to be something else than JSON."""


class BodyTooSlowError(Exception):
    """The body did not come in time."""


class UpgradeError(Exception):
    """The body was not read: with httptools uvicorn drops what follows a head that offers an upgrade."""


class RequestTimeoutError(Exception):
    """X-Request-Timeout is no number of seconds above 0."""


def answer_to(error: Exception, limit: int) -> JSONResponse:  # noqa: C901, PLR0912 - one case for each error
    """Return the answer for one of these errors; others are raised on: they are defects, and a 500.

    `limit` is the number of bytes that a body may have.
    """
    detail: str | list[dict[str, Any]]
    headers: dict[str, str] = {}
    match error:
        case BadRowError():
            found = [_problem(each["type"], ("body", *each["loc"]), each["msg"]) for each in error.problems]
            status, detail = 422, found
        case NoPredictionError():
            status, detail = 422, [_problem("no_prediction", ("body",), str(error))]
        case ContentTypeError():
            text = "send the numbers as JSON with Content-Type: application/json"
            status, detail = 422, [_problem("content_type", ("header", "content-type"), text)]
        case BodyTooLargeError():
            text = f"the body has more than {limit} bytes; send {FEATURES} numbers"
            status, detail = 413, [_problem("too_large", ("body",), text)]
        case BodyTooSlowError():
            text = "the body did not come in time: send all that its Content-Length says"
            status, detail = 408, [_problem("too_slow", ("body",), text)]
            headers["Connection"] = "close"  # the rest of the body may come at any time
        case UpgradeError():
            text = "the body was not read, because of Upgrade: send none, or start the server with --http h11"
            status, detail = 422, [_problem("upgrade", ("header", "upgrade"), text)]
        case MemoryError():
            status, detail = 503, "no memory for this request"
            headers |= {"Retry-After": "1", "Connection": "close"}  # the rest of the body is not read
        case RequestTimeoutError():
            text = "must be a number of seconds above 0"
            status, detail = 422, [_problem("request_timeout", ("header", "x-request-timeout"), text)]
        case QueueFullError():
            status, detail = 503, "too many requests wait"
            headers["Retry-After"] = _retry_after(error.retry_after)
        case BatcherStoppedError():
            status, detail = 503, "the server is stopping"
            headers["Retry-After"] = "1"
        case DeadlineExceededError(retry_after=float(seconds)):
            status, detail = 503, "too many requests wait for a prediction within the time limit"
            headers["Retry-After"] = _retry_after(seconds)
        case DeadlineExceededError():
            status, detail = 504, "no prediction within the time limit"
        case BatchTimeoutError():
            status, detail = 504, "the model does not answer"
        case _:
            raise error
    return JSONResponse({"detail": detail}, status, headers)


def _retry_after(seconds: float) -> str:
    """Return whole seconds, 1 or more; up to half more and one than needed, so that not all come back at once."""
    spread = random.uniform(1.0, 1.5)  # noqa: S311 - not for secrets
    return str(max(1, math.ceil(seconds * spread + random.random())))  # noqa: S311


def _problem(kind: str, where: tuple[str | int, ...], text: str) -> dict[str, Any]:
    return {"type": kind, "loc": list(where), "msg": text}
