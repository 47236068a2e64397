"""Calls of a client as frames: those of one turn of the loop together, and apart where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from batchers.core.group_queue import RUNNING, Request
from batchers.core.outcomes import Err
from batchers.drivers.loops import Loop
from batchers.errors import BatcherError, OptionError, QueueFullError

from .codecs import Codec, not_encoded, to_json
from .columns import pack_calls
from .frames import CALLS, QUESTION, size_of
from .stream import Stream

HEADROOM = 1000
"""Bytes of a frame for each of its items that are not the item."""

Settled: TypeAlias = list[tuple[Request[Any], Any]]


class Question(Request[Any]):
    """A question to the server; its item is what goes with it."""

    __slots__ = ("name",)

    def __init__(self, name: str, payload: bytes, deadline: float, future: object, loop: Loop | None) -> None:
        """Store the question."""
        super().__init__(payload, None, 0, 0.0, deadline, future, loop)
        self.name = name


def check_room(count: int, pending: int, limit: int) -> None:
    """Raise QueueFullError if so many calls are too many now, and OptionError if they always are."""
    if count > limit:
        msg = f"{count} items in one call, and max_pending is {limit}: split the call, or raise the limit"
        raise OptionError(msg)
    if pending + count > limit:
        msg = f"{pending} calls wait for the server already (max_pending is {limit}): retry later"
        raise QueueFullError(msg)


def send_calls(
    calls: Sequence[Sequence[Request[Any]]], codec: Codec, stream: Stream, now: float, *, with_costs: bool
) -> Settled:
    """Send calls; return those that cannot travel, with their errors."""
    failed: Settled = []
    singles = [call[0] for call in calls if len(call) == 1 and type(call[0]) is not Question]
    if singles:
        _send(singles, None, codec, stream, now, with_costs, failed)
    for call in calls:
        if len(call) > 1:
            _send(call, [len(call)], codec, stream, now, with_costs, failed)
        elif type(call[0]) is Question:
            question: Any = call[0]
            if len(question.item) > stream.limit - HEADROOM:
                failed.append((question, Err(_too_large(len(question.item), stream))))
                continue
            stream.send(QUESTION, (to_json([question.number, question.name]), question.item))
            question.state = RUNNING
    return failed


def _send(  # noqa: PLR0917 - a part of `send_calls`
    requests: Sequence[Request[Any]],
    sizes: list[int] | None,
    codec: Codec,
    stream: Stream,
    now: float,
    with_costs: bool,
    failed: Settled,
) -> None:
    """Send requests in one frame: of one call, or each of its own (`sizes` is None)."""
    try:
        parts = (
            pack_calls(requests, sizes, now, with_costs=with_costs),
            *codec.encode([each.item for each in requests]),
        )
        size = size_of(parts)
        if size > stream.limit - HEADROOM * len(requests):
            raise _too_large(size, stream)  # noqa: TRY301 - as an error of the codec: it fails one call
    except Exception as error:  # noqa: BLE001 - of the user's types
        if sizes is None and len(requests) > 1:
            middle = len(requests) // 2
            for part in (requests[:middle], requests[middle:]):
                _send(part, None, codec, stream, now, with_costs, failed)
            return
        failed += [(request, Err(_not_sent(request, requests, codec, error))) for request in requests]
        return
    for request in requests:
        request.state = RUNNING
    stream.send(CALLS, parts)


def _too_large(size: int, stream: Stream) -> OptionError:
    return OptionError(f"{size} bytes in a frame that may have {stream.limit}: raise max_frame_size at both ends")


def _not_sent(
    request: Request[Any], requests: Sequence[Request[Any]], codec: Codec, error: Exception
) -> BatcherError:
    if isinstance(error, OptionError):
        return OptionError(str(error))
    for each in requests:
        with suppress(Exception):
            to_json(each.group)
            codec.encode([each.item])
            continue
        return not_encoded("an item", each.item, codec, error)
    return not_encoded("an item", request.item, codec, error)
