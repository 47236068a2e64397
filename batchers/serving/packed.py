"""Answers of the process with the model, as bytes: its front ends write them as they are.

The process with the model validates, predicts and serialises. So a front end sends the body of a request and gets
status, headers and body back, and needs neither the model nor its types.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from struct import Struct
from typing import Any

from batchers.remote.codecs import BytesCodec, NotDecodedError, split
from batchers.remote.frames import Buffer, Part

from .answers import REFUSALS, BadRequestError, answer_to, place_of
from .endpoints import FAILED, Endpoint

logger = logging.getLogger("uvicorn.error")

_HEAD = Struct("<HH")


class Packed(bytes):
    """An answer: status, length of the headers, headers and body."""

    __slots__ = ()


class NoItemError(NotDecodedError):
    """A body is no item, or the queue has no room for it; the cause says which."""


def pack(status: int, head: bytes, body: bytes) -> Packed:
    """Return an answer as bytes."""
    return Packed(_HEAD.pack(status, len(head)) + head + body)


def unpack(answer: bytes) -> tuple[int, bytes, bytes]:
    """Return status, headers and body of an answer."""
    status, length = _HEAD.unpack_from(answer)
    body = _HEAD.size + length
    return status, answer[_HEAD.size : body], answer[body:]


def pack_error(error: BaseException) -> Packed:
    """Return the answer for an error; the log has those that are defects of the model."""
    if isinstance(error, NoItemError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, (*REFUSALS, BadRequestError, MemoryError)):
        answer = answer_to(error)
        return pack(answer.status, *answer.encoded())
    logger.error("A prediction failed: %s", place_of(error))
    body = b"Internal Server Error"
    return pack(FAILED, b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body), body)


class AnswersCodec(BytesCodec):
    """Bodies of requests become items, and outcomes become answers."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Use what an endpoint parses and says."""
        self._endpoint = endpoint

    def encode(self, values: list[Any]) -> Sequence[Buffer]:
        """Return the answers for results."""
        return super().encode([each if type(each) is Packed else self._packed(each) for each in values])

    def _packed(self, result: Any) -> Packed:  # noqa: ANN401 - the user's
        try:
            return pack(*self._endpoint.answer(result))
        except Exception as error:  # noqa: BLE001 - of the user's types
            return pack_error(error)

    def encode_error(self, error: Exception) -> Packed:
        """Return the answer for an error."""
        return pack_error(error)

    def decode(self, parts: Sequence[Part], count: int) -> list[Any]:
        """Return the items in bodies, with an error in the place of what is none."""
        return [self._parsed(bytes(body)) for body in split(parts, count)]

    def _parsed(self, body: bytes) -> Any:  # noqa: ANN401 - the user's
        try:
            self._endpoint.check_room()
            return self._endpoint.parse(body)
        except Exception as error:  # noqa: BLE001 - of the user's types, too
            found = NoItemError()
            found.__cause__ = error
            return found


def answers_of(endpoint: Endpoint) -> Callable[[bytes], Coroutine[Any, Any, bytes]]:
    """Return what answers a question with a body of a request, for a route that is not the batcher's own.

    The question begins with the seconds that the client waits, as text, and a line feed.
    """

    async def answer(said: bytes) -> bytes:
        seconds, _, body = said.partition(b"\n")
        try:
            endpoint.check_room()
            result = await endpoint.process(endpoint.parse(body), timeout=float(seconds))
            return pack(*endpoint.answer(result))
        except Exception as error:  # noqa: BLE001 - of the model
            return pack_error(error)

    return answer
