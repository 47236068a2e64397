"""Types that the core passes to the drivers: batches, decisions, and the outcomes of requests.

This module is pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from batchers.policies.base import Reason

from .group_queue import Request
from .outcomes import Outcome

T = TypeVar("T")
S = TypeVar("S")

Settled: TypeAlias = Iterable[tuple[Request[T], Outcome[S]]]


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
        Service time of the batch in seconds; None while the batch runs, and if it was given up.
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

    __slots__ = ("begun", "interrupted", "items", "requests", "started", "took", "where")

    def __init__(self, requests: list[Request[T]], started: float) -> None:
        """Store requests that have just become RUNNING, and the start time in seconds of the batcher's clock.

        `items` is a new list, which `process_batch` may keep or change.
        """
        self.requests = requests
        self.items: list[T] = [request.item for request in requests]  # type: ignore[misc]  # not None while RUNNING
        self.started = started
        self.interrupted = False  # set by the driver, before it cancels the task of the batch
        self.begun = False  # True as soon as the driver has it, and will report its end
        self.took: list[float] = []  # one element after the end of the batch: its service time in seconds
        self.where: object = None  # set by the driver: identifier of the thread, or the task, that runs the batch


class Run(Generic[T]):
    """Decision: call `process_batch` with this batch."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch[T]) -> None:
        """Store the batch."""
        self.batch = batch


class Expire(Generic[T, S]):
    """Decision: deliver the errors of requests that ended without an answer of `process_batch`.

    They ended for one of these reasons:

    - The deadline has passed.
    - The next batch would probably end after the deadline.
    - The batch was given up after its timeout. Then `batch` is not None, and the driver must interrupt it.
    - Too many batches that were given up still hang.
    """

    __slots__ = ("batch", "settled")

    def __init__(self, settled: Settled[T, S], batch: Batch[T] | None = None) -> None:
        """Store the requests with their errors, and the batch that was given up, if any."""
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
