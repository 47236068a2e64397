"""What frames of calls and outcomes say besides items and results: columns of numbers, and JSON for the rest."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import inf
from struct import Struct
from typing import Any, NamedTuple

from batchers.core.group_queue import Request

from .codecs import from_json, to_json
from .frames import FrameError

_HEAD = Struct("<II")  # the number of calls, and 1 if there is a column of seconds
_NUMBER = 8


class Calls(NamedTuple):
    """The columns of a frame of calls; None where all have the default."""

    numbers: list[int]
    seconds: list[float] | None
    sizes: list[int] | None
    """Items of each call of several items, in order; None: each item is a call."""
    priorities: list[int] | None
    groups: list[Any] | None
    costs: list[float] | None


def pack_calls(
    requests: Sequence[Request[Any]], sizes: list[int] | None, now: float, *, with_costs: bool
) -> bytes:
    """Return the columns of requests as bytes. Raises TypeError for a group that JSON cannot say."""
    seconds = b""
    priorities = groups = None
    for request in requests:
        if request.deadline < inf and not seconds:
            seconds = array("d", [max(each.deadline - now, 0.0) for each in requests]).tobytes()
        if request.priority and priorities is None:
            priorities = [each.priority for each in requests]
        if request.group is not None and groups is None:
            groups = [each.group for each in requests]
    costs = [each.cost for each in requests] if with_costs else None
    rest = (sizes, priorities, groups, costs)
    more = b"" if rest == _NOTHING else to_json(rest)
    numbers = array("Q", [each.number for each in requests]).tobytes()
    return b"".join((_HEAD.pack(len(requests), bool(seconds)), numbers, seconds, more))


_NOTHING = (None, None, None, None)


def unpack_calls(data: memoryview) -> Calls:
    """Return the columns of a frame of calls. Raises FrameError, ValueError or struct.error for other bytes."""
    count, has_seconds = _HEAD.unpack_from(data)
    numbers, start = _column(data, _HEAD.size, count, "Q")
    seconds = None
    if has_seconds:
        seconds, start = _column(data, start, count, "d")
    if start == len(data):
        return Calls(numbers, seconds, *_NOTHING)
    sizes, priorities, groups, costs = from_json(data[start:])
    return Calls(numbers, seconds, sizes, priorities, groups, costs)


def pack_outcomes(numbers: list[int], errors: list[Any], *, healthy: bool) -> bytes:
    """Return the numbers of results, the errors, and whether the batcher is healthy, as bytes."""
    more = to_json([errors, healthy]) if errors or not healthy else b""
    return b"".join((_HEAD.pack(len(numbers), 0), array("Q", numbers).tobytes(), more))


def unpack_outcomes(data: memoryview) -> tuple[list[int], list[list[Any]], bool]:
    """Return what `pack_outcomes` had. Raises errors as `unpack_calls`."""
    count, _ = _HEAD.unpack_from(data)
    numbers, start = _column(data, _HEAD.size, count, "Q")
    if start == len(data):
        return numbers, [], True
    errors, healthy = from_json(data[start:])
    return numbers, errors, bool(healthy)


def _column(data: memoryview, start: int, count: int, kind: str) -> tuple[Any, int]:
    end = start + _NUMBER * count
    if end > len(data):
        msg = f"no {count} numbers"
        raise FrameError(msg)
    found = array(kind)
    found.frombytes(data[start:end])
    return found.tolist(), end
