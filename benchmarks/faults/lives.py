"""A batcher of each subject in this process, with what all of them can do: call, stop, end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from batchers import Batcher, create_batcher

from .result import OURS, Subject

BatchFunction = Callable[[list[Any]], Sequence[Any] | Awaitable[Sequence[Any]]]
STOP_SECONDS = 5.0
"""For the stop of a peer, which may hang."""


@dataclass(frozen=True)
class Limits:
    """Of one batcher."""

    rows: int
    queue: int
    concurrency: int


class Life(Protocol):
    """A batcher that lives."""

    async def call(self, item: Any, timeout: float | None) -> Any:  # noqa: ANN401 - of the caller's kind
        """Return the answer; an exception for all else."""

    async def stop(self, *, force: bool) -> None:
        """End it."""

    def books(self) -> str:
        """Return what does not add up in its counters at the end."""


@dataclass
class Ours:
    """One of this project's."""

    batcher: Batcher[Any, Any]

    async def call(self, item: Any, timeout: float | None) -> Any:  # noqa: ANN401
        """Return the answer."""
        return await self.batcher.process(item, timeout=timeout)

    async def stop(self, *, force: bool) -> None:
        """End it."""
        await self.batcher.stop(force)

    def books(self) -> str:
        """Return what does not add up."""
        stats = self.batcher.stats()
        ended = stats.completed + stats.failed + stats.cancelled + stats.expired + stats.stopped + stats.rejected
        return "" if stats.submitted == ended else f"{stats.submitted} submitted, {ended} ended"


@dataclass
class Theirs:
    """A peer's: what it has no time limit for gets asyncio's."""

    process: Callable[[Any], Awaitable[Any]]
    end: Callable[[bool], Awaitable[None]] | None

    async def call(self, item: Any, timeout: float | None) -> Any:  # noqa: ANN401
        """Return the answer."""
        async with asyncio.timeout(timeout):
            return await self.process(item)

    async def stop(self, *, force: bool) -> None:
        """End it, if it can."""
        if self.end is not None:
            async with asyncio.timeout(STOP_SECONDS):
                await self.end(force)

    def books(self) -> str:
        """Say nothing: it keeps none."""
        return ""


def begin(subject: Subject, function: BatchFunction, limits: Limits, **options: Any) -> Life:  # noqa: ANN401 - of ours
    """Make a batcher; `options` are for this project's. ImportError for a peer that is not installed."""
    if subject in OURS:
        return Ours(
            create_batcher(
                subject,
                function,
                max_batch_size=limits.rows,
                max_queue_size=limits.queue,
                concurrency=limits.concurrency,
                **options,
            )
        )
    if subject == "batched":
        # With 0 it would spin, and take a core.
        from batched import aio  # noqa: PLC0415 - a peer may be missing

        return Theirs(aio.dynamically(function, batch_size=limits.rows, timeout_ms=1.0), None)
    from async_batcher.batcher import AsyncBatcher  # noqa: PLC0415 - as above

    if asyncio.iscoroutinefunction(function):

        class Coroutines(AsyncBatcher[Any, Any]):  # type: ignore[misc]  # it ships no types
            async def process_batch(self, batch: list[Any]) -> Any:  # noqa: ANN401
                return await cast("Awaitable[Any]", function(batch))

        batcher: Any = Coroutines
    else:

        class Functions(AsyncBatcher[Any, Any]):  # type: ignore[misc]  # as above
            def process_batch(self, batch: list[Any]) -> Any:  # noqa: ANN401
                return function(batch)

        batcher = Functions
    made = batcher(
        max_batch_size=max(limits.rows, 2),  # it has no batches of 1
        max_queue_time=0,
        max_queue_size=limits.queue,
        concurrency=limits.concurrency,
    )
    return Theirs(made.process, lambda force: made.stop(force=force))
