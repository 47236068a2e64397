"""Promise 4: what a batch may be, and when it is closed."""

from __future__ import annotations

import asyncio

import pytest

from batchers import ItemCostError
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, until


@pytest.mark.parametrize("size", [1, 2, 3, 64])
async def test_never_empty_never_too_large(make: Make, gate: Gate, flavour: Flavour, size: int) -> None:
    """Including a limit of one."""
    gate.open()
    batcher = make(gate.function(flavour), max_batch_size=size, concurrency=2)

    await asyncio.gather(*(batcher.process(n) for n in range(200)))

    assert all(1 <= len(batch) <= size for batch in gate.seen)


async def test_no_limit(make: Make, gate: Gate, flavour: Flavour) -> None:
    """-1 takes everything that waits."""
    batcher = make(gate.function(flavour), max_batch_size=-1, max_queue_size=-1)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(1500)]
    await until(lambda: gate.started == 1)
    await until(lambda: batcher.stats().queued == 1500 - len(gate.seen[0]))
    gate.open()
    await asyncio.gather(*tasks)

    assert len(gate.seen) <= 2


async def test_late_binding(make: Make, gate: Gate, flavour: Flavour) -> None:
    """What comes while the only slot is busy is one batch when it is free: nothing is formed ahead."""
    batcher = make(gate.function(flavour), max_batch_size=100)
    tasks = [asyncio.create_task(batcher.process(0))]
    await until(lambda: gate.started == 1)
    for n in range(1, 6):
        tasks.append(asyncio.create_task(batcher.process(n)))
        await until(lambda n=n: batcher.stats().queued == n)  # type: ignore[misc]
    gate.open()
    await asyncio.gather(*tasks)

    assert gate.seen == [[0], [1, 2, 3, 4, 5]]


async def test_concurrency_is_kept(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Never more batches in flight than allowed, and as many as allowed."""
    batcher = make(gate.function(flavour), max_batch_size=1, concurrency=3)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(10)]
    for done in range(10):
        await until(lambda done=done: gate.started == min(done + 3, 10))  # type: ignore[misc]
        assert batcher.stats().batches_in_flight == min(3, 10 - done)
        gate.let(1)
        await until(lambda done=done: batcher.stats().completed == done + 1)  # type: ignore[misc]
    await asyncio.gather(*tasks)


async def test_unlimited_concurrency(make: Make, gate: Gate, flavour: Flavour) -> None:
    """-1 runs every batch at once."""
    batcher = make(gate.function(flavour), max_batch_size=1, concurrency=-1)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(30)]
    await until(lambda: gate.started == 30)
    assert batcher.stats().batches_in_flight == 30
    gate.open()

    assert await asyncio.gather(*tasks) == list(range(30))


async def test_automatic_concurrency(make: Make, gate: Gate, flavour: Flavour) -> None:
    """One batch at a time until it is known how long one takes; then a second is tried."""
    batcher = make(gate.function(flavour), max_batch_size=1, concurrency="auto")
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(30)]
    for done in range(16):
        await until(lambda done=done: gate.started == done + 1)  # type: ignore[misc]
        assert batcher.stats().batches_in_flight == batcher.stats().concurrency == 1
        gate.let(1)
    await until(lambda: gate.started == 18)
    assert batcher.stats().batches_in_flight == batcher.stats().concurrency == 2
    gate.open()

    assert await asyncio.gather(*tasks) == list(range(30))


async def test_groups_never_mix(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Whatever the order of arrival."""
    gate.open()
    batcher = make(gate.function(flavour), max_batch_size=5, group_by=lambda n: n % 3, concurrency=2)

    await asyncio.gather(*(batcher.process(n) for n in range(100)))

    assert all(len({n % 3 for n in batch}) == 1 for batch in gate.seen)


async def test_cost_is_never_exceeded(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Items enter in order until the next one does not fit; nothing overtakes it."""
    batcher = make(gate.function(flavour), cost=len, max_batch_cost=5)
    first = asyncio.create_task(batcher.process("x"))
    await until(lambda: gate.started == 1)
    tasks = [asyncio.create_task(batcher.process(text)) for text in ("aa", "bbb", "c", "ddddd", "", "e")]
    await until(lambda: batcher.stats().queued == 6)
    gate.open()
    await asyncio.gather(first, *tasks)

    assert gate.seen == [["x"], ["aa", "bbb"], ["c"], ["ddddd", ""], ["e"]]


@pytest.mark.parametrize(("item", "text"), [(6, "costs 6"), (-1, "-1"), (float("nan"), "nan"), (1e999, "inf")])
async def test_impossible_costs(make: Make, gate: Gate, item: float, text: str) -> None:
    """An item that fits no batch is refused to its caller, who is told why."""
    batcher = make(gate.function("sync"), cost=lambda item: item, max_batch_cost=5)

    with pytest.raises(ItemCostError, match=text):
        await batcher.process(item)

    assert batcher.stats().submitted == 0
