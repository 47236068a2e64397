"""Pure: members in the order of keys that may change."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Generic, TypeVar

M = TypeVar("M", bound=Hashable)


class IndexedHeap(Generic[M]):
    """Which member has the smallest key? O(log n) for a change, O(1) while there is one member.

    Members with equal keys come in no particular order. Inside is a heap whose stale entries are dropped when
    they reach the top, or all at once when they are the majority, so that its memory follows the number of
    members. It is built when a second member comes and someone asks: a batcher without groups and priorities
    never needs it.
    """

    __slots__ = ("_heap", "_serial", "keys")

    def __init__(self) -> None:
        """Start empty."""
        self.keys: dict[M, Any] = {}  # for others to read: are there any?
        self._heap: list[tuple[Any, int, M]] | None = None
        self._serial = count()  # keeps the heap from comparing members

    def put(self, member: M, key: Any) -> None:  # noqa: ANN401 - whatever is comparable with the other keys
        """Add a member or change its key."""
        keys = self.keys
        if keys.get(member) != key:
            keys[member] = key
            if self._heap is not None:
                heappush(self._heap, (key, next(self._serial), member))
                self._forget_stale()

    def discard(self, member: M) -> None:
        """Remove a member, if it is one."""
        self.keys.pop(member, None)
        if self._heap is not None:
            self._forget_stale()

    def first(self) -> M:
        """Return the member with the smallest key; IndexError when there is none."""
        keys = self.keys
        if len(keys) == 1:
            return next(iter(keys))
        heap = self._heap
        if heap is None:
            heap = [(key, next(self._serial), member) for member, key in keys.items()]
            heapify(heap)
            self._heap = heap
        while keys.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        return heap[0][2]

    def first_key(self) -> Any:  # noqa: ANN401 - as `put`
        """Return the smallest key; IndexError when there is no member."""
        return self.keys[self.first()]

    def _forget_stale(self) -> None:
        keys = self.keys
        if not keys or len(self._heap or ()) > 2 * len(keys) + 16:
            self._heap = None
            self.keys = dict(keys)  # the old one keeps the room of a burst
