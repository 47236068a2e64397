"""Waiting requests by group, and the selection of the group that is dispatched next.

The first of these groups that exists is dispatched:

1. The group whose head has the highest priority, and among equal priorities the longest wait, if its batch is full
   or the policy does not hold it.
2. The first group with a full batch, in the same order.
3. The group with the oldest item, if the policy does not hold it any longer.

Therefore a full batch never waits while a slot is free, and no group is held longer than the policy allows for its
oldest item.

This module is pure.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import inf
from typing import Generic, TypeVar

from batchers.options import Options
from batchers.policies.base import Rule
from batchers.policies.lengths import LengthModel

from .group_queue import GroupQueue, Request
from .indexed_heap import IndexedHeap
from .length_queue import LengthQueue

T = TypeVar("T")

SHORTEST_HOLD = 1e-6
"""Seconds: a hold that ends within this time counts as ended.

Two clocks, or two roundings of one time, may differ by so little. Without the tolerance, the driver might ask the
core again and again.
"""


CHANGE = 20
"""A new limit of items takes effect only if it differs from the current one by more than 1 / CHANGE of it."""


class Groups(Generic[T]):
    """The queues of all groups that have waiting items, and the order of these queues."""

    __slots__ = (
        *("_by_age", "_by_rank", "_full", "_hold", "_limits", "_model", "_only", "_owner", "queues"),
        "_sizes",
        "changing",
    )

    def __init__(self, options: Options, rule: Rule, owner: object, model: LengthModel | None = None) -> None:
        """Initialise without queues.

        `owner` is the token of the core to which all queues belong. `model` is that of the lengths, if items have
        lengths.
        """
        most_cost = inf if options.max_batch_cost is None else options.max_batch_cost
        self._limits = (options.batch_limit, most_cost)
        self._hold = rule.hold
        self._sizes = options.batch_sizes or ()
        self._owner = owner
        self._model = model
        self.changing = False  # stays True if an exception struck while a queue or level was added
        self.queues: dict[Hashable, GroupQueue[T]] = {}
        self._only: GroupQueue[T] | None = None  # the queue, while there is one; then the heaps are not up to date
        self._by_rank: IndexedHeap[GroupQueue[T]] = IndexedHeap()  # key: (-priority, number) of the head request
        self._by_age: IndexedHeap[GroupQueue[T]] = IndexedHeap()  # key: number of the oldest request
        self._full: IndexedHeap[GroupQueue[T]] = IndexedHeap()  # full queues only; key as in _by_rank

    # Items

    def admit(self, requests: Sequence[Request[T]]) -> None:
        """Assign a level to each request.

        If the comparison of groups raises an exception, change nothing and raise that exception.
        """
        try:
            for request in requests:
                self.admit_one(request)
        except BaseException:
            if not self.changing:
                self._forget(requests)
            raise

    def admit_one(self, request: Request[T]) -> None:
        """Do what `admit` does, for one request."""
        queue = self.queues.get(request.group) or self._new_queue(request.group)
        level = queue.levels.get(request.priority)
        if level is None:
            self.changing = True
            level = queue.new_level(request.priority)
            self.changing = False
        request.level = level

    def remove(self, request: Request[T]) -> None:
        """Remove a request from its queue; its state must already differ from QUEUED."""
        queue = request.level.queue
        queue.remove(request)
        self.rank(queue)

    def take(self, queue: GroupQueue[T], taken: list[Request[T]]) -> None:
        """Move the requests of the next batch of `queue` into `taken`, which must be an empty list."""
        queue.take(taken)
        self.rank(queue)

    def limit(self, most: int) -> None:
        """Limit future batches to `most` items.

        Changes of a few per cent (up to 1 / CHANGE) are ignored, because they are not worth the work: each change
        ranks all queues again.
        """
        if abs(most - self._limits[0]) * CHANGE > self._limits[0]:
            self._limits = (most, self._limits[1])
            for queue in list(self.queues.values()):
                queue.most = most
                if queue.size:
                    self.rank(queue)

    def clear(self) -> None:
        """Drop all queues and their order, even if they are inconsistent."""
        self.queues.clear()
        self._only = None
        self._by_rank, self._by_age, self._full = IndexedHeap(), IndexedHeap(), IndexedHeap()

    def waiting(self) -> list[Request[T]]:
        """Return all waiting requests of all groups."""
        return [request for queue in self.queues.values() for request in queue.waiting()]

    # Selection. At least one item must be waiting. `at_once` means that no batch is held any more. The other
    # arguments are for the rule of the policy: `queued` is the number of waiting items of all groups, `accepted`
    # is the number of items that were ever accepted, and `deadline` is the earliest deadline.

    def select(
        self, now: float, queued: int, accepted: int, deadline: float, *, at_once: bool
    ) -> GroupQueue[T] | None:
        """Return the queue whose batch is dispatched now, or None if all batches are held."""
        queue = self._only or self._by_rank.first()
        if at_once or queue.full or self._hold_end(queue, now, queued, accepted, deadline) <= now:
            return queue
        if self._only is not None:
            return None
        if self._full.keys:
            return self._full.first()
        oldest = self._by_age.first()
        if oldest is not queue and self._hold_end(oldest, now, queued, accepted, deadline) <= now:
            return oldest
        return None

    def held_until(self, now: float, queued: int, accepted: int, deadline: float, *, at_once: bool) -> float:
        """Return the time at which the next batch is dispatched; a time up to `now` means at once."""
        if self._only is not None:
            queue = self._only
            return -inf if at_once or queue.full else self._hold_end(queue, now, queued, accepted, deadline)
        if at_once or self._full.keys:
            return -inf
        return self._hold_end(self._by_age.first(), now, queued, accepted, deadline)  # no other is due earlier

    def _hold_end(self, queue: GroupQueue[T], now: float, queued: int, accepted: int, deadline: float) -> float:
        until = self._hold(queue.size, queued - queue.size, queue.oldest().arrived, deadline, accepted, now)
        return until if until > now + SHORTEST_HOLD else -inf

    def rank(self, queue: GroupQueue[T]) -> None:
        """Update the position of a queue in all orders after a change of its head, oldest request or size."""
        queue.full = queue.fills()
        if self._only is not None:
            return
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
        queue: GroupQueue[T]
        if self._model is None:
            queue = GroupQueue(group, self._owner, *self._limits)
        else:
            queue = LengthQueue(group, self._owner, *self._limits, self._model)
        queue.sizes = self._sizes
        self.queues[group] = queue
        self.changing = True
        if self._only is None and len(self.queues) == 1:
            self._only = queue
        elif self._only is not None:
            only, self._only = self._only, None
            if only.size:
                self.rank(only)
            else:  # it stays, because a request of this event may belong to it
                self._by_rank.discard(only)
                self._by_age.discard(only)
                self._full.discard(only)
        self.changing = False
        return queue

    def _drop(self, queue: GroupQueue[T]) -> None:
        """Drop an empty queue, but keep the last one: most batchers have one group only and reuse its queue."""
        if len(self.queues) > 1:
            self.queues.pop(queue.group, None)  # the key is missing if the hash of the group has changed
            if len(self.queues) == 1:
                self._only = next(iter(self.queues.values()))

    def _forget(self, requests: Sequence[Request[T]]) -> None:
        """Drop the queues and levels that were created for requests which were then not accepted."""
        for request in requests:
            if not hasattr(request, "level"):
                return
            queue = request.level.queue
            queue.forget_empty()
            if not queue.size:
                self._drop(queue)
            del request.level
