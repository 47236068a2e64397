"""Pure: the waiting items by group, and which group goes next.

The one whose head has the highest priority, and among equals the longest wait, if the policy lets it go; else a
full one; else the one with the oldest item, if its time has come. So a full batch never waits while a slot is
free, and no group can be held longer than the policy says for its oldest item.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import inf
from typing import Generic, TypeVar

from batchers.options import Options
from batchers.policies.base import Rule

from .group_queue import GroupQueue, Request
from .indexed_heap import IndexedHeap

T = TypeVar("T")

SHORTEST_HOLD = 1e-6
"""Seconds: what ends so soon has ended. Two clocks, or two roundings of one time, may differ: no end of asking."""


CHANGE = 20
"""A limit follows what changes it by more than this part."""


class Groups(Generic[T]):
    """A queue for each group that has waiting items, and their order."""

    __slots__ = ("_by_age", "_by_rank", "_full", "_hold", "_limits", "_owner", "_queues")

    def __init__(self, options: Options, rule: Rule, owner: object) -> None:
        """Start empty. The queues belong to `owner`."""
        most_cost = inf if options.max_batch_cost is None else options.max_batch_cost
        self._limits = (options.batch_limit, most_cost)
        self._hold = rule.hold
        self._owner = owner
        self._queues: dict[Hashable, GroupQueue[T]] = {}
        self._by_rank: IndexedHeap[GroupQueue[T]] = IndexedHeap()  # key: (-priority, number) of the head
        self._by_age: IndexedHeap[GroupQueue[T]] = IndexedHeap()  # key: number of the oldest
        self._full: IndexedHeap[GroupQueue[T]] = IndexedHeap()  # the full ones only; key as for _by_rank

    # Items

    def admit(self, requests: Sequence[Request[T]]) -> None:
        """Give each request its level, or change nothing and raise what groups raise when they are compared."""
        queues = self._queues
        try:
            for request in requests:
                queue = queues.get(request.group) or self._new_queue(request.group)
                request.level = queue.levels.get(request.priority) or queue.new_level(request.priority)
        except BaseException:
            self._forget(requests)
            raise

    def remove(self, request: Request[T]) -> None:
        """Let a request leave whose state is no longer QUEUED."""
        queue = request.level.queue
        queue.remove(request)
        self.rank(queue)

    def take(self, queue: GroupQueue[T], taken: list[Request[T]]) -> None:
        """Move the next batch of a queue into an empty list."""
        queue.take(taken)
        self.rank(queue)

    def limit(self, most: int) -> None:
        """Let batches have so many items at most from now on; changes of a few per cent are not worth the work."""
        if abs(most - self._limits[0]) * CHANGE > self._limits[0]:
            self._limits = (most, self._limits[1])
            for queue in list(self._queues.values()):
                queue.most = most
                if queue.size:
                    self.rank(queue)

    def clear(self) -> None:
        """Forget all, whatever state it is in."""
        self._queues.clear()
        self._by_rank, self._by_age, self._full = IndexedHeap(), IndexedHeap(), IndexedHeap()

    def waiting(self) -> list[Request[T]]:
        """Return all requests that wait."""
        return [request for queue in self._queues.values() for request in queue.waiting()]

    # Which one goes. Something must wait; `at_once`: nothing is held any more. The rule of the policy wants to
    # know how many items wait altogether, how many have ever been accepted, and the earliest deadline.

    def select(
        self, now: float, queued: int, accepted: int, deadline: float, *, at_once: bool
    ) -> GroupQueue[T] | None:
        """Return the queue whose batch goes now, if one does."""
        queue = self._by_rank.first()
        if at_once or queue.full or self._hold_end(queue, now, queued, accepted, deadline) <= now:
            return queue
        if self._full.keys:
            return self._full.first()
        oldest = self._by_age.first()
        if oldest is not queue and self._hold_end(oldest, now, queued, accepted, deadline) <= now:
            return oldest
        return None

    def held_until(self, now: float, queued: int, accepted: int, deadline: float, *, at_once: bool) -> float:
        """Return the time at which a batch goes; up to `now`: now."""
        if at_once or self._full.keys:
            return -inf
        return self._hold_end(self._by_age.first(), now, queued, accepted, deadline)  # no other queue goes earlier

    def _hold_end(self, queue: GroupQueue[T], now: float, queued: int, accepted: int, deadline: float) -> float:
        until = self._hold(queue.size, queued - queue.size, queue.oldest().arrived, deadline, accepted, now)
        return until if until > now + SHORTEST_HOLD else -inf

    def rank(self, queue: GroupQueue[T]) -> None:
        """Bring a queue to its place in the orders, after its head, its oldest or its size has changed."""
        queue.full = queue.fills()
        if not queue.size:
            self._by_rank.discard(queue)
            self._by_age.discard(queue)
            self._full.discard(queue)
            self._drop(queue)
            return
        head = queue.head()
        key = (-head.priority, head.number)
        self._by_rank.put(queue, key)
        self._by_age.put(queue, queue.oldest().number)
        if queue.full:
            self._full.put(queue, key)
        else:
            self._full.discard(queue)

    # Queues

    def _new_queue(self, group: Hashable) -> GroupQueue[T]:
        queue = self._queues[group] = GroupQueue(group, self._owner, *self._limits)
        return queue

    def _drop(self, queue: GroupQueue[T]) -> None:
        """Forget an empty queue, but not the last one: most batchers have one group only."""
        if len(self._queues) > 1:
            self._queues.pop(queue.group, None)  # not there if its hash has changed

    def _forget(self, requests: Sequence[Request[T]]) -> None:
        """Forget what was made for requests that were not accepted."""
        for request in requests:
            if not hasattr(request, "level"):
                return
            queue = request.level.queue
            queue.forget_empty()
            if not queue.size:
                self._drop(queue)
            del request.level
