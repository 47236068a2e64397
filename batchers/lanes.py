"""Pure: the waiting items of one group, in the order in which they enter batches.

Higher priorities go first; items of one priority keep the order of their acceptance. A withdrawn item
leaves at once for every count and every order, but its ticket stays in the deque as a tombstone until
it reaches the front or the tombstones are the majority: each costs O(1) in the long run, wherever in
the queue it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

from .order import Order

T = TypeVar("T")

QUEUED, RUNNING, SETTLED = range(3)
"""The states of a ticket, in the order in which it passes through them (it may skip RUNNING)."""


FEW = 16
"""Tombstones that are never worth a new deque."""


class Ticket(Generic[T]):
    """One accepted call: its item, what the core must know of it, and the future of its caller.

    The core never touches `future` and `loop`; they are for the driver that delivers the outcome.
    """

    __slots__ = (
        *("item", "group", "priority", "cost", "deadline", "future", "loop"),
        *("arrived", "number", "state", "bucket"),
    )

    item: T | None  # None from its outcome on, so that no ticket keeps an item alive
    bucket: Bucket[T]
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


class Bucket(Generic[T]):
    """The waiting items of one group and one priority, oldest first. Its first ticket is never dead."""

    __slots__ = ("dead", "lane", "priority", "tickets")

    def __init__(self, lane: Lane[T], priority: int) -> None:
        """Start empty."""
        self.lane = lane
        self.priority = priority
        self.tickets: deque[Ticket[T]] = deque()
        self.dead = 0


class Lane(Generic[T]):
    """The waiting items of one group."""

    __slots__ = (
        *("_by_age", "_by_priority", "_most_cost"),
        *("buckets", "cost", "full", "group", "most", "owner", "size"),
    )

    def __init__(self, group: Hashable, owner: object = None, most: float = inf, most_cost: float = inf) -> None:
        """Start empty. `owner` tells the lanes of one core from those of another.

        A batch of it has at most `most` items, which cost at most `most_cost` together.
        """
        self.group = group
        self.owner = owner
        self.size = 0
        self.cost = 0.0
        self.full = False  # what `fills` said when it was last ranked
        self.most = most
        self._most_cost = most_cost
        self.buckets: dict[int, Bucket[T]] = {}  # by priority
        self._by_priority: Order[Bucket[T]] = Order()
        self._by_age: Order[Bucket[T]] = Order()

    def add(self, ticket: Ticket[T]) -> bool:
        """Put a ticket at the end of its bucket, which is one of this lane.

        Return whether the rank of the lane may have changed.
        """
        bucket = ticket.bucket
        tickets = bucket.tickets
        tickets.append(ticket)
        self.size = size = self.size + 1
        self.cost = cost = self.cost + ticket.cost
        if len(tickets) > 1:
            return not self.full and (size >= self.most or cost >= self._most_cost)
        self._by_priority.put(bucket, -bucket.priority)
        self._by_age.put(bucket, ticket.number)
        return True

    def fills(self) -> bool:
        """Return whether its next batch cannot grow any more."""
        return self.size >= self.most or self.cost >= self._most_cost

    @property
    def has_most(self) -> bool:
        """Whether it is the number of its items that fills its next batch, not their cost."""
        return self.size >= self.most

    @property
    def next_size(self) -> int:
        """About how many items its next batch has."""
        size = min(self.size, self.most)
        if self.cost > self._most_cost:
            size = min(size, self.size * self._most_cost / self.cost)
        return max(int(size), 1)

    def new_bucket(self, priority: int) -> Bucket[T]:
        """Return a bucket for items of this priority, for which there is none yet."""
        bucket = self.buckets[priority] = Bucket(self, priority)
        return bucket

    def forget_empty(self) -> None:
        """Drop the buckets that were made for items which were then refused."""
        self.buckets = {priority: bucket for priority, bucket in self.buckets.items() if bucket.tickets}

    def head(self) -> Ticket[T]:
        """Return the ticket that enters the next batch first. The lane must not be empty."""
        return self._by_priority.first().tickets[0]

    def oldest(self) -> Ticket[T]:
        """Return the ticket that has waited longest. The lane must not be empty."""
        return self._by_age.first().tickets[0]

    def take(self, taken: list[Ticket[T]]) -> None:
        """Move the next batch into an empty list: as many tickets as the limits allow.

        It ends before the first ticket that does not fit; nothing overtakes it. It holds at least one
        ticket when the lane does, because no single ticket is above the limit. Each ticket is in the list
        before it leaves the lane, so that an interruption loses none.
        """
        spent = 0.0
        size = min(self.most, self.size)
        cost = self._most_cost
        while len(taken) < size:
            bucket = self._by_priority.first()
            tickets = bucket.tickets
            while tickets and len(taken) < size:
                ticket = tickets[0]
                if ticket.state == QUEUED:
                    if spent + ticket.cost > cost:
                        self._tidy(bucket)
                        self._subtract(len(taken), spent)
                        return
                    spent += ticket.cost
                    taken.append(ticket)
                else:
                    bucket.dead -= 1
                tickets.popleft()
            self._tidy(bucket)
        self._subtract(len(taken), spent)

    def remove(self, ticket: Ticket[T]) -> None:
        """Let a ticket leave whose state is no longer QUEUED."""
        bucket = ticket.bucket
        bucket.dead += 1
        self._subtract(1, ticket.cost)
        tickets = bucket.tickets
        if bucket.dead > FEW and bucket.dead * 2 > len(tickets):
            bucket.tickets = deque(waiting for waiting in tickets if waiting.state == QUEUED)
            bucket.dead = 0
        self._tidy(bucket)

    def waiting(self) -> list[Ticket[T]]:
        """Return all tickets that wait."""
        return [ticket for bucket in self.buckets.values() for ticket in bucket.tickets if ticket.state == QUEUED]

    def _subtract(self, count: int, cost: float) -> None:
        self.size -= count
        # An empty lane has no cost: the rounding errors of many additions end here.
        self.cost = self.cost - cost if self.size else 0.0

    def _tidy(self, bucket: Bucket[T]) -> None:
        """Bring a living ticket to the front of the bucket, or retire the bucket."""
        tickets = bucket.tickets
        while tickets and tickets[0].state != QUEUED:
            tickets.popleft()
            bucket.dead -= 1
        if tickets:
            self._by_age.put(bucket, tickets[0].number)
            return
        self._by_priority.discard(bucket)
        self._by_age.discard(bucket)
        if len(self.buckets) > 1:  # the last one stays: most batchers use one priority only
            del self.buckets[bucket.priority]
