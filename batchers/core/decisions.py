"""Types that the core passes to the drivers: batches, decisions, and the outcomes of requests.

This module is pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from batchers.policies.base import Reason

from .group_queue import Callers, Request
from .outcomes import Outcome

T = TypeVar("T")
S = TypeVar("S")

Settled: TypeAlias = Sequence[tuple[Request[T], Outcome[S]]]


class Dispatch(NamedTuple):
    """The start of a batch.

    time
        Time of the start, in seconds of the batcher's clock.
    items
        Number of items in the batch.
    reason
        Reason for which the batch was started at this time.
    waited
        Seconds from the arrival of the first item of the batch to the start of the batch.
    left
        Number of items, of all groups, that were still queued after the start.
    in_flight
        Number of batches that ran after the start, including this one.
    seconds
        Service time of the batch in seconds; None while the batch runs, and if it was given up or cancelled.
    """

    time: float
    items: int
    reason: Reason
    waited: float
    left: int
    in_flight: int
    seconds: float | None = None


class Batch(Generic[T]):
    """Requests that run together, with a list of their items from the moment at which the batch was formed."""

    __slots__ = (
        *("items", "requests", "started", "took", "callers", "abandoned"),
        *("begun", "interrupted", "cancelled", "where", "failed"),
    )

    callers: Callers  # only with `cancel_abandoned`

    def __init__(self, requests: list[Request[T]], started: float) -> None:
        """Store requests that have just become RUNNING, and the start time in seconds of the batcher's clock.

        `items` is a new list, which `process_batch` may keep or change.
        """
        self.requests = requests
        if len(requests) == 1:  # in less time than by a comprehension
            self.items: list[Any] = [requests[0].item]
        else:
            self.items = [request.item for request in requests]  # not None while RUNNING
        self.started = started
        self.took: list[float] = []  # one element after the end of the batch: its service time in seconds
        self.abandoned = False  # True after the decision to cancel it, because all of its callers have left
        self.failed = False  # True after its end, if it failed and is not bisected
        self.begun = False  # True as soon as the driver has it, and will report its end
        self.interrupted = False  # set by the driver, before it looks for the task of the batch to cancel it
        self.cancelled = False  # set by the driver, before it cancels that task
        self.where: object = None  # set by the driver: identifier of the thread, or the task, that runs the batch


class Run(Generic[T]):
    """Decision: call `process_batch` with this batch."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch[T]) -> None:
        """Store the batch."""
        self.batch = batch


class Expire(Generic[T, S]):
    """Decision: deliver the errors of requests that ended without an answer of `process_batch`.

    If `batch` is not None, the driver must interrupt it. The reasons are:

    - The deadline has passed.
    - The next batch would probably end after the deadline.
    - The batch `batch` was given up after its timeout.
    - All callers of the batch `batch` have left before (`cancel_abandoned`). Then there is no request.
    - Too many batches that were given up still hang.
    """

    __slots__ = ("batch", "settled")

    def __init__(self, settled: Settled[T, S], batch: Batch[T] | None = None) -> None:
        """Store the requests with their errors, and the batch to interrupt, if any."""
        self.settled = settled
        self.batch = batch


class Wait:
    """Decision: there is nothing to do before the time `until`, unless an event occurs earlier."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        """Store the time, in seconds of the batcher's clock; `inf` if only an event can change the decision."""
        self.until = until


class Done:
    """Decision: the batcher is closed, and nothing is queued or running.

    This state is final.
    """

    __slots__ = ()


Decision: TypeAlias = Run[T] | Expire[T, S] | Wait | Done
