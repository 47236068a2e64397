"""Indexed heap: a priority queue of members whose keys may change.

This module is pure.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Generic, TypeVar

M = TypeVar("M", bound=Hashable)


class IndexedHeap(Generic[M]):
    """Priority queue that returns the member with the smallest key.

    A change takes O(log n), or O(1) while there is one member. The order of members with equal keys is undefined.

    The internal binary heap may contain stale entries. They are removed when they reach the top, or all together
    when they are the majority, so that the memory use follows the number of members. The heap is built only when
    the smallest key of two or more members is requested. A batcher without groups and priorities never needs it.
    """

    __slots__ = ("_heap", "_serial", "keys")

    def __init__(self) -> None:
        """Initialise without members."""
        self.keys: dict[M, Any] = {}  # public for reading: callers test whether there are any members
        self._heap: list[tuple[Any, int, M]] | None = None
        self._serial = count()  # tie-breaker, so that the heap never compares members

    def put(self, member: M, key: Any) -> None:  # noqa: ANN401 - any type that is comparable with the other keys
        """Add a member, or change its key if it is already present."""
        keys = self.keys
        if keys.get(member) != key:
            keys[member] = key
            if self._heap is not None:
                heappush(self._heap, (key, next(self._serial), member))
                self._forget_stale()

    def discard(self, member: M) -> None:
        """Remove a member; do nothing if it is not present."""
        self.keys.pop(member, None)
        if self._heap is not None:
            self._forget_stale()

    def first(self) -> M:
        """Return the member with the smallest key; raise IndexError if there are no members."""
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

    def first_key(self) -> Any:  # noqa: ANN401 - as in `put`
        """Return the smallest key; raise IndexError if there are no members."""
        return self.keys[self.first()]

    def _forget_stale(self) -> None:
        keys = self.keys
        if not keys or len(self._heap or ()) > 2 * len(keys) + 16:
            self._heap = None
            self.keys = dict(keys)  # a new dict, because the old one keeps the memory of a burst
