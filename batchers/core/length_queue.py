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
from math import inf
from typing import Generic, TypeVar, cast

from batchers.policies.lengths import LengthModel, Lengths, class_of

from .group_queue import MIN_TOMBSTONES, QUEUED, RUNNING, GroupQueue, Level, Request, fitting

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

    def remove(self, request: Request[T]) -> None:
        """Remove a request from its class; its state must already differ from QUEUED."""
        number = class_of(request.cost)
        self.stale += 1
        found = self.by_class[number]
        while found and found[0].state != QUEUED:
            found.popleft()
            self.stale -= 1
        self._subtract(number, 1)
        if self.stale > MIN_TOMBSTONES and self.stale > sum(self.counts.values()):
            for number, found in self.by_class.items():
                self.by_class[number] = deque(request for request in found if request.state == QUEUED)
            self.stale = 0

    def pick(self, batch: _Next[T], numbers: Iterable[int]) -> None:
        """Move requests of these classes, in this order, into a batch as far as they fit.

        In a class the oldest goes first.
        """
        taken, most = batch.taken, batch.most
        for number in numbers:
            if len(taken) >= most:
                break
            found, before = self.by_class[number], len(taken)
            while found and len(taken) < most:
                request = found[0]
                if request.state != QUEUED:
                    self.stale -= 1
                elif batch.fits(request.cost):
                    taken.append(request)
                    request.state = RUNNING  # a tombstone in `requests`
                else:
                    break
                found.popleft()
            if len(taken) > before:
                self._subtract(number, len(taken) - before)
                self.dead += len(taken) - before

    def pick_in_order(self, batch: _Next[T]) -> bool:
        """Move requests into a batch, oldest first; return False at the first one that does not fit."""
        taken = batch.taken
        for request in self.requests:
            if request.state == QUEUED:
                if len(taken) >= batch.most or not batch.fits(request.cost):
                    return False
                taken.append(request)
                request.state = RUNNING
                self.dead += 1
                self.remove(request)
        return True

    def _subtract(self, number: int, count: int) -> None:
        """Subtract requests from the count of a class, and drop an empty class."""
        self.lengths.changed(count)
        self.counts[number] -= count
        if not self.counts[number]:
            self.stale -= len(self.by_class.pop(number))
            del self.counts[number], self.numbers[bisect_left(self.numbers, number)]


class _Next(Generic[T]):
    """The next batch, while it is formed: its limits, and its longest length."""

    __slots__ = ("_most_cost", "limit", "longest", "most", "taken")

    def __init__(self, taken: list[Request[T]], most: int, most_cost: float) -> None:
        self.taken = taken
        self.most = most
        self._most_cost = most_cost
        self.longest = 0.0
        self.limit = inf  # no longer item is added

    def fits(self, length: float) -> bool:
        """Return True if an item of this length may be added, and note it as the longest if it is."""
        if length <= self.longest:
            return self._most_cost == inf or (len(self.taken) + 1) * self.longest <= self._most_cost
        if length > self.limit or (len(self.taken) + 1) * length > self._most_cost:
            return False
        self.longest = length
        return True

    @property
    def room(self) -> float:
        """The most items that the batch could have, with its longest one."""
        return self.most if not self.longest else min(self.most, self._most_cost // self.longest)


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
        cast("LengthLevel[T]", request.level).remove(request)
        super().remove(request)

    def take(self, taken: list[Request[T]]) -> None:
        """Move the requests of the next batch, one of which is the head, into `taken`, an empty list.

        Requests of lower priorities fill up the batch only where they do not make it longer.
        """
        head = self.head()
        level, number = cast("LengthLevel[T]", head.level), class_of(head.cost)
        chosen = level.lengths.choose(number, level.numbers, level.counts, self.most, self._most_cost)
        most, size = self.most, self.size
        if self.sizes:
            most = fitting(min(most, self._count(chosen)), self.sizes)
        batch = _Next(taken, most, self._most_cost)
        for other in self._by_rank():
            if not other.numbers:
                continue
            if other is not level:  # a lower priority: that of the head is the highest
                batch.limit, number = batch.longest, class_of(batch.longest)
            if chosen is not None:
                other.pick(batch, _nearest_first(other.numbers, number, *chosen))
            elif not other.pick_in_order(batch):
                break
        self.by_length = chosen is not None and len(taken) < min(batch.room, size)
        self._subtract(len(taken), sum(request.cost for request in taken))
        for changed in {id(request.level): request.level for request in taken}.values():
            self._compact(changed)

    def _count(self, chosen: tuple[float, float] | None) -> int:
        """Return the number of waiting requests whose lengths may share the next batch."""
        lowest, highest = chosen or (-inf, inf)
        levels = cast("Iterable[LengthLevel[T]]", self.levels.values())
        return sum(
            count for level in levels for number, count in level.counts.items() if lowest <= number <= highest
        )

    def _by_rank(self) -> list[LengthLevel[T]]:
        """Return the levels, highest priority first."""
        levels = cast("Iterable[LengthLevel[T]]", self.levels.values())
        return sorted(levels, key=lambda level: -level.priority) if self.only is None else list(levels)


def _nearest_first(numbers: list[int], number: int, lowest: float, highest: float) -> list[int]:
    """Return the classes from `lowest` to `highest`: `number`, then those below, then those above."""
    first, last = bisect_left(numbers, lowest), bisect_right(numbers, highest)
    middle = min(max(bisect_right(numbers, number), first), last)
    return numbers[first:middle][::-1] + numbers[middle:last]
