"""State of one batcher, and the transitions of its requests.

The module `machine` defines the events that cause the transitions. This module is pure.

Between two events, every accepted request is in exactly one of these places:

- in the queue of its group;
- in a batch in flight;
- in a part of a batch that was bisected;
- in none of them, because it is settled.

While an event moves requests, `inconsistent` is True, and `_in_transition` contains the requests that are between
two places. Therefore an exception in the middle of an event (for instance from a signal handler) loses no request:
`repair` finds all of them, and so does `abort`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Generic, Literal, NoReturn, TypeAlias, TypeVar

from batchers.errors import BatcherError
from batchers.options import Options
from batchers.policies.lengths import LengthModel
from batchers.policies.speed_up import SpeedUp
from batchers.stats import BatcherStats

from .accounting import Accounting
from .decisions import Batch, Dispatch, Settled
from .group_queue import QUEUED, RUNNING, SETTLED, Callers, GroupQueue, Request
from .groups import Groups
from .indexed_heap import IndexedHeap
from .outcomes import Err, Failed
from .refusals import STALLED_LIMIT, refusal

T = TypeVar("T")
S = TypeVar("S")

Ended: TypeAlias = list[tuple[Request[T], Err]]
"""Requests that ended without a result, each with its error."""

Counter: TypeAlias = Literal["cancelled", "expired", "failed", "stopped"]
"""Counters of `Accounting` for requests that ended without a result."""


class State(Generic[T, S]):
    """Queues, slots and counters of one batcher."""

    __slots__ = (
        *("_batch_timeout", "_speed_up", "_bisect", "_cancel_abandoned", "_rule"),
        *("_model", "_observes"),
        *("_groups", "_deadlines", "_bisected", "_in_flight", "_stalled", "_deserted"),
        *("_token", "_in_transition", "_counter", "_unlearned", "_accounting", "_last_event_time"),
        # The driver reads these:
        *("inconsistent", "ended", "failure", "closed", "abandoned", "accepted", "queued", "running", "slots"),
        *("options", "queue_limit"),
    )

    def __init__(self, options: Options) -> None:
        """Initialise the state of an open batcher without items."""
        self._adopt(options)
        self._speed_up = SpeedUp() if options.concurrency == "auto" else None
        self._bisect = options.on_error == "bisect"
        self._cancel_abandoned = options.cancel_abandoned
        self._rule = options.rule()
        self._token = object()
        self._model = LengthModel() if options.length is not None else None
        self._observes = self._rule.learns or self._speed_up is not None or self._model is not None
        self._groups: Groups[T] = Groups(options, self._rule, self._token, self._model)
        self._deadlines: IndexedHeap[Request[T]] = IndexedHeap()  # only of requests that are not settled
        self._bisected: deque[list[Request[T]]] = deque()
        self._in_flight: dict[Batch[T], None] = {}  # in the order of their start times
        self._stalled: dict[Batch[T], None] = {}  # given up, but still running
        self._deserted: dict[Batch[T], None] = {}  # batches in flight whose callers have all left; to be cancelled
        self._accounting = Accounting()
        self._last_event_time = -inf
        self.inconsistent = False  # stays True if a signal handler raised an exception during an event
        self.failure: str | None = None  # the cause, after `abort`
        self._in_transition: list[Request[T]] = []  # requests between two structures
        # The outcomes of the last event, until the next decision. The driver may clear it as soon as it has them.
        self.ended: Settled[T, S] = ()
        self._counter: Counter = "cancelled"  # for requests that an interrupted event has settled, but not counted
        self._unlearned: set[Batch[T]] = set()  # batches in flight that the rule does not know
        self.closed = False  # True if all offers are refused
        self.abandoned = False  # True after `abandon` or `abort`, which give up the running batches
        self.accepted: int = 0  # number of items since the start
        self.queued: int = 0  # number of items
        self.running: int = 0  # number of items in running batches, without cancelled items

    def _adopt(self, options: Options) -> None:
        """Take over the limits of these options."""
        self.options = options
        self.queue_limit = options.queue_limit
        self._batch_timeout = inf if options.batch_timeout is None else options.batch_timeout
        self.slots = options.slots  # number of batches that may be in flight now

    @property
    def done(self) -> bool:
        """True if the batcher is closed and nothing is queued or running."""
        return self.closed and self.idle

    @property
    def idle(self) -> bool:
        """True if nothing is queued or running."""
        return not (self.queued or self._in_flight or self._bisected)

    @property
    def in_flight(self) -> int:
        """Number of running batches, without those that were given up."""
        return len(self._in_flight)

    @property
    def stalled(self) -> int:
        """Number of batches that were given up and still run."""
        return len(self._stalled)

    @property
    def failed_batches(self) -> int:
        """Number of batches that failed and were not divided further."""
        return self._accounting.failed_batches

    @property
    def running_batches(self) -> tuple[list[Batch[T]], list[Batch[T]]]:
        """The batches in flight, and the batches that were given up and still run."""
        return list(self._in_flight), list(self._stalled)

    def stats(self) -> BatcherStats:
        """Return a snapshot of the counters."""
        return self._accounting.stats(
            accepted=self.accepted,
            queued=self.queued,
            running=self.running,
            in_flight=len(self._in_flight),
            stalled=len(self._stalled),
            slots=self.slots,
        )

    def dispatches(self) -> list[Dispatch]:
        """Return the most recent starts of batches, oldest first."""
        return self._accounting.dispatches()

    # Transitions of requests

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
        """Settle a request, and remove it from its place; the caller updates the counter of its outcome."""
        state, request.state = request.state, SETTLED
        if state == QUEUED:
            self.queued -= 1
            self._groups.remove(request)
        else:
            self.running -= 1
            if self._cancel_abandoned:
                self._left(request)
        if request.deadline < inf:
            self._deadlines.discard(request)

    def _count_callers(self, batch: Batch[T]) -> None:
        """Count the callers that wait for a batch, so that it can be cancelled when the last one leaves."""
        batch.callers = Callers(sum(request.state == RUNNING for request in batch.requests))
        for request in batch.requests:
            request.callers = batch.callers

    def _left(self, request: Request[T]) -> None:
        """Count a caller of a running batch that has left, and find the batch if the caller was the last one."""
        callers = request.callers
        callers.left -= 1
        if not callers.left:
            self._deserted |= {batch: None for batch in self._in_flight if batch.callers is callers}

    def _end(
        self,
        requests: list[Request[T]],
        counter: Counter,
        error: Callable[[Request[T]], BatcherError],
    ) -> Ended[T]:
        """Settle requests without a result, and add their number to `counter`.

        `error` is called once for each request, so that each request gets its own error.
        """
        self.inconsistent = True
        self._in_transition = requests
        ended = [(request, Err(error(request))) for request in requests]
        self._counter = counter
        self.ended = ended  # from here on they are settled, whatever happens
        for request in requests:
            self._remove(request)
        setattr(self._accounting, counter, getattr(self._accounting, counter) + len(requests))
        self._counter = "cancelled"
        self._in_transition = []
        self.inconsistent = False
        return ended

    def _halve(self, batch: Batch[T], verdict: Failed) -> bool:
        """Bisect a failed batch; return False if it cannot be divided."""
        divisible = self._bisect and verdict.divisible and len(batch.requests) > 1
        if divisible:
            middle = len(batch.requests) // 2
            self._bisected += (batch.requests[:middle], batch.requests[middle:])
        return divisible

    def _next_bisected(self) -> list[Request[T]]:
        while self._bisected:
            part = [request for request in self._bisected[0] if request.state == RUNNING]
            if part:
                self.inconsistent = True
                self._in_transition = part
            self._bisected.popleft()
            if part:
                return part
        return []

    def _waiting(self) -> list[Request[T]]:
        divided = [request for part in self._bisected for request in part if request.state == RUNNING]
        return divided + self._groups.waiting()

    def check_room(self, count: int) -> None:
        """Raise the error for `count` items if they would be refused now, whatever they are."""
        if self.closed or self.queued + count > self.queue_limit or len(self._stalled) >= STALLED_LIMIT:
            self._refuse(count)

    def _refuse(self, count: int) -> NoReturn:
        self._accounting.rejected += count
        raise refusal(
            count,
            failure=self.failure,
            closed=self.closed,
            stalled=len(self._stalled),
            queued=self.queued,
            limit=self.queue_limit,
            seconds=self._accounting.drain.seconds_for(self.queued + self.running),
        )
