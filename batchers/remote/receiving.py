"""Outcomes that come from a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batchers.core.outcomes import Err

from .codecs import Codec, NotDecodedError, from_json
from .frames import Frame
from .wire_errors import from_wire


def outcomes_of(frame: Frame, codec: Codec) -> tuple[Iterator[tuple[int, Any]], bool]:
    """Return numbers with their outcomes, and whether the batcher is healthy; raise errors for other frames."""
    about, *parts = frame.parts
    numbers, errors, healthy = from_json(about.data)
    results = codec.decode(parts, len(numbers))
    if not codec.keeps:
        frame.free()
    elif about.free is not None:
        about.free()
    return _pairs(numbers, results, errors), bool(healthy)


def _pairs(numbers: list[int], results: list[Any], errors: list[list[Any]]) -> Iterator[tuple[int, Any]]:
    for number, result in zip(numbers, results, strict=True):
        yield number, Err(result) if isinstance(result, NotDecodedError) else result
    for number, *error in errors:
        yield number, Err(from_wire(error))
