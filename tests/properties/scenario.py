"""Random lives of a batcher in virtual time: arrivals, durations, cancels, failures, stops, from one seed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from batchers import BatcherStoppedError, DeadlineExceededError, QueueFullError, create_batcher

FAIL = 13  # items divisible by this fail their batch


@dataclass(frozen=True)
class Call:
    """What one caller does."""

    turns_before: int
    priority: int = 0
    group: int = 0
    leaves_after: int | None = None  # turns of the loop; None: it waits for its answer
    timeout: float | None = None


@dataclass(frozen=True)
class Script:
    """A whole life."""

    calls: list[Call]
    turns_of_batches: list[int]
    max_batch_size: int
    concurrency: int
    max_queue_size: int
    bisect: bool
    fails: bool
    force: bool
    stop_after: int | None


@dataclass
class Life:
    """What happened."""

    batches: list[list[tuple[int, int, int]]] = field(default_factory=list)
    accepted: list[tuple[int, int, int]] = field(default_factory=list)
    outcomes: dict[int, Any] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0
    stats: Any = None


calls = st.builds(
    Call,
    turns_before=st.integers(0, 6),
    priority=st.sampled_from([0, 0, 0, 1]),
    group=st.sampled_from([0, 0, 1]),
    leaves_after=st.none() | st.none() | st.integers(0, 8),
    timeout=st.sampled_from([None, None, None, 0.0, 60.0]),
)
scripts = st.builds(
    Script,
    calls=st.lists(calls, min_size=1, max_size=40),
    turns_of_batches=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    max_batch_size=st.integers(1, 6),
    concurrency=st.integers(1, 4),
    max_queue_size=st.sampled_from([3, 10, 1000]),
    bisect=st.booleans(),
    fails=st.booleans(),
    force=st.booleans(),
    stop_after=st.none() | st.integers(0, 20),
)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def live(backend: str, script: Script) -> Life:
    """Play a script; every caller is waited for."""
    life = Life()
    length = iter(script.turns_of_batches * 1000)

    async def process_batch(items: list[tuple[int, int, int]]) -> list[Any]:
        life.batches.append(list(items))
        life.at_once += 1
        life.most_at_once = max(life.most_at_once, life.at_once)
        await turns(next(length))
        life.at_once -= 1
        if script.fails and any(number % FAIL == 0 for number, _, _ in items):
            raise ValueError(items)
        return [("answer", *item) for item in items]

    batcher = create_batcher(
        backend,
        process_batch,
        max_batch_size=script.max_batch_size,
        concurrency=script.concurrency,
        max_queue_size=script.max_queue_size,
        group_by=lambda item: item[2],
        on_error="bisect" if script.bisect else "fail",
    )

    async def call(number: int, what: Call) -> None:
        item = (number, what.priority, what.group)
        try:
            life.outcomes[number] = await batcher.process(item, priority=what.priority, timeout=what.timeout)
        except (ValueError, QueueFullError, BatcherStoppedError, DeadlineExceededError) as error:
            life.outcomes[number] = error
        except asyncio.CancelledError as error:
            life.outcomes[number] = error
            raise

    tasks: list[asyncio.Task[None]] = []
    leaving: list[asyncio.Task[None]] = []

    async def leave(task: asyncio.Task[None], after: int) -> None:
        await turns(after)
        task.cancel()

    stopping: asyncio.Task[None] | None = None
    for number, what in enumerate(script.calls, 1):
        await turns(what.turns_before)
        before = batcher.stats()
        task = asyncio.create_task(call(number, what))
        tasks.append(task)
        await asyncio.sleep(0)
        if batcher.stats().submitted - batcher.stats().rejected > before.submitted - before.rejected:
            life.accepted.append((number, what.priority, what.group))
        if what.leaves_after is not None:
            leaving.append(asyncio.create_task(leave(task, what.leaves_after)))
        if script.stop_after == number:
            stopping = asyncio.create_task(batcher.stop(force=script.force))
    await asyncio.gather(*tasks, *leaving, return_exceptions=True)
    await batcher.stop()
    if stopping is not None:
        await stopping
    life.stats = batcher.stats()
    return life


def play(backend: str, script: Script) -> Life:
    """Run it in a loop of its own."""
    return asyncio.run(live(backend, script))
