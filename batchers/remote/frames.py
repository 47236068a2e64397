"""Frames: what the two ends of a connection send each other, and how the receiver finds their limits.

A frame is a kind and some parts. On the stream it is a head, a table with the size of each part, and the parts. A
large part may be in the arena of the sender instead; then the table has its offset there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import NamedTuple, TypeAlias

HELLO, FREED, CALLS, OUTCOMES, WITHDRAWN, FORCED, QUESTION, ANSWER = range(1, 9)
"""The kinds of frames.

HELLO
    Of both ends, first: version, codec and limits, as JSON.
FREED
    Of both: offsets in the arena of the receiver that the sender does not read any more, as JSON.
CALLS
    Of the client: numbers, seconds left and the like (see `columns`), then the items.
OUTCOMES
    Of the server: numbers and errors (see `columns`), then the results.
WITHDRAWN
    Of the client: the numbers of calls whose callers have left, as JSON.
FORCED
    Of the client: it stops by force, and those of its calls that still wait in the queue fail.
QUESTION, ANSWER
    Of the client and of the server: a report, or a change of limits.
"""

HEAD = Struct("<IBH")
"""Bytes that follow on the stream; the kind; the number of parts."""

PART = Struct("<Qq")
"""The size of a part, and its offset in the arena of the sender; -1: it is on the stream."""

_HEADS = [Struct(HEAD.format + "Qq" * count) for count in range(8)]

LARGE = 100_000
"""Bytes from which a part goes through the arena: the copy into it costs less than the way through a socket."""

MOST_PARTS = 65_535
"""Parts of a frame at most."""

Buffer: TypeAlias = bytes | bytearray | memoryview


class FrameError(Exception):
    """What has come is no frame, or a frame that is larger than allowed."""


class Part(NamedTuple):
    """A part that has come. `free` returns its place in the arena to the sender; None: it came on the stream."""

    data: memoryview
    free: Callable[[], object] | None


class Frame(NamedTuple):
    """A frame that has come."""

    kind: int
    parts: list[Part]

    def free(self) -> None:
        """Return the places of all parts: nothing refers to them any more."""
        for part in self.parts:
            if part.free is not None:
                part.free()


def size_of(parts: Sequence[Buffer]) -> int:
    """Return the number of bytes of all parts."""
    size = 0
    for part in parts:
        size += len(part) if type(part) is bytes else memoryview(part).nbytes
    return size


def encode(kind: int, parts: Sequence[Buffer], place: Callable[[Buffer], int] | None = None) -> list[Buffer]:
    """Return the buffers of a frame; `place` stores a part in the arena, and returns its offset there, or -1."""
    table: list[int] = []
    buffers: list[Buffer] = [b""]
    length = PART.size * len(parts)
    for part in parts:
        size = len(part) if type(part) is bytes else memoryview(part).nbytes
        offset = -1 if place is None or size < LARGE else place(part)
        table += (size, offset)
        if offset < 0 and size:
            buffers.append(part)
            length += size
    count = len(parts)
    head = _HEADS[count] if count < len(_HEADS) else Struct(HEAD.format + "Qq" * count)
    buffers[0] = head.pack(length, kind, count, *table)
    return buffers


class FrameReader:
    """Finds the frames in a stream of bytes.

    `limit` is the largest number of bytes of a frame, with what is in the arena. `view` returns a part that is in
    the arena, by its offset and size, or raises FrameError.
    """

    __slots__ = ("_buffer", "_needed", "limit", "view")

    def __init__(self, limit: int, view: Callable[[int, int], Part]) -> None:
        """Initialise the reader at the begin of a frame."""
        self.limit = limit
        self.view = view
        self._buffer = bytearray()
        self._needed = 0  # bytes in the buffer without which there is no frame

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete with `data`. Raises FrameError."""
        found: list[Frame] = []
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return found
            data, self._buffer = bytes(self._buffer), bytearray()
        view, start, end = memoryview(data), 0, len(data)
        self._needed = HEAD.size
        while end - start >= HEAD.size:
            length, kind, count = HEAD.unpack_from(view, start)
            if length > self.limit or count * PART.size > length:
                msg = f"a frame of {length} bytes with {count} parts; a frame may have {self.limit} bytes"
                raise FrameError(msg)
            if end - start - HEAD.size < length:
                self._needed = HEAD.size + length
                break
            start += HEAD.size
            found.append(Frame(kind, self._parts(view[start : start + length], count)))
            start += length
        if start < end:
            self._buffer += view[start:]
        return found

    def _parts(self, view: memoryview, count: int) -> list[Part]:
        parts: list[Part] = []
        begin, total = count * PART.size, 0
        for number in range(count):
            size, offset = PART.unpack_from(view, number * PART.size)
            total += size
            if total > self.limit:
                msg = f"a frame with parts of {total} bytes; a frame may have {self.limit} bytes"
                raise FrameError(msg)
            if offset >= 0:
                parts.append(self.view(offset, size))
                continue
            part = view[begin : begin + size]
            if len(part) != size:
                msg = "a frame with less than the size of its parts"
                raise FrameError(msg)
            parts.append(Part(part, None))
            begin += size
        return parts
