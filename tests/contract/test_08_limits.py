"""Promise 8: the queue is bounded, and so is the time of a call."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import pytest

from batchers import DeadlineExceededError, OptionError, QueueFullError
from tests.conftest import Make
from tests.support.clocks import VirtualTime
from tests.support.gate import Flavour, Gate, outcomes, until


async def test_full_queue(make: Make, gate: Gate, flavour: Flavour) -> None:
    """At the bound a call fails at once and says when to come back."""
    batcher = make(gate.function(flavour), max_batch_size=1, max_queue_size=3)
    tasks = [asyncio.create_task(batcher.process(0))]
    await until(lambda: gate.started == 1)
    tasks += [asyncio.create_task(batcher.process(n)) for n in range(1, 4)]
    await until(lambda: batcher.stats().queued == 3)

    with pytest.raises(QueueFullError, match="max_queue_size is 3") as caught:
        await batcher.process(9)
    with pytest.raises(QueueFullError):
        batcher.submit(9)
    gate.open()

    assert 0.001 <= caught.value.retry_after <= 60
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]
    assert batcher.stats().rejected == 2


async def test_many_are_admitted_together_or_not_at_all(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Three places are left: four are refused, three are accepted."""
    batcher = make(gate.function(flavour), max_batch_size=1, max_queue_size=4)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(batcher.process(0))]
    await until(lambda: gate.started == 1)
    tasks.append(asyncio.create_task(batcher.process(1)))
    await until(lambda: batcher.stats().queued == 1)

    with pytest.raises(QueueFullError):
        await batcher.process_many([2, 3, 4, 5])
    assert batcher.stats().queued == 1
    with pytest.raises(OptionError, match="can never fit max_queue_size=4"):
        await batcher.process_many(range(5))
    tasks.append(asyncio.create_task(batcher.process_many([2, 3, 4])))
    await until(lambda: batcher.stats().queued == 4)
    gate.open()

    assert await asyncio.gather(*tasks) == [0, 1, [2, 3, 4]]


@pytest.mark.race
async def test_the_bound_is_exact_under_threads(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Thirty-two threads rush for ten places."""
    batcher = make(gate.function(flavour), max_batch_size=1, max_queue_size=10)
    running = asyncio.create_task(batcher.process("running"))
    await until(lambda: gate.started == 1)
    barrier = threading.Barrier(32)
    accepted, refused = [], []

    def rush() -> None:
        barrier.wait()
        for n in range(5):
            try:
                accepted.append(batcher.submit(n))
            except QueueFullError as error:
                refused.append(error)

    threads = [threading.Thread(target=rush) for _ in range(32)]
    for thread in threads:
        thread.start()
    await until(lambda: not any(thread.is_alive() for thread in threads))

    assert (len(accepted), len(refused)) == (10, 150)
    gate.open()
    assert await running == "running"


def test_deadline_in_the_queue(time: VirtualTime) -> None:
    """It fires by its own timer, at its time and not before; the item never runs."""
    ran: list[Any] = []

    def work(items: list[Any]) -> list[Any]:
        ran.extend(items)
        return items

    async def scenario() -> None:
        batcher = time.make(work, max_queue_time=100.0)
        task = asyncio.create_task(batcher.process("late", timeout=5.0))
        patient = asyncio.create_task(batcher.process("patient"))
        await time.advance(4.999)
        assert not task.done()
        await time.advance(0.001)
        assert task.done()
        with pytest.raises(DeadlineExceededError, match="in the queue"):
            await task
        assert not patient.done()
        assert batcher.stats().expired == 1
        await batcher.stop()
        assert await patient == "patient"

    time.run(scenario())
    assert ran == ["patient"]


def test_the_earliest_deadline_counts(time: VirtualTime) -> None:
    """Also when it comes last."""

    async def scenario() -> None:
        batcher = time.make(lambda items: items, max_queue_time=100.0, timeout=50.0)
        tasks = [asyncio.create_task(batcher.process(1, timeout=limit)) for limit in (None, 20.0, 10.0, 30.0)]
        done = []
        for _ in range(6):
            await time.advance(10.0)
            done.append([task.done() for task in tasks].count(True))
        assert done == [1, 2, 3, 3, 4, 4]
        assert {type(result) for result in await outcomes(*tasks)} == {DeadlineExceededError}
        await batcher.stop()

    time.run(scenario())


async def test_deadline_while_every_slot_is_busy(make: Make, gate: Gate, flavour: Flavour) -> None:
    """No slot has to come free for it, and the item never runs."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    running = asyncio.create_task(batcher.process("running"))
    await until(lambda: gate.started == 1)

    with pytest.raises(DeadlineExceededError):
        await batcher.process("late", timeout=0.001)
    with pytest.raises(DeadlineExceededError):
        await asyncio.wrap_future(batcher.submit("late too", timeout=0))
    gate.open()

    assert await running == "running"
    assert gate.items == ["running"]


async def test_deadline_in_a_running_batch(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The caller is told in time, its neighbour gets its answer, and the late result is dropped."""
    batcher = make(gate.function(flavour), max_batch_size=2)
    first = asyncio.create_task(batcher.process("first"))
    await until(lambda: gate.started == 1)
    late = asyncio.create_task(batcher.process("late", timeout=0.2))
    neighbour = asyncio.create_task(batcher.process("neighbour"))
    await until(lambda: batcher.stats().queued == 2)
    gate.let(1)
    await until(lambda: gate.started == 2)

    with pytest.raises(DeadlineExceededError, match="in a running batch"):
        await late
    gate.open()

    assert [await first, await neighbour] == ["first", "neighbour"]


@pytest.mark.parametrize("timeout", [math.inf, 1e12, 10**9])
async def test_long_timeouts(make: Make, gate: Gate, flavour: Flavour, timeout: float) -> None:
    """As good as none."""
    gate.open()
    batcher = make(gate.function(flavour))

    assert await batcher.process(1, timeout=timeout) == 1


async def test_a_timeout_that_is_no_number(make: Make, gate: Gate) -> None:
    """Refused at once."""
    batcher = make(gate.function("sync"))

    with pytest.raises(OptionError, match="timeout"):
        await batcher.process(1, timeout=math.nan)
    with pytest.raises(OptionError, match="timeout must be a number of seconds, not 'soon'"):
        await batcher.process(1, timeout="soon")  # type: ignore[arg-type]
