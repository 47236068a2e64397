"""Frames: what the two ends of a connection send each other, and how the receiver finds their limits.

A frame is a kind and some parts. On the stream it is a head, a table with the size of each part, and the parts. A
large part may be in the arena of the sender instead; then the table has its offset there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple, TypeAlias

HELLO, CALLS, OUTCOMES, WITHDRAWN, FORCED, FREED, QUESTION, ANSWER = range(1, 9)
"""The kinds of frames.

HELLO
    Of both ends, first: version, codec and limits, as JSON.
CALLS
    Of the client: numbers, seconds left and the like as JSON, then the items.
OUTCOMES
    Of the server: numbers and errors as JSON, then the results.
WITHDRAWN
    Of the client: the numbers of calls whose callers have left, as JSON.
FORCED
    Of the client: it stops by force, and those of its calls that still wait in the queue fail.
FREED
    Of both: offsets in the arena of the receiver that the sender does not read any more, as JSON.
QUESTION, ANSWER
    Of the client and of the server: a report, or a change of limits.
"""

HEAD = Struct("<IBH")
"""Bytes that follow on the stream; the kind; the number of parts."""

PART = Struct("<Qq")
"""The size of a part, and its offset in the arena of the sender; -1: it is on the stream."""

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


def encode(kind: int, parts: Sequence[Buffer], place: Callable[[Buffer], int] = lambda _: -1) -> list[Buffer]:
    """Return the buffers of a frame; `place` stores a part in the arena, and returns its offset there, or -1."""
    table, inline = bytearray(), []
    for part in parts:
        offset = place(part)
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        table += PART.pack(size, offset)
        if offset < 0 and size:
            inline.append(part)
    length = len(table) + sum(each.nbytes if isinstance(each, memoryview) else len(each) for each in inline)
    return [HEAD.pack(length, kind, len(parts)) + table, *inline]


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

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete with `data`. Raises FrameError."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
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
            yield Frame(kind, self._parts(view[start : start + length], count))
            start += length
        if start < end:
            self._buffer += view[start:]

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
