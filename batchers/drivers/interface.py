"""What a batcher needs of its driver, whichever it has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from batchers.core.decisions import Dispatch
from batchers.core.group_queue import Request
from batchers.options import Changes
from batchers.rows import Rows
from batchers.stats import BatcherStats

from .futures import SharedFuture
from .loops import Loop
from .requests import RequestFactory
from .threads import DaemonThread

T = TypeVar("T")
S = TypeVar("S")


class AnyDriver(Protocol[T, S]):
    """The calls of a batcher; `Driver` and `batchers.remote` have them, and document them."""

    name: str
    function: Callable[[list[T]], Rows[S] | Awaitable[Rows[S]]] | None
    home: Loop | None
    batcher_id: Any
    requests: RequestFactory[T]
    stopped: SharedFuture[None]

    @property
    def running(self) -> bool:
        """True from the start to the end."""
        ...

    @property
    def healthy(self) -> bool:
        """False if only a restart helps."""
        ...

    def clock(self) -> float:
        """Return the time in seconds; only differences count."""
        ...

    def start(self, here: Loop | None) -> None:
        """Start what the first call needs."""
        ...

    def reconfigure(self, changes: Changes) -> None:
        """Change options: all of them, or none."""
        ...

    def accept(
        self, item: T, timeout: float | None, priority: int, future: object, here: Loop | None
    ) -> Request[T]:
        """Submit one item, and return its request."""
        ...

    def admit(self, requests: Sequence[Request[T]], here: Loop | None) -> object:
        """Submit requests: accept all, or raise an error and accept none."""
        ...

    def cancel(self, request: Request[T], here: Loop | None = None) -> None:
        """Withdraw a request; do nothing if it is settled."""
        ...

    def close(self, here: Loop | None, *, force: bool) -> None:
        """Accept no more items, and end when all are served."""
        ...

    def abandon(self, here: Loop | None, timeout: float | None) -> bool:
        """Fail all items that are not settled; return True if work was given up, or hangs."""
        ...

    def refuse_wait(self, call: str, instead: str) -> None:
        """Raise BatcherError if this thread would wait for itself."""
        ...

    def own_threads(self, *, busy: bool) -> list[DaemonThread]:
        """Return the threads of the driver."""
        ...

    def leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:
        """Return the tasks of the driver that run on loop `here`."""
        ...

    def stats(self) -> BatcherStats:
        """Return the counters of one moment."""
        ...

    def dispatches(self) -> list[Dispatch]:
        """Return the most recent starts of batches."""
        ...

    def dump(self) -> str:
        """Return a report of the batches that run."""
        ...

    def describe(self) -> str:
        """Return the state in one line."""
        ...
