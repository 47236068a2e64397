"""Promise 3: items of one group and priority enter batches in the order of their acceptance."""

from __future__ import annotations

import asyncio

import pytest

from batchers import OptionError
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, until


async def test_first_come_first_served(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Over many batches."""
    gate.open()
    batcher = make(gate.function(flavour), max_batch_size=7)

    await asyncio.gather(*(batcher.process(n) for n in range(100)))

    assert gate.items == list(range(100))


async def test_withdrawn_items_leave_the_order_as_it_is(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Whoever stays, stays in order."""
    batcher = make(gate.function(flavour), max_batch_size=3)
    first = asyncio.create_task(batcher.process("first"))
    await until(lambda: gate.started == 1)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(20)]
    await until(lambda: batcher.stats().queued == 20)
    for task in tasks[::3]:
        task.cancel()
    await until(lambda: batcher.stats().queued == 13)
    gate.open()
    await asyncio.gather(first, *tasks, return_exceptions=True)

    assert gate.items == ["first", *(n for n in range(20) if n % 3)]


async def test_higher_priorities_go_first(make: Make, gate: Gate, flavour: Flavour) -> None:
    """In their own order, and together with lower ones in one batch where there is room."""
    batcher = make(gate.function(flavour), max_batch_size=4)
    first = asyncio.create_task(batcher.process("first"))
    await until(lambda: gate.started == 1)
    calls = [("a", 0), ("b", 5), ("c", -1), ("d", 0), ("e", 5), ("f", 1)]
    tasks = [asyncio.create_task(batcher.process(item, priority=rank)) for item, rank in calls]
    await until(lambda: batcher.stats().queued == 6)
    gate.open()
    await asyncio.gather(first, *tasks)

    assert gate.seen == [["first"], list("befa"), list("dc")]


@pytest.mark.parametrize("priority", [1.0, "high", None, True])
async def test_priorities_are_whole_numbers(make: Make, gate: Gate, priority: object) -> None:
    """Anything else is refused, and nothing is queued."""
    batcher = make(gate.function("sync"))

    with pytest.raises(OptionError, match="priority must be a whole number"):
        await batcher.process(1, priority=priority)  # type: ignore[arg-type]

    assert batcher.stats().submitted == 0


async def test_groups_take_turns_by_age(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The group with the longest wait goes first; no group overtakes within itself."""
    batcher = make(gate.function(flavour), max_batch_size=2, group_by=lambda item: item[0])
    first = asyncio.create_task(batcher.process("x0"))
    await until(lambda: gate.started == 1)
    tasks = [asyncio.create_task(batcher.process(item)) for item in ("b1", "a1", "a2", "b2", "a3", "c1")]
    await until(lambda: batcher.stats().queued == 6)
    gate.open()
    await asyncio.gather(first, *tasks)

    assert gate.seen == [["x0"], ["b1", "b2"], ["a1", "a2"], ["a3"], ["c1"]]
