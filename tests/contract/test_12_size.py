"""Promise 12: memory is flat and comes back; tests/core counts that the cost of an item is flat."""

from __future__ import annotations

import asyncio
import gc
import resource
import threading
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

from batchers import Batcher, create_batcher
from batchers.core.accounting import DISPATCHES_KEPT
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, outcomes, until


async def test_items_are_let_go(make: Make, gate: Gate, flavour: Flavour) -> None:
    """After its outcome, nothing of the batcher holds an item."""

    class Item:
        pass

    gate.open()
    gate.answer = lambda _: None
    batcher = make(gate.function(flavour))
    items = [Item() for _ in range(10)]
    refs = [weakref.ref(item) for item in items]
    await asyncio.gather(*(batcher.process(item) for item in items))
    future = batcher.submit(Item())
    await asyncio.wrap_future(future)
    gate.seen.clear()
    items.clear()
    gc.collect()

    assert [ref() for ref in refs if ref() is not None] == []


def test_memory_is_flat(backend: str) -> None:
    """Served, failed, cancelled and expired items leave nothing behind, at any count."""

    def work(items: list[int]) -> list[Any]:
        return [ValueError(item) if item % 7 == 0 else item for item in items]

    async def spend(batcher: Batcher[int, int], rounds: int) -> int:
        for _ in range(rounds):
            tasks = [asyncio.create_task(batcher.process(n, priority=n % 3)) for n in range(200)]
            await asyncio.sleep(0)
            for task in tasks[::5]:
                task.cancel()
            await outcomes(*tasks, batcher.process(1, timeout=0))
        del tasks
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def scenario() -> None:
        async with create_batcher(backend, work, max_batch_size=64, timeout=60.0) as batcher:
            await spend(batcher, 10)
            tracemalloc.start()
            while len(batcher.decisions()) < DISPATCHES_KEPT:  # what it keeps
                await spend(batcher, 10)
            try:
                before = await spend(batcher, 10)
                after = await spend(batcher, 50)
            finally:
                tracemalloc.stop()
        assert after - before < 50_000

    asyncio.run(scenario())


def test_a_million_items(backend: str) -> None:
    """The memory of the process after a million items is that after a hundred thousand, within 2 MB."""

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    async def work(items: list[int]) -> list[int]:
        return items

    async def spend(batcher: Batcher[int, int], thousands: int) -> int:
        for _ in range(thousands):
            await batcher.process_many(range(1000))
        return resident()

    async def scenario() -> None:
        async with create_batcher(backend, work) as batcher:
            before = await spend(batcher, 100)
            after = await spend(batcher, 900)
            assert batcher.stats().completed == 1_000_000
        assert after - before < 2_000_000

    asyncio.run(scenario())


def test_a_dropped_batcher_is_collected(backend: str, flavour: Flavour) -> None:
    """Three times: its threads end, though nobody stopped it."""
    gate = Gate()
    gate.open()
    refs = []
    before = set(threading.enumerate())
    for _ in range(3):
        batcher = create_batcher(backend, gate.function(flavour), concurrency=2, timeout=100.0)
        assert batcher.submit(1).result() == 1
        refs.append(weakref.ref(batcher))
        del batcher
    for thread in set(threading.enumerate()) - before:
        while thread.is_alive():
            gc.collect()
            thread.join(0.01)

    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


async def test_a_dropped_batcher_serves_first(backend: str, gate: Gate, flavour: Flavour) -> None:
    """What it accepted is served, though only its futures are kept."""
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    futures = [batcher.submit(n) for n in range(3)]
    await until(lambda: gate.started == 1)
    del batcher
    gc.collect()
    gate.open()

    assert [await asyncio.wrap_future(future) for future in futures] == [0, 1, 2]
    gc.collect()


async def test_items_of_a_batch_that_has_ended(make: Make, gate: Gate, flavour: Flavour) -> None:
    """They are let go, also while the thread or the loop that ran it goes on with others."""

    class Item:
        """One that can be followed."""

    gate.result = lambda _: [None]
    batcher = make(gate.function(flavour), max_batch_size=1)
    item = Item()
    first = weakref.ref(item)
    tasks = [asyncio.create_task(batcher.process(each)) for each in (item, 2, 3)]
    await until(lambda: batcher.stats().queued == 2)
    del item
    gate.let(1)
    await tasks.pop(0)
    await until(lambda: gate.started == 2)
    gate.seen.clear()
    gc.collect()
    assert first() is None
    gate.open()
    await asyncio.gather(*tasks)
