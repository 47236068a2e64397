"""Pure: what the core hands to the drivers: batches, decisions, and who gets which outcome."""

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
    """The start of a batch, as it was decided."""

    time: float
    """Seconds of the batcher's clock."""

    items: int
    """In the batch."""

    reason: Reason
    """Why it went."""

    waited: float
    """Seconds that its first item had waited."""

    left: int
    """Items that still waited afterwards, of all groups."""

    in_flight: int
    """Batches that ran then, this one too."""

    seconds: float | None = None
    """That the batch took; None: it runs still, or was given up."""


class Batch(Generic[T]):
    """Requests that run together, and their items as they were when the batch was formed."""

    __slots__ = ("items", "requests", "started", "took", "where")

    def __init__(self, requests: list[Request[T]], started: float) -> None:
        """Group requests that have just become RUNNING. `items` is for `process_batch`, to keep or change."""
        self.requests = requests
        self.items: list[T] = [request.item for request in requests]  # type: ignore[misc]  # RUNNING: it has one
        self.started = started
        self.took: list[float] = []  # its seconds, when it has ended
        self.where: object = None  # the driver's: in which thread or task it runs


class Run(Generic[T]):
    """Decision: call `process_batch` with this batch."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch[T]) -> None:
        """Name the batch."""
        self.batch = batch


class Expire(Generic[T, S]):
    """Decision: deliver these outcomes; their time is over. With a batch: it is given up, so interrupt it."""

    __slots__ = ("batch", "settled")

    def __init__(self, settled: Settled[T, S], batch: Batch[T] | None = None) -> None:
        """Name the requests and their errors."""
        self.settled = settled
        self.batch = batch


class Wait:
    """Decision: nothing to do before `until`, unless an event comes first."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        """Name the time; `inf` when only an event can change anything."""
        self.until = until


class Done:
    """Decision: closed, empty, and it stays so."""

    __slots__ = ()


Decision: TypeAlias = Run[T] | Expire[T, S] | Wait | Done
