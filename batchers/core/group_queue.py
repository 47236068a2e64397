"""Pure: the waiting items of one group, in the order in which they enter batches.

Higher priorities go first; items of one priority keep the order of their acceptance. A withdrawn item
leaves at once for every count and every order, but its request stays in the deque as a tombstone until
it reaches the front or the tombstones are the majority: each costs O(1) in the long run, wherever in
the queue it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

from .indexed_heap import IndexedHeap

T = TypeVar("T")

QUEUED, RUNNING, SETTLED = range(3)
"""The states of a request, in the order in which it passes through them (it may skip RUNNING)."""


MIN_TOMBSTONES = 16
"""Tombstones that are never worth a new deque."""


class Request(Generic[T]):
    """One accepted call: its item, what the core must know of it, and the future of its caller.

    The core never touches `future` and `loop`; they are for the driver that delivers the outcome.
    """

    __slots__ = (
        *("item", "group", "priority", "cost", "deadline", "future", "loop"),
        *("arrived", "number", "state", "level"),
    )

    item: T | None  # None from its outcome on, so that no request keeps an item alive
    level: Level[T]
    arrived: float
    number: int

    def __init__(  # noqa: PLR0917 - made for every call; keywords cost time
        self,
        item: T,
        group: Hashable = None,
        priority: int = 0,
        cost: float = 0.0,
        deadline: float = inf,
        future: object = None,
        loop: object = None,
    ) -> None:
        """Describe a call that has not been offered yet. `deadline` is a time of the batcher's clock."""
        self.item = item
        self.group = group
        self.priority = priority
        self.cost = cost
        self.deadline = deadline
        self.future = future
        self.loop = loop
        self.state = QUEUED


class Level(Generic[T]):
    """The waiting items of one group and one priority, oldest first. Its first request is never dead."""

    __slots__ = ("dead", "priority", "queue", "requests")

    def __init__(self, queue: GroupQueue[T], priority: int) -> None:
        """Start empty."""
        self.queue = queue
        self.priority = priority
        self.requests: deque[Request[T]] = deque()
        self.dead = 0


class GroupQueue(Generic[T]):
    """The waiting items of one group."""

    __slots__ = (
        *("_by_age", "_by_priority", "_most_cost"),
        *("levels", "cost", "full", "group", "most", "owner", "size"),
    )

    def __init__(self, group: Hashable, owner: object = None, most: float = inf, most_cost: float = inf) -> None:
        """Start empty. `owner` tells the queues of one core from those of another.

        A batch of it has at most `most` items, which cost at most `most_cost` together.
        """
        self.group = group
        self.owner = owner
        self.size = 0
        self.cost = 0.0
        self.full = False  # what `fills` said when it was last ranked
        self.most = most
        self._most_cost = most_cost
        self.levels: dict[int, Level[T]] = {}  # by priority
        self._by_priority: IndexedHeap[Level[T]] = IndexedHeap()
        self._by_age: IndexedHeap[Level[T]] = IndexedHeap()

    def add(self, request: Request[T]) -> bool:
        """Put a request at the end of its level, which is one of this queue.

        Return whether the rank of the queue may have changed.
        """
        level = request.level
        requests = level.requests
        requests.append(request)
        self.size = size = self.size + 1
        self.cost = cost = self.cost + request.cost
        if len(requests) > 1:
            return not self.full and (size >= self.most or cost >= self._most_cost)
        self._by_priority.put(level, -level.priority)
        self._by_age.put(level, request.number)
        return True

    def fills(self) -> bool:
        """Return whether its next batch cannot grow any more."""
        return self.size >= self.most or self.cost >= self._most_cost

    @property
    def full_by_size(self) -> bool:
        """Whether it is the number of its items that fills its next batch, not their cost."""
        return self.size >= self.most

    @property
    def next_size(self) -> int:
        """About how many items its next batch has."""
        size = min(self.size, self.most)
        if self.cost > self._most_cost:
            size = min(size, self.size * self._most_cost / self.cost)
        return max(int(size), 1)

    def new_level(self, priority: int) -> Level[T]:
        """Return a level for items of this priority, for which there is none yet."""
        level = self.levels[priority] = Level(self, priority)
        return level

    def forget_empty(self) -> None:
        """Drop the levels that were made for items which were then refused."""
        self.levels = {priority: level for priority, level in self.levels.items() if level.requests}

    def head(self) -> Request[T]:
        """Return the request that enters the next batch first. The queue must not be empty."""
        return self._by_priority.first().requests[0]

    def oldest(self) -> Request[T]:
        """Return the request that has waited longest. The queue must not be empty."""
        return self._by_age.first().requests[0]

    def take(self, taken: list[Request[T]]) -> None:
        """Move the next batch into an empty list: as many requests as the limits allow.

        It ends before the first request that does not fit; nothing overtakes it. It holds at least one
        request when the queue does, because no single request is above the limit. Each request is in the list
        before it leaves the queue, so that an interruption loses none.
        """
        spent = 0.0
        size = min(self.most, self.size)
        cost = self._most_cost
        while len(taken) < size:
            level = self._by_priority.first()
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
        """Let a request leave whose state is no longer QUEUED."""
        level = request.level
        level.dead += 1
        self._subtract(1, request.cost)
        requests = level.requests
        if level.dead > MIN_TOMBSTONES and level.dead * 2 > len(requests):
            level.requests = deque(waiting for waiting in requests if waiting.state == QUEUED)
            level.dead = 0
        self._drop_tombstones(level)

    def waiting(self) -> list[Request[T]]:
        """Return all requests that wait."""
        return [request for level in self.levels.values() for request in level.requests if request.state == QUEUED]

    def _subtract(self, count: int, cost: float) -> None:
        self.size -= count
        # An empty queue has no cost: the rounding errors of many additions end here.
        self.cost = self.cost - cost if self.size else 0.0

    def _drop_tombstones(self, level: Level[T]) -> None:
        """Bring a living request to the front of the level, or retire the level."""
        requests = level.requests
        while requests and requests[0].state != QUEUED:
            requests.popleft()
            level.dead -= 1
        if requests:
            self._by_age.put(level, requests[0].number)
            return
        self._by_priority.discard(level)
        self._by_age.discard(level)
        if len(self.levels) > 1:  # the last one stays: most batchers use one priority only
            del self.levels[level.priority]
