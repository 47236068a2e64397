"""`cancel_abandoned`: an async batch that nobody waits for any more is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from batchers import DeadlineExceededError
from tests.conftest import Make
from tests.support.clocks import LoopTime
from tests.support.gate import Gate, outcomes, until


class Slow:
    """A batch function that never answers the first batch, and tells how it ended."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.cancelled = 0
        self.may_end = True
        self.swallows = False

    async def __call__(self, items: list[Any]) -> list[Any]:
        self.seen.append(list(items))
        if len(self.seen) > 1:
            return items
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled += 1
            while not self.may_end:
                await asyncio.sleep(0)
            if not self.swallows:
                raise
        return items

    def sync(self, items: list[Any]) -> Awaitable[list[Any]]:
        """Return what has to be awaited."""
        return self(items)


@pytest.fixture(params=["async", "awaitable"])
def kind(request: pytest.FixtureRequest) -> str:
    """Give an async function, or a sync one that returns a coroutine."""
    return str(request.param)


def function_of(slow: Slow, kind: str) -> Callable[[list[Any]], Any]:
    return slow.__call__ if kind == "async" else slow.sync


async def test_the_last_caller_leaves(make: Make, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The function is cancelled, and nothing is logged or counted as a failure."""
    slow = Slow()
    batcher = make(function_of(slow, kind), max_batch_size=2, cancel_abandoned=True)
    task = asyncio.create_task(batcher.process_many(range(2)))
    await until(lambda: slow.seen)
    task.cancel()
    await outcomes(task)
    await until(lambda: slow.cancelled)

    assert await batcher.process(3) == 3
    stats = batcher.stats()
    assert (stats.cancelled, stats.failed, stats.failed_batches, stats.stalled) == (2, 0, 0, 0)
    assert stats.service_time.count == 1
    assert [record for record in caplog.records if record.name == "batchers"] == []


async def test_the_slot_is_free_when_the_function_has_ended(make: Make, kind: str) -> None:
    """Until then its clean-up keeps the slot."""
    slow = Slow()
    slow.may_end = False
    batcher = make(function_of(slow, kind), cancel_abandoned=True)
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: slow.seen)
    task.cancel()
    await until(lambda: slow.cancelled)
    second = asyncio.create_task(batcher.process(2))
    await until(lambda: batcher.stats().queued == 1)
    assert batcher.stats().batches_in_flight == 1
    slow.may_end = True

    assert await second == 2
    assert slow.seen == [[1], [2]]
    assert slow.cancelled == 1


async def test_a_function_that_goes_on(make: Make, kind: str) -> None:
    """If it catches the cancellation, its results are dropped, and the next batch runs."""
    slow = Slow()
    slow.swallows = True
    batcher = make(function_of(slow, kind), cancel_abandoned=True)
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: slow.seen)
    task.cancel()
    await outcomes(task)

    assert await batcher.process(2) == 2


async def test_a_future_of_a_thread(make: Make, kind: str) -> None:
    """It counts as a caller."""
    slow = Slow()
    batcher = make(function_of(slow, kind), cancel_abandoned=True)
    future = batcher.submit(1)
    await until(lambda: slow.seen)
    assert future.cancel()
    await until(lambda: slow.cancelled)

    assert await batcher.process(2) == 2


def test_callers_expire() -> None:
    """They leave too: the batch that would have taken 100 seconds ends at once."""
    time = LoopTime()

    async def scenario() -> None:
        batcher = time.make(list, lambda items: 100.0 if items == [1] else 0.0, cancel_abandoned=True)
        with pytest.raises(DeadlineExceededError):
            await batcher.process(1, timeout=5.0)
        assert await batcher.process(2) == 2
        assert time.now() < 6.0
        await batcher.stop()

    time.run(scenario())


@pytest.mark.parametrize("stays", [0, 1])
async def test_one_stays(make: Make, gate: Gate, stays: int) -> None:
    """The batch runs to its end for the one who waits."""
    batcher = make(gate.function("async"), max_batch_size=2, cancel_abandoned=True)
    first = asyncio.create_task(batcher.process("first"))
    await until(lambda: gate.started == 1)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(2)]
    await until(lambda: batcher.stats().queued == 2)
    gate.let(1)
    await until(lambda: gate.started == 2)
    tasks[1 - stays].cancel()
    await outcomes(tasks[1 - stays])
    gate.open()

    assert await tasks[stays] == stays
    assert await first == "first"


async def test_a_sync_function_runs_to_its_end(make: Make, gate: Gate) -> None:
    """A thread cannot be cancelled; its batch is measured as every other."""
    batcher = make(gate.function("sync"), cancel_abandoned=True)
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    task.cancel()
    await outcomes(task)
    second = asyncio.create_task(batcher.process(2))
    await until(lambda: batcher.stats().queued == 1)
    assert gate.started == 1
    gate.open()

    assert await second == 2
    assert batcher.stats().service_time.count == 2


async def test_off_by_default(make: Make, gate: Gate) -> None:
    """The batch runs to its end, for instance because it writes what it has found."""
    batcher = make(gate.function("async"))
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    task.cancel()
    await outcomes(task)
    assert gate.waiting == 1
    gate.open()

    assert await batcher.process(2) == 2
    assert batcher.stats().service_time.count == 2


@pytest.mark.parametrize("policy_learns", [False, True])
async def test_it_stops_with_a_cancelled_batch(make: Make, kind: str, policy_learns: bool) -> None:
    """`stop` waits for the end of the function, not of its work."""
    slow = Slow()
    options: dict[str, Any] = {"concurrency": "auto"} if policy_learns else {}
    batcher = make(function_of(slow, kind), cancel_abandoned=True, **options)
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: slow.seen)
    task.cancel()
    await outcomes(task)
    await batcher.stop()

    assert slow.cancelled == 1
