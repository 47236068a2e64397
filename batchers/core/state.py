"""Pure: the state of one batcher, and how requests move through it. `machine` says which events move them.

Between two events every request is in one place: in the queue of its group, in a batch in flight, in a part of a
batch that was bisected, or settled. While an event moves requests, `inconsistent` is True, and those that have
left one place for another are in `_in_transition`. So an exception that strikes in the middle (out of a signal
handler, for instance) loses no request: `abort` finds all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Generic, Literal, TypeAlias, TypeVar

from batchers.errors import BatcherError
from batchers.options import Options
from batchers.policies.speed_up import SpeedUp
from batchers.stats import BatcherStats

from .accounting import Accounting
from .decisions import Batch, Dispatch
from .group_queue import QUEUED, RUNNING, SETTLED, GroupQueue, Request
from .groups import Groups
from .indexed_heap import IndexedHeap
from .outcomes import Err

T = TypeVar("T")
S = TypeVar("S")

Ended: TypeAlias = list[tuple[Request[T], Err]]
"""Requests that end without a result, each with its error."""


class State(Generic[T, S]):
    """The queues, the slots and the counters of one batcher."""

    __slots__ = (
        *("_queue_limit", "_batch_timeout", "_speed_up", "_bisect", "_rule"),
        *("_groups", "_deadlines", "_bisected", "_in_flight", "_stalled"),
        *("_token", "_in_transition", "inconsistent", "_accounting", "_last_event_time"),
        # For others to read:
        *("closed", "abandoned", "accepted", "queued", "running", "slots"),
    )

    def __init__(self, options: Options) -> None:
        """Start empty, open and idle."""
        self._queue_limit = options.queue_limit
        self._batch_timeout = inf if options.batch_timeout is None else options.batch_timeout
        self.slots = options.slots  # batches that may be in flight now
        self._speed_up = SpeedUp() if options.concurrency == "auto" else None
        self._bisect = options.on_error == "bisect"
        self._rule = options.rule()
        self._token = object()
        self._groups: Groups[T] = Groups(options, self._rule, self._token)
        self._deadlines: IndexedHeap[Request[T]] = IndexedHeap()  # of requests that are not settled
        self._bisected: deque[list[Request[T]]] = deque()
        self._in_flight: dict[Batch[T], None] = {}  # in the order of their starts
        self._stalled: dict[Batch[T], None] = {}  # given up, but still running
        self._accounting = Accounting()
        self._last_event_time = -inf
        self.inconsistent = False  # whether an event was interrupted half-way, by a signal handler that raised
        self._in_transition: list[Request[T]] = []  # taken from one structure, and not yet in the next one
        self.closed = False  # whether all offers are refused
        self.abandoned = False  # whether running batches were given up
        self.accepted: int = 0  # items, ever
        self.queued: int = 0  # items
        self.running: int = 0  # items in running batches whose callers have not left

    @property
    def done(self) -> bool:
        """Whether it is closed and nothing is left to run."""
        return self.closed and self.idle

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not (self.queued or self._in_flight or self._bisected)

    @property
    def in_flight(self) -> int:
        """Batches that run."""
        return len(self._in_flight)

    @property
    def stalled(self) -> int:
        """Batches that were given up and still run."""
        return len(self._stalled)

    @property
    def running_batches(self) -> tuple[list[Batch[T]], list[Batch[T]]]:
        """Batches in flight, and those that were given up and still run."""
        return list(self._in_flight), list(self._stalled)

    def stats(self) -> BatcherStats:
        """Return the counters as they are now."""
        return self._accounting.stats(
            accepted=self.accepted,
            queued=self.queued,
            running=self.running,
            in_flight=len(self._in_flight),
            stalled=len(self._stalled),
            slots=self.slots,
        )

    def dispatches(self) -> list[Dispatch]:
        """Return the last starts of batches, oldest first."""
        return self._accounting.dispatches()

    def abort(self) -> list[Request[T]]:
        """After an error inside: close, and give up every request, whatever state the structures are in."""
        requests = [request for part in self._bisected for request in part] + self._groups.waiting()
        for batch in self._in_flight:
            requests += batch.requests
        # Those that the interrupted event had in its hands may be settled, but nobody was told.
        requests = [*self._in_transition, *(request for request in requests if request.state != SETTLED)]
        requests = list(dict.fromkeys(requests))
        for request in requests:
            request.state = SETTLED
            request.item = None
        accounting = self._accounting
        accounting.stopped = (
            self.accepted - accounting.completed - accounting.failed - accounting.cancelled - accounting.expired
        )
        self.queued = self.running = 0
        self._in_transition = []
        self.closed = self.abandoned = True
        self._bisected.clear()
        self._in_flight.clear()
        self._groups.clear()
        self._deadlines = IndexedHeap()
        self.inconsistent = False
        return requests

    # Requests on their way

    def _take(self, queue: GroupQueue[T], now: float) -> list[Request[T]]:
        self.inconsistent = True
        requests = self._in_transition
        self._groups.take(queue, requests)
        self.queued -= len(requests)
        self.running += len(requests)
        for request in requests:
            request.state = RUNNING
        self._accounting.taken(requests, now)
        return requests

    def _remove(self, request: Request[T]) -> None:
        """Settle a request: take it out of its place and let go of its item. The caller counts it."""
        state, request.state = request.state, SETTLED
        if state == QUEUED:
            self.queued -= 1
            self._groups.remove(request)
        else:
            self.running -= 1
        if request.deadline < inf:
            self._deadlines.discard(request)
        request.item = None

    def _end(
        self,
        requests: list[Request[T]],
        counter: Literal["expired", "failed", "stopped"],
        error: Callable[[Request[T]], BatcherError],
    ) -> Ended[T]:
        """Settle requests without a result, and count them. Each gets an error of its own."""
        self.inconsistent = True
        self._in_transition = requests
        ended = [(request, Err(error(request))) for request in requests]
        for request in requests:
            self._remove(request)
        setattr(self._accounting, counter, getattr(self._accounting, counter) + len(requests))
        self._in_transition = []
        self.inconsistent = False
        return ended

    def _waiting(self) -> list[Request[T]]:
        divided = [request for part in self._bisected for request in part if request.state == RUNNING]
        return divided + self._groups.waiting()
