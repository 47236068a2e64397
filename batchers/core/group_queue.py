"""Queue of the waiting requests of one group, in the order in which they enter batches.

Higher priorities enter batches first. Requests of the same priority keep the order of their acceptance. The
removal of a request updates every count and every order at once, but the request stays in the deque as a
tombstone. Tombstones are removed when they reach the head of the deque, or all together when they are the
majority. The amortised cost of a removal is therefore O(1) at any position in the queue.

This module is pure.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Sequence
from itertools import islice
from math import inf
from typing import Generic, TypeVar

from .indexed_heap import IndexedHeap

T = TypeVar("T")

QUEUED, RUNNING, SETTLED = range(3)
"""States of a request, in the order in which it passes through them.

A request may skip RUNNING.
"""


MIN_TOMBSTONES = 16
"""Number of tombstones up to which a deque is never rebuilt: so few are not worth the work."""


def fitting(count: int, sizes: Sequence[int]) -> int:
    """Return how many of `count` waiting items make a batch, where a model is compiled for these sizes.

    That is the largest size up to `count`; or all of them, to be padded, if they are more than half of the next
    size, or fewer than the smallest one.
    """
    place = bisect_right(sizes, count)
    if not place or (place < len(sizes) and 2 * count > sizes[place]):
        return count
    return sizes[place - 1]


class Callers:
    """Number of callers that still wait for a running batch."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        """Store the number of requests of the batch that are not settled."""
        self.left = left


class Request(Generic[T]):
    """One call: its item, the attributes that the core needs, and the future of its caller.

    The core never uses `future` and `loop`. The driver needs them for the delivery of the outcome.
    """

    __slots__ = (
        *("item", "group", "priority", "cost", "deadline", "future", "loop"),
        *("arrived", "number", "state", "level", "callers"),
    )

    item: T | None  # None as soon as the request is settled, so that no request keeps an item alive
    level: Level[T]
    arrived: float
    number: int
    callers: Callers  # of its batch; only with `cancel_abandoned`

    def __init__(  # noqa: PLR0917 - one is created for every call, and keyword arguments cost time
        self,
        item: T,
        group: Hashable = None,
        priority: int = 0,
        cost: float = 0.0,
        deadline: float = inf,
        future: object = None,
        loop: object = None,
    ) -> None:
        """Store a call that has not been offered to the core yet.

        `deadline` is a time in seconds of the batcher's clock; inf means no deadline.
        """
        self.item = item
        self.group = group
        self.priority = priority
        self.cost = cost
        self.deadline = deadline
        self.future = future
        self.loop = loop
        self.state = QUEUED


class Level(Generic[T]):
    """The waiting requests of one group and one priority, oldest first.

    `dead` is the number of tombstones in `requests`. The first request is never a tombstone.
    """

    __slots__ = ("dead", "priority", "queue", "requests")

    def __init__(self, queue: GroupQueue[T], priority: int) -> None:
        """Initialise an empty level of `queue`."""
        self.queue = queue
        self.priority = priority
        self.requests: deque[Request[T]] = deque()
        self.dead = 0


class GroupQueue(Generic[T]):
    """The waiting requests of one group."""

    __slots__ = (
        *("_by_age", "_by_priority", "_most_cost"),
        *("levels", "only", "cost", "full", "group", "most", "owner", "size", "by_length", "sizes"),
    )

    def __init__(
        self, group: Hashable, owner: object = None, most: int = sys.maxsize, most_cost: float = inf
    ) -> None:
        """Initialise an empty queue.

        `owner` identifies the core to which the queue belongs. A batch of this queue has at most
        `most` items, with a total cost of at most `most_cost`.
        """
        self.group = group
        self.owner = owner
        self.size = 0
        self.cost = 0.0
        self.full = False  # the result of `fills` when the queue was last ranked
        self.sizes: Sequence[int] = ()  # for which the model is compiled, ascending
        self.by_length = False  # True if lengths ended the last batch; see `LengthQueue`
        self.most = most
        self._most_cost = most_cost
        self.levels: dict[int, Level[T]] = {}  # by priority
        self.only: Level[T] | None = None  # the level, while there is one; then the heaps are not kept up to date
        self._by_priority: IndexedHeap[Level[T]] = IndexedHeap()
        self._by_age: IndexedHeap[Level[T]] = IndexedHeap()

    def add(self, request: Request[T]) -> bool:
        """Append a request to its level, which must belong to this queue.

        Return True if the rank of the queue may have changed.
        """
        level = request.level
        requests = level.requests
        requests.append(request)
        self.size = size = self.size + 1
        self.cost = cost = self.cost + request.cost
        if len(requests) > 1:
            return not self.full and (size >= self.most or cost >= self._most_cost)
        if self.only is None:
            self._by_priority.put(level, -level.priority)
            self._by_age.put(level, request.number)
        return True

    def fills(self) -> bool:
        """Return True if the next batch cannot grow any more, because it has reached a limit."""
        return self.size >= self.most or self.cost >= self._most_cost

    @property
    def full_by_size(self) -> bool:
        """True if the number of items fills the next batch, whatever their cost."""
        return self.size >= self.most

    @property
    def next_size(self) -> int:
        """Estimated number of items in the next batch, from the mean cost of the waiting items: 1 or more."""
        size: float = min(self.size, self.most)
        if self.cost > self._most_cost:
            size = min(size, self.size * self._most_cost / self.cost)
        return max(int(size), 1)

    def new_level(self, priority: int) -> Level[T]:
        """Create and return a level for `priority`, for which the queue must not have a level yet."""
        level = self.levels[priority] = self._make_level(priority)
        if self.only is None and len(self.levels) == 1:
            self.only = level
        elif self.only is not None:
            only, self.only = self.only, None
            if only.requests:
                self._by_priority.put(only, -only.priority)
                self._by_age.put(only, only.requests[0].number)
            else:
                self._by_priority.discard(only)
                self._by_age.discard(only)
        return level

    def _make_level(self, priority: int) -> Level[T]:
        return Level(self, priority)

    def forget_empty(self) -> None:
        """Drop the empty levels, which were created for requests that were then refused."""
        self.levels = {priority: level for priority, level in self.levels.items() if level.requests}
        self._find_only()

    def _find_only(self) -> None:
        self.only = next(iter(self.levels.values())) if len(self.levels) == 1 else None

    def head(self) -> Request[T]:
        """Return the request that is first to enter the next batch.

        The queue must not be empty.
        """
        return (self.only or self._by_priority.first()).requests[0]

    def oldest(self) -> Request[T]:
        """Return the request with the longest queue wait.

        The queue must not be empty.
        """
        return (self.only or self._by_age.first()).requests[0]

    def take(self, taken: list[Request[T]]) -> None:
        """Move the requests of the next batch into `taken`, an empty list: as many as the limits allow.

        The batch ends before the first request that does not fit, and no later request overtakes that request. The
        batch has at least one request if the queue is not empty, because no single request exceeds the limits.
        Each request is appended to the list before it leaves the queue, so that an interruption loses no request.
        """
        size = min(self.most, self.size)
        if self.sizes:
            size = fitting(size, self.sizes)
        only = self.only
        if only is not None and not only.dead and self._most_cost == inf:  # most batchers, most of the time
            taken.extend(islice(only.requests, size))
            for _ in range(size):
                only.requests.popleft()
            self.size -= size
            return
        spent = 0.0
        cost = self._most_cost
        while len(taken) < size:
            level = self.only or self._by_priority.first()
            requests = level.requests
            while requests and len(taken) < size:
                request = requests[0]
                if request.state == QUEUED:
                    if spent + request.cost > cost:
                        self._drop_tombstones(level)
                        self._subtract(len(taken), spent)
                        return
                    spent += request.cost
                    taken.append(request)
                else:
                    level.dead -= 1
                requests.popleft()
            self._drop_tombstones(level)
        self._subtract(len(taken), spent)

    def remove(self, request: Request[T]) -> None:
        """Turn a request into a tombstone; its state must already differ from QUEUED."""
        level = request.level
        level.dead += 1
        self._subtract(1, request.cost)
        self._compact(level)

    def _compact(self, level: Level[T]) -> None:
        """Remove the tombstones of a level if they are the majority, and those at its head in any case."""
        requests = level.requests
        if level.dead > MIN_TOMBSTONES and level.dead * 2 > len(requests):
            level.requests = deque(waiting for waiting in requests if waiting.state == QUEUED)
            level.dead = 0
        self._drop_tombstones(level)

    def waiting(self) -> list[Request[T]]:
        """Return all waiting requests of this queue."""
        return [request for level in self.levels.values() for request in level.requests if request.state == QUEUED]

    def _subtract(self, count: int, cost: float) -> None:
        self.size -= count
        # The cost of an empty queue is set to 0, which discards the rounding errors of many additions.
        self.cost = self.cost - cost if self.size else 0.0

    def _drop_tombstones(self, level: Level[T]) -> None:
        """Remove the tombstones at the head of the level, and then the level if it is empty."""
        requests = level.requests
        while requests and requests[0].state != QUEUED:
            requests.popleft()
            level.dead -= 1
        if self.only is not None:
            return
        if requests:
            self._by_age.put(level, requests[0].number)
            return
        self._by_priority.discard(level)
        self._by_age.discard(level)
        if len(self.levels) > 1:  # the last level stays: most batchers use one priority only
            del self.levels[level.priority]
            self._find_only()
