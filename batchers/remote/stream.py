"""One end of a connection: frames over a socket that does not block, and the arenas of both ends.

A stream knows no event loop. Its owner says when the socket can be read or written, in any thread, but in one at a
time.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

from . import arena
from .arena import Arena, PeerArena
from .codecs import from_json, to_json
from .frames import FREED, HELLO, Buffer, Frame, FrameError, FrameReader, Part, encode, size_of

VERSION = 1

HELLO_LIMIT = 8_000_000
"""Bytes of the first frame at most."""

LARGEST_ARENA = 1 << 32
"""Bytes of an arena of the other end at most; they take no memory before they are used."""

_JOINED = 65_536
_CHUNK = 65_536  # a larger buffer is memory that malloc asks the system for, each time: 12 us more a call
_MOST_BUFFERS = 64


class Stream:
    """Sends and receives frames."""

    def __init__(self, connection: socket.socket, limit: int, arena_size: int) -> None:
        """Use a connected socket, which the stream closes.

        `limit` is the largest number of bytes of a frame, and `arena_size` of the own arena; 0: none.
        """
        connection.setblocking(False)
        self.socket = connection
        self.file = connection.fileno()
        self._reader = FrameReader(HELLO_LIMIT, self._view)
        self._limit = limit
        self._unsent: deque[Buffer] = deque()
        self.unsent_bytes = 0
        self._arena = Arena(arena_size) if arena_size and arena.AVAILABLE else None
        self._peer_arena: PeerArena | None = None
        self._has_sent_file = self._arena is None
        self._has_met = False  # True when HELLO has come
        self._knows_peer = False  # True when it was understood
        self._peer_limit = limit

    # Sending

    @property
    def limit(self) -> int:
        """Bytes of a frame that both ends take."""
        return min(self._limit, self._peer_limit)

    def greet(self, about: dict[str, Any]) -> None:
        """Send the first frame."""
        has_arena = self._arena is not None
        self.send(HELLO, (to_json({"version": VERSION, "limit": self._limit, "arena": has_arena, **about}),))

    def send(self, kind: int, parts: Sequence[Buffer]) -> None:
        """Append a frame to what will be sent by `flush`."""
        place = None if self._arena is None or not self._knows_peer else self._arena.place
        buffers = encode(kind, parts, place)
        self._unsent.extend(buffers)
        self.unsent_bytes += size_of(buffers)

    def flush(self) -> bool:
        """Send what the socket takes now, and return True if nothing is left. Raises OSError."""
        if self._peer_arena is not None and (freed := self._peer_arena.freed):
            offsets = [freed.popleft() for _ in range(len(freed))]
            self.send(FREED, (to_json(offsets),))
        unsent = self._unsent
        while unsent:
            if self.unsent_bytes <= _JOINED:
                joined = b"".join(unsent)
                unsent.clear()
                unsent.append(joined)
                buffers: list[Buffer] = [joined]
            else:
                buffers = list(islice(unsent, _MOST_BUFFERS))
            try:
                sent = self._send(buffers)
            except BlockingIOError:
                return False
            self.unsent_bytes -= sent
            if not self.unsent_bytes:
                unsent.clear()
                break
            while sent:
                first = memoryview(unsent.popleft()).cast("B")
                if len(first) > sent:
                    unsent.appendleft(first[sent:])
                    break
                sent -= len(first)
        return True

    def _send(self, buffers: list[Buffer]) -> int:
        if not self._has_sent_file and self._arena is not None:
            sent = socket.send_fds(self.socket, buffers, [self._arena.file])
            self._has_sent_file = True
            return sent
        return self.socket.send(buffers[0]) if len(buffers) == 1 else self.socket.sendmsg(buffers)

    # Receiving

    def receive(self) -> list[Frame]:
        """Return the frames that are complete now; the first one is HELLO, and no other is.

        Raises EOFError at the end of the stream, FrameError, and OSError.
        """
        data = self.socket.recv(_CHUNK) if self._knows_peer else self._receive_first()
        if not data:
            raise EOFError
        frames = self._reader.feed(data)
        if self._has_met and all(frame.kind > FREED for frame in frames):  # the usual case, in less time
            return frames
        found: list[Frame] = []
        for frame in frames:
            if (frame.kind == HELLO) == self._has_met:
                msg = f"a frame of the kind {frame.kind} came {'again' if self._has_met else 'first'}"
                raise FrameError(msg)
            self._has_met = True
            if frame.kind == FREED:
                for offset in from_json(frame.parts[0].data):
                    if self._arena is not None:
                        self._arena.free(offset)
                frame.free()
            else:
                found.append(frame)
        return found

    def _receive_first(self) -> bytes:
        data, files, _, _ = socket.recv_fds(self.socket, _CHUNK, 1)
        for file in files:
            if self._peer_arena is None:
                self._peer_arena = PeerArena(file, LARGEST_ARENA)
            else:
                os.close(file)
        return data

    def meet(self, frame: Frame) -> dict[str, Any]:
        """Return what the first frame of the other end says. Raises FrameError for another version."""
        about: Any = from_json(frame.parts[0].data)
        version = about.get("version")
        if version != VERSION:
            msg = (
                f"the other end has version {version} of frames, and this one {VERSION}: install the same batchers"
            )
            raise FrameError(msg)
        self._peer_limit = int(about["limit"])
        self._reader.limit = self._limit
        self._knows_peer = True
        found: dict[str, Any] = about
        return found

    def _view(self, offset: int, size: int) -> Part:
        if self._peer_arena is None:
            msg = "a part in an arena, and there is none"
            raise FrameError(msg)
        return self._peer_arena.view(offset, size)

    def close(self) -> None:
        """Close the socket, and drop the arenas."""
        self.socket.close()
        self._unsent.clear()
        if self._arena is not None:
            self._arena.close()
            self._arena = None
        if self._peer_arena is not None:
            self._peer_arena.close()
            self._peer_arena = None
