"""Pure: the waiting items by group, and which group goes next.

The one whose head has the highest priority, and among equals the longest wait, if the policy lets it go; else a
full one; else the one with the oldest item, if its time has come. So a full batch never waits while a slot is
free, and no group can be held longer than the policy says for its oldest item.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import inf
from typing import Generic, TypeVar

from .lanes import Lane, Ticket
from .options import Options
from .order import Order
from .policy import Rule

T = TypeVar("T")

SHORTEST_HOLD = 1e-6
"""Seconds: what ends so soon has ended. Two clocks, or two roundings of one time, may differ: no end of asking."""


CHANGE = 20
"""A limit follows what changes it by more than this part."""


class Groups(Generic[T]):
    """A lane for each group that has waiting items, and their order."""

    __slots__ = ("_by_age", "_by_rank", "_full", "_hold", "_lanes", "_limits", "_owner")

    def __init__(self, options: Options, rule: Rule, owner: object) -> None:
        """Start empty. The lanes belong to `owner`."""
        most_cost = inf if options.max_batch_cost is None else options.max_batch_cost
        self._limits = (options.batch_limit, most_cost)
        self._hold = rule.hold
        self._owner = owner
        self._lanes: dict[Hashable, Lane[T]] = {}
        self._by_rank: Order[Lane[T]] = Order()  # key: (-priority, number) of the head
        self._by_age: Order[Lane[T]] = Order()  # key: number of the oldest
        self._full: Order[Lane[T]] = Order()  # the full ones only; key as for _by_rank

    # Items

    def admit(self, tickets: Sequence[Ticket[T]]) -> None:
        """Give each ticket its bucket, or change nothing and raise what groups raise when they are compared."""
        lanes = self._lanes
        try:
            for ticket in tickets:
                lane = lanes.get(ticket.group) or self._new_lane(ticket.group)
                ticket.bucket = lane.buckets.get(ticket.priority) or lane.new_bucket(ticket.priority)
        except BaseException:
            self._forget(tickets)
            raise

    def remove(self, ticket: Ticket[T]) -> None:
        """Let a ticket leave whose state is no longer QUEUED."""
        lane = ticket.bucket.lane
        lane.remove(ticket)
        self.rank(lane)

    def take(self, lane: Lane[T], taken: list[Ticket[T]]) -> None:
        """Move the next batch of a lane into an empty list."""
        lane.take(taken)
        self.rank(lane)

    def limit(self, most: int) -> None:
        """Let batches have so many items at most from now on; changes of a few per cent are not worth the work."""
        if abs(most - self._limits[0]) * CHANGE > self._limits[0]:
            self._limits = (most, self._limits[1])
            for lane in list(self._lanes.values()):
                lane.most = most
                if lane.size:
                    self.rank(lane)

    def clear(self) -> None:
        """Forget all, whatever state it is in."""
        self._lanes.clear()
        self._by_rank, self._by_age, self._full = Order(), Order(), Order()

    def waiting(self) -> list[Ticket[T]]:
        """Return all tickets that wait."""
        return [ticket for lane in self._lanes.values() for ticket in lane.waiting()]

    # Which one goes. Something must wait; `at_once`: nothing is held any more. The rule of the policy wants to
    # know how many items wait altogether, how many have ever been accepted, and the earliest deadline.

    def next_to_go(
        self, now: float, queued: int, accepted: int, deadline: float, *, at_once: bool
    ) -> Lane[T] | None:
        """Return the lane whose batch goes now, if one does."""
        lane = self._by_rank.first()
        if at_once or lane.full or self._goes_at(lane, now, queued, accepted, deadline) <= now:
            return lane
        if self._full.keys:
            return self._full.first()
        oldest = self._by_age.first()
        if oldest is not lane and self._goes_at(oldest, now, queued, accepted, deadline) <= now:
            return oldest
        return None

    def held_until(self, now: float, queued: int, accepted: int, deadline: float, *, at_once: bool) -> float:
        """Return the time at which a batch goes; up to `now`: now."""
        if at_once or self._full.keys:
            return -inf
        return self._goes_at(self._by_age.first(), now, queued, accepted, deadline)  # no other lane goes earlier

    def _goes_at(self, lane: Lane[T], now: float, queued: int, accepted: int, deadline: float) -> float:
        until = self._hold(lane.size, queued - lane.size, lane.oldest().arrived, deadline, accepted, now)
        return until if until > now + SHORTEST_HOLD else -inf

    def rank(self, lane: Lane[T]) -> None:
        """Bring a lane to its place in the orders, after its head, its oldest or its size has changed."""
        lane.full = lane.fills()
        if not lane.size:
            self._by_rank.discard(lane)
            self._by_age.discard(lane)
            self._full.discard(lane)
            self._drop(lane)
            return
        head = lane.head()
        key = (-head.priority, head.number)
        self._by_rank.put(lane, key)
        self._by_age.put(lane, lane.oldest().number)
        if lane.full:
            self._full.put(lane, key)
        else:
            self._full.discard(lane)

    # Lanes

    def _new_lane(self, group: Hashable) -> Lane[T]:
        lane = self._lanes[group] = Lane(group, self._owner, *self._limits)
        return lane

    def _drop(self, lane: Lane[T]) -> None:
        """Forget an empty lane, but not the last one: most batchers have one group only."""
        if len(self._lanes) > 1:
            self._lanes.pop(lane.group, None)  # not there if its hash has changed

    def _forget(self, tickets: Sequence[Ticket[T]]) -> None:
        """Forget what was made for tickets that were not accepted."""
        for ticket in tickets:
            if not hasattr(ticket, "bucket"):
                return
            lane = ticket.bucket.lane
            lane.forget_empty()
            if not lane.size:
                self._drop(lane)
            del ticket.bucket
