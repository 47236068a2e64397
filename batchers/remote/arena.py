"""Arena: memory that two processes share, for parts of frames that are large.

Each end of a connection makes one and passes it to the other end with the first frame. It has no name in any file
system, so the kernel frees it when both processes have ended, however they end. The sender writes a part into a
free place and sends the offset; the receiver reads it there, and reports the offset as soon as nothing refers to
it any more. The size is sealed, so that no process can take away memory that the other one reads. Linux only.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import deque
from contextlib import suppress
from functools import partial

from .frames import LARGE, Buffer, FrameError, Part

_ALIGNMENT = 64
_SEALS = ("F_SEAL_SHRINK", "F_SEAL_GROW")

AVAILABLE = hasattr(os, "memfd_create") and all(hasattr(fcntl, name) for name in ("F_ADD_SEALS", *_SEALS))


class Arena:
    """The arena of a sender."""

    def __init__(self, size: int) -> None:
        """Make an arena of so many bytes; its pages take memory only when they are used. Raises OSError."""
        self.size = size
        self.file = os.memfd_create("batchers", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.file, size)
            fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, _required_seals())
            self._map = mmap.mmap(self.file, size)
        except BaseException:
            os.close(self.file)
            raise
        self._free: list[tuple[int, int]] = [(0, size)]  # places by their offset, none next to another one
        self._used: dict[int, int] = {}

    def place(self, part: Buffer) -> int:
        """Copy a large part to a free place, and return its offset; -1: it is small, or there is no place."""
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        if size < LARGE:
            return -1
        length = -(-size // _ALIGNMENT) * _ALIGNMENT
        index = next((index for index, (_, free) in enumerate(self._free) if free >= length), None)
        if index is None:
            return -1
        offset, free = self._free[index]
        self._map[offset : offset + size] = part.cast("B") if isinstance(part, memoryview) else part
        self._free[index : index + 1] = [(offset + length, free - length)] if free > length else []
        self._used[offset] = length
        return offset

    def free(self, offset: int) -> None:
        """Use a place again. Raises FrameError if nothing is there."""
        length = self._used.pop(offset, None)
        if length is None:
            msg = f"nothing is at the offset {offset} of the arena"
            raise FrameError(msg)
        self._free.append((offset, length))
        self._free.sort()
        merged: list[tuple[int, int]] = []
        for begin, size in self._free:
            if merged and sum(merged[-1]) == begin:
                merged[-1] = merged[-1][0], merged[-1][1] + size
            else:
                merged.append((begin, size))
        self._free = merged

    def close(self) -> None:
        """Drop the memory of this end."""
        os.close(self.file)
        self._map.close()


class PeerArena:
    """The arena of the other end, to read from.

    `freed` has the offsets of the parts that nothing refers to any more; any thread may add to it.
    """

    def __init__(self, file: int, limit: int) -> None:
        """Map the memory; the file is closed. Raises FrameError for what is no arena of at most `limit` bytes."""
        try:
            size = os.fstat(file).st_size
            if fcntl.fcntl(file, fcntl.F_GET_SEALS) & _required_seals() != _required_seals() or size > limit:
                msg = f"an arena of {size} bytes that is not sealed, or larger than {limit}"
                raise FrameError(msg)
            self._view = memoryview(mmap.mmap(file, size, prot=mmap.PROT_READ))
        except (OSError, ValueError) as error:
            msg = f"what came with the first frame is no arena: {error}"
            raise FrameError(msg) from error
        finally:
            os.close(file)
        self.freed: deque[int] = deque()

    def view(self, offset: int, size: int) -> Part:
        """Return a part. Raises FrameError if it is not in the arena."""
        part = self._view[offset : offset + size]
        if len(part) != size or offset < 0 or not size:
            msg = f"a part of {size} bytes at the offset {offset} of an arena of {len(self._view)} bytes"
            raise FrameError(msg)
        return Part(part, partial(self.freed.append, offset))

    def close(self) -> None:
        """Drop the memory, which stays until the last part has gone."""
        whole = self._view.obj
        self._view.release()
        with suppress(BufferError):  # parts refer to it; it is closed with the last one
            whole.close()  # type: ignore[attr-defined]  # an mmap


def _required_seals() -> int:
    seals = 0
    for name in _SEALS:
        seals |= getattr(fcntl, name)
    return seals
