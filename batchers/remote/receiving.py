"""Outcomes that come from a server, and the calls that wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from batchers.core.group_queue import Request
from batchers.core.outcomes import Err
from batchers.drivers.loops import Loop

from .codecs import Codec, NotDecodedError
from .columns import unpack_outcomes
from .frames import Frame
from .sending import Settled
from .wire_errors import from_wire


class Calls(Protocol):
    """What a connection needs of the driver: the calls that wait for their outcomes."""

    home: Loop | None
    about: dict[str, Any]

    def take(self, number: int, /) -> Request[Any] | None:
        """Return the request with a number, and wait for its outcome no more; None: its caller has left."""
        ...

    def take_all(self) -> list[Request[Any]]:
        """Return all requests, and wait for none any more."""
        ...

    def deliver(self, settled: Settled, loop: Loop | None, /) -> None:
        """Deliver outcomes to their callers."""
        ...

    def flush(self) -> None:
        """Send what is new."""
        ...


def outcomes_of(frame: Frame, codec: Codec) -> tuple[Iterator[tuple[int, Any]], bool]:
    """Return numbers with their outcomes, and whether the batcher is healthy; raise errors for other frames."""
    about, *parts = frame.parts
    numbers, errors, healthy = unpack_outcomes(about.data)
    results = codec.decode(parts, len(numbers))
    if not codec.keeps:
        frame.free()
    elif about.free is not None:
        about.free()
    return _pairs(numbers, results, errors), healthy


def _pairs(numbers: list[int], results: list[Any], errors: list[list[Any]]) -> Iterator[tuple[int, Any]]:
    for number, result in zip(numbers, results, strict=True):
        yield number, Err(result) if isinstance(result, NotDecodedError) else result
    for number, *error in errors:
        yield number, Err(from_wire(error))
