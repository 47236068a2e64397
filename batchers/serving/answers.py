"""Errors as HTTP answers.

Bad input is 422 in the shape of FastAPI (a list of `type`, `loc` and `msg`), but without the input itself, which
may be impossible to encode. A full queue is 503 with Retry-After, a deadline that has passed is 504.
"""

from __future__ import annotations

import json
import math
import random
import traceback
from functools import lru_cache
from typing import Any, NamedTuple

from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from batchers import (
    BatcherStoppedError,
    BatcherUnavailableError,
    BatchTimeoutError,
    DeadlineExceededError,
    ItemCostError,
    QueueFullError,
    RowError,
)
from batchers.errors import index_of

MOST_PROBLEMS = 50
"""Problems of a body that an answer lists."""

MOST_PLACES = 20
"""Keys and indexes of a place that an answer says, from the outermost on."""

COUNTED_PROBLEMS = 1000
"""Problems up to which pydantic is asked for them: for a body of 1 MiB it makes 400 MB of 340 000 of them."""

LONGEST_TEXT = 300
"""Characters of a message or a place in an answer; a place can be a key of the body."""


class UnprocessableError(ValueError):
    """A model has no answer for an item, and the item is the reason: 422 with the text of this error.

    A model puts the error in the place of the item's result.
    """


class BadRequestError(Exception):
    """A request cannot be understood; subclasses say why."""


class TooManyItemsError(BadRequestError):
    """A list has more items than the queue takes."""

    def __init__(self, limit: int) -> None:
        """Store the number of items that a list may have."""
        super().__init__()
        self.limit = limit


class BodyTooLargeError(BadRequestError):
    """The body has more bytes than allowed."""

    def __init__(self, limit: int) -> None:
        """Store the number of bytes that a body may have."""
        super().__init__()
        self.limit = limit


class BadItemError(BadRequestError):
    """The body is no item; the cause is the error of pydantic."""

    def __init__(self, cause: ValidationError | ValueError) -> None:
        """Keep what pydantic found, or the text of another error."""
        super().__init__()
        self.problems: list[Any] = (
            _problems(cause)
            if isinstance(cause, ValidationError)
            else [{"type": "json_invalid", "loc": (), "msg": f"Invalid JSON: {cause}"}]
        )


def _problems(error: ValidationError) -> list[Any]:
    count = error.error_count()
    found: list[Any] = []
    if count <= COUNTED_PROBLEMS:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_PROBLEMS]
    if count > len(found):
        found.append({"type": "more", "loc": (), "msg": f"{count - len(found)} more problems"})
    return found


class ContentTypeError(BadRequestError):
    """The body is said to be something else than JSON."""


class BodyTooSlowError(BadRequestError):
    """The body did not come in time."""


class UpgradeError(BadRequestError):
    """The body was not read: with httptools, uvicorn drops what follows a head that offers an upgrade."""


class RequestTimeoutError(BadRequestError):
    """X-Request-Timeout is no number of seconds above 0."""


REFUSALS = (
    UnprocessableError,
    QueueFullError,
    BatcherStoppedError,
    BatcherUnavailableError,
    BatchTimeoutError,
    DeadlineExceededError,
    RowError,
    ItemCostError,
)
"""The errors of a batcher, or of its model, that are answers and not defects of the server."""


class Answer(NamedTuple):
    """A status, the detail of the body, and more headers."""

    status: int
    detail: str | list[dict[str, Any]]
    headers: dict[str, str]

    def encoded(self) -> tuple[bytes, bytes]:
        """Return the headers and the body, as they are written; `response` in less time."""
        head, body = _of_text(self.detail) if isinstance(self.detail, str) else _encoded(self.detail)
        for name, value in self.headers.items():
            if name != "Connection":  # which is the connection's to say
                head = f"{name.lower()}: {value}\r\n".encode("latin-1") + head
        return head, body

    def response(self) -> JSONResponse:
        """Return the answer as a response of Starlette."""
        return JSONResponse({"detail": self.detail}, self.status, self.headers)


def _encoded(detail: str | list[dict[str, Any]]) -> tuple[bytes, bytes]:
    body = json.dumps({"detail": detail}, ensure_ascii=False, separators=(",", ":")).encode()
    return b"content-length: %d\r\ncontent-type: application/json\r\n" % len(body), body


_of_text = lru_cache(32)(_encoded)  # the texts are those of this module


def answer_to(error: Exception) -> Answer:  # noqa: C901 - a table
    """Return the answer for an error of `REFUSALS`, a BadRequestError, or MemoryError; raise others again."""
    if isinstance(error, BadRequestError):
        return _bad_request(error)
    detail: str | list[dict[str, Any]]
    headers: dict[str, str] = {}
    match error:
        case UnprocessableError():
            status, detail = 422, [_problem("unprocessable", _place_in_body(error), str(error))]
        case RowError() | ItemCostError():
            status, detail = 422, [_problem("item", _place_in_body(error), str(error))]
        case MemoryError():
            status, detail = 503, "no memory for this request"
            headers = {"Retry-After": "1", "Connection": "close"}  # the rest of the body is not read
        case QueueFullError():
            status, detail = 503, "too many requests wait"
            headers = {"Retry-After": _retry_after(error.retry_after)}
        case BatcherStoppedError():
            status, detail = 503, "the server is stopping"
            headers = {"Retry-After": "1"}
        case BatcherUnavailableError():
            status, detail = 503, "the process with the model is gone, or starts"
            headers = {"Retry-After": _retry_after(error.retry_after)}
        case DeadlineExceededError(retry_after=float(seconds)):
            status, detail = 503, "too many requests wait for a prediction within the time limit"
            headers = {"Retry-After": _retry_after(seconds)}
        case DeadlineExceededError():
            status, detail = 504, "no prediction within the time limit"
        case BatchTimeoutError():
            status, detail = 504, "the model does not answer"
        case _:
            raise error
    return Answer(status, detail, headers)


def _bad_request(error: BadRequestError) -> Answer:
    if isinstance(error, BadItemError):
        found = [_problem(each["type"], ("body", *each["loc"]), each["msg"]) for each in error.problems]
        return Answer(422, found, {})
    headers: dict[str, str] = {}
    where: tuple[str, ...] = ("body",)
    match error:
        case TooManyItemsError():
            text = f"the list has more than {error.limit} items: send them in several requests"
            status, kind = 413, "too_many"
        case ContentTypeError():
            text = "send JSON with Content-Type: application/json"
            status, kind, where = 422, "content_type", ("header", "content-type")
        case BodyTooLargeError():
            text = f"the body has more than {error.limit} bytes"
            status, kind = 413, "too_large"
        case BodyTooSlowError():
            text = "the body did not come in time: send all that its Content-Length says"
            status, kind = 408, "too_slow"
            headers["Connection"] = "close"  # the rest of the body may come at any time
        case UpgradeError():
            text = "the body was not read, because of Upgrade: send none, or start the server with --http h11"
            status, kind, where = 422, "upgrade", ("header", "upgrade")
        case RequestTimeoutError():
            text = "must be a number of seconds above 0"
            status, kind, where = 422, "request_timeout", ("header", "x-request-timeout")
        case _:
            raise error
    return Answer(status, [_problem(kind, where, text)], headers)


def add_error_handlers(app: Starlette) -> None:
    """Let a FastAPI or Starlette application answer the errors of batchers as this module describes.

    Without the handlers, a full queue and a deadline that has passed are answers with status 500.
    """

    async def answer(_: Request, error: Exception) -> Response:  # async: Starlette calls others in a thread
        return answer_to(error).response()

    for kind in (*REFUSALS, BadRequestError):
        app.add_exception_handler(kind, answer)


def place_of(error: BaseException) -> str:
    """Return an error in one line, with the place where it was raised."""
    text = str(error).strip().partition("\n")[0]
    frames = [
        each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<frozen")
    ]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def _retry_after(seconds: float) -> str:
    """Return whole seconds, 1 or more; up to half more and one than needed, so that not all come back at once."""
    spread = random.uniform(1.0, 1.5)  # noqa: S311 - not for secrets
    return str(max(1, math.ceil(seconds * spread + random.random())))  # noqa: S311


def _place_in_body(error: Exception) -> tuple[str | int, ...]:
    """Return where the item of an error is: the body, or one item of its list."""
    index = index_of(error)
    return ("body",) if index is None else ("body", index)


def _problem(kind: str, where: tuple[str | int, ...], text: str) -> dict[str, Any]:
    places = [_shortened(each) if isinstance(each, str) else each for each in where[:MOST_PLACES]]
    return {"type": kind, "loc": places, "msg": _shortened(text)}


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."
