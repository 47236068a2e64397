"""Pure: what the core hands to the drivers: batches, decisions, and who gets which outcome."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from .lanes import Ticket
from .outcomes import Outcome
from .policy import Reason

T = TypeVar("T")
S = TypeVar("S")

Settled: TypeAlias = Iterable[tuple[Ticket[T], Outcome[S]]]


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
    """Tickets that run together, and their items as they were when the batch was formed."""

    __slots__ = ("items", "started", "tickets", "took", "where")

    def __init__(self, tickets: list[Ticket[T]], started: float) -> None:
        """Group tickets that have just become RUNNING. `items` is for `process_batch`, to keep or change."""
        self.tickets = tickets
        self.items: list[T] = [ticket.item for ticket in tickets]  # type: ignore[misc]  # RUNNING: it has one
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
        """Name the tickets and their errors."""
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
