"""Queue of the waiting requests of one group whose items have lengths (the option `length`).

A request has the length of its item as its `cost`. `policies.lengths` chooses which lengths share the next batch.
The head is always part of it. A batch may have fewer requests than its limits allow, because longer or shorter
ones wait for another batch; then `by_length` is True.

Each level has its requests twice: in the order of their acceptance, as in every queue, and by classes of lengths.
A request that is taken from the middle of a deque stays there as a tombstone.

This module is pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Hashable, Iterable
from itertools import chain
from math import inf
from typing import TypeVar, cast

from batchers.policies.lengths import LengthModel, Lengths, class_of

from .group_queue import MIN_TOMBSTONES, QUEUED, RUNNING, GroupQueue, Level, Request

T = TypeVar("T")


class LengthLevel(Level[T]):
    """The waiting requests of one group and one priority, oldest first, and by classes of lengths."""

    __slots__ = ("by_class", "counts", "lengths", "numbers", "stale")

    def __init__(self, queue: GroupQueue[T], priority: int, model: LengthModel) -> None:
        """Initialise an empty level of `queue`."""
        super().__init__(queue, priority)
        self.lengths = Lengths(model)
        self.numbers: list[int] = []  # of the classes that have waiting requests, ascending
        self.counts: dict[int, int] = {}  # of the waiting requests of each class
        self.by_class: dict[int, deque[Request[T]]] = {}  # oldest first, with tombstones
        self.stale = 0  # tombstones in all of these

    def add(self, request: Request[T]) -> None:
        """Add a request to its class."""
        number = class_of(request.cost)
        if number not in self.counts:
            self.by_class[number] = deque()
            insort(self.numbers, number)
            self.counts[number] = 0
        self.by_class[number].append(request)
        self.counts[number] += 1
        self.lengths.changed()

    def remove(self, requests: Iterable[Request[T]]) -> None:
        """Remove requests from their classes; their state must already differ from QUEUED."""
        for request in requests:
            number = class_of(request.cost)
            self.counts[number] -= 1
            self.stale += 1
            found = self.by_class[number]
            while found and found[0].state != QUEUED:
                found.popleft()
                self.stale -= 1
            if not self.counts[number]:
                del self.by_class[number], self.counts[number]
                del self.numbers[bisect_left(self.numbers, number)]
            self.lengths.changed()
        if self.stale > MIN_TOMBSTONES and self.stale > sum(self.counts.values()):
            for number, found in self.by_class.items():
                self.by_class[number] = deque(request for request in found if request.state == QUEUED)
            self.stale = 0


class LengthQueue(GroupQueue[T]):
    """The waiting requests of one group whose items have lengths."""

    __slots__ = ("_model",)

    levels: dict[int, Level[T]]  # all of them are `LengthLevel`

    def __init__(self, group: Hashable, owner: object, most: int, most_cost: float, model: LengthModel) -> None:
        """Initialise an empty queue; `most_cost` limits the number of items in a batch times the longest."""
        super().__init__(group, owner, most, most_cost)
        self._model = model

    def _make_level(self, priority: int) -> LengthLevel[T]:
        return LengthLevel(self, priority, self._model)

    def add(self, request: Request[T]) -> bool:
        """Append a request to its level; return True if the rank of the queue may have changed."""
        cast("LengthLevel[T]", request.level).add(request)
        return super().add(request)

    def remove(self, request: Request[T]) -> None:
        """Turn a request into a tombstone; its state must already differ from QUEUED."""
        cast("LengthLevel[T]", request.level).remove((request,))
        super().remove(request)

    def take(self, taken: list[Request[T]]) -> None:
        """Move the requests of the next batch, one of which is the head, into `taken`, an empty list.

        Requests of lower priorities fill up the batch only where they do not make it longer.
        """
        head = self.head()
        level = cast("LengthLevel[T]", head.level)
        chosen = level.lengths.choose(class_of(head.cost), level.numbers, level.counts, self.most, self._most_cost)
        lowest, highest = chosen or (-inf, inf)
        longest = head.cost
        taken.append(head)
        found = level.requests if chosen is None else _nearest_first(level, class_of(head.cost), lowest, highest)
        longest = self._fill(taken, found, longest, inf, in_order=chosen is None)
        for other in sorted(self.levels.values(), key=lambda each: -each.priority):
            if other is not level:
                number = class_of(longest)
                shorter = _nearest_first(cast("LengthLevel[T]", other), number, lowest, number)
                self._fill(taken, other.requests if chosen is None else shorter, longest, longest, in_order=False)
        limit = self.most if self._most_cost == inf or not longest else min(self.most, self._most_cost // longest)
        self.by_length = chosen is not None and len(taken) < min(limit, self.size)
        self._leave(taken)

    def _fill(
        self, taken: list[Request[T]], found: Iterable[Request[T]], longest: float, limit: float, *, in_order: bool
    ) -> float:
        """Append what fits to `taken`, up to the length `limit`; return the longest length.

        `in_order`: end before the first request that does not fit.
        """
        head, most, most_cost = taken[0], self.most, self._most_cost
        for request in found:
            if len(taken) >= most:
                break
            if request.state != QUEUED or request is head:
                continue
            length = max(longest, request.cost)
            if length <= limit and (len(taken) + 1) * length <= most_cost:
                taken.append(request)
                longest = length
            elif in_order:
                break
        return longest

    def _leave(self, taken: list[Request[T]]) -> None:
        """Remove the requests of the next batch from all places."""
        self._subtract(len(taken), sum(request.cost for request in taken))
        for request in taken:
            request.state = RUNNING  # so that it is a tombstone wherever it is
        for level in dict.fromkeys(request.level for request in taken):
            mine = [request for request in taken if request.level is level]
            cast("LengthLevel[T]", level).remove(mine)
            level.dead += len(mine)
            self._compact(level)


def _nearest_first(level: LengthLevel[T], number: int, lowest: float, highest: float) -> Iterable[Request[T]]:
    """Return the requests of these classes: those of class `number`, then shorter, then longer ones."""
    numbers = level.numbers
    first, last = bisect_left(numbers, lowest), bisect_right(numbers, highest)
    middle = min(max(bisect_right(numbers, number), first), last)
    order = numbers[first:middle][::-1] + numbers[middle:last]
    return chain.from_iterable(level.by_class[each] for each in order)
