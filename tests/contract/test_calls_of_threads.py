"""`call`: what a thread without a loop does, for which `submit(item).result()` is the longer way."""

from __future__ import annotations

import asyncio
import gc
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from batchers import (
    BatcherError,
    BatcherStoppedError,
    DeadlineExceededError,
    QueueFullError,
    create_batcher,
)
from batchers.drivers import delivery
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, until


async def in_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Run what blocks, in a thread that is gone afterwards."""
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.wrap_future(pool.submit(function, *args, **kwargs))


async def test_each_thread_gets_its_own(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Results go to the threads that asked for them, whatever batch they were in."""
    gate.open()
    batcher = make(gate.function(flavour), max_batch_size=3)
    with ThreadPoolExecutor(8) as pool:
        found = await asyncio.gather(
            *(asyncio.wrap_future(pool.submit(batcher.call, number)) for number in range(100))
        )

    assert found == list(range(100))
    assert batcher.stats().completed == 100


async def test_errors_are_raised(make: Make, flavour: Flavour) -> None:
    """The item's own error, a refusal, and the end of the time."""
    gate = Gate(lambda item: ValueError(item))
    batcher = make(gate.function(flavour), max_batch_size=1, max_queue_size=1)
    first = asyncio.create_task(in_thread(batcher.call, 1))
    await until(lambda: gate.started == 1)

    with pytest.raises(DeadlineExceededError):
        await in_thread(batcher.call, 2, timeout=0)
    second = asyncio.create_task(in_thread(batcher.call, 3))
    await until(lambda: batcher.stats().queued == 1)
    with pytest.raises(QueueFullError):
        await in_thread(batcher.call, 4)
    gate.open()
    for task in (first, second):
        with pytest.raises(ValueError, match=r"[13]") as caught:
            await task
        assert caught.value.__cause__ is not caught.value
    await batcher.stop()
    with pytest.raises(BatcherStoppedError):
        await in_thread(batcher.call, 5)


async def test_priorities(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Higher ones go first."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    tasks = []
    for number, priority in enumerate([0, 0, 1]):
        tasks.append(asyncio.create_task(in_thread(batcher.call, number, priority=priority)))
        await until(lambda: batcher.stats().submitted == len(tasks))
        await until(lambda: gate.started == 1)
    gate.open()
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert gate.items == [0, 2, 1]


async def test_not_in_a_loop(make: Make, gate: Gate, flavour: Flavour) -> None:
    """It would block the loop, perhaps the one that runs the batch."""
    batcher = make(gate.function(flavour))

    with pytest.raises(BatcherError, match=r"await process\(\)"):
        batcher.call(1)
    assert batcher.stats().submitted == 0


@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_an_interrupt_withdraws_the_item(backend: str, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a call waits: it is no longer in the queue, and the others are served."""
    batcher = create_batcher(backend, gate.function("sync"), max_batch_size=1)
    first = batcher.submit(1)
    while gate.started < 1:
        pass

    def interrupted(_: delivery.Waiter) -> None:
        assert batcher.stats().queued == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(delivery.Waiter, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            batcher.call(2)
    assert (batcher.stats().queued, batcher.stats().cancelled) == (0, 1)
    gate.open()
    assert batcher.call(3) == 3
    assert first.result() == 1
    batcher.close()
    assert gate.items == [1, 3]


def test_a_waiter_that_is_resolved_twice() -> None:
    """As after an interrupt between the outcome and the next caller: it is let go once."""
    waiter = delivery.Waiter()
    waiter.set_result(1)
    waiter.set_result(1)
    waiter.wait()

    assert waiter.result() == 1


@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_not_in_a_callback_of_its_own(backend: str, gate: Gate) -> None:
    """There it is refused."""
    said: list[str] = []
    with create_batcher(backend, gate.function("sync")) as batcher:

        def callback(_: Future[int]) -> None:
            with pytest.raises(BatcherError, match="the batcher's own: use submit") as caught:
                batcher.call(6)
            said.append(str(caught.value))

        future: Future[int] = batcher.submit(1)
        while gate.started < 1:
            pass
        future.add_done_callback(callback)
        gate.open()
        assert future.result() == 1
        assert batcher.call(2) == 2  # the callback has ended
    assert len(said) == 1


@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_a_failed_call_leaves_nothing_behind(backend: str) -> None:
    """No cycle that only the garbage collector would find keeps its item."""

    class Item:
        pass

    def fail(items: list[Item]) -> list[ValueError]:
        return [ValueError() for _ in items]

    item = Item()
    alive = weakref.ref(item)
    gc.disable()
    try:
        with create_batcher(backend, fail) as batcher:
            with pytest.raises(ValueError):
                batcher.call(item)
            del item
        assert alive() is None
    finally:
        gc.enable()
