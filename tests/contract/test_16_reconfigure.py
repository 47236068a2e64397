"""Limits and policy change while the batcher runs: nothing is lost, and nothing is overtaken."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from batchers import Adaptive, Greedy, OptionError, QueueFullError, Window
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, until


async def test_more_batches_in_flight(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Items that wait are dispatched as soon as there are more slots; with fewer slots running batches go on."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(6)]
    await until(lambda: gate.waiting == 1)
    batcher.reconfigure(concurrency=3)
    await until(lambda: gate.waiting == 3)
    batcher.reconfigure(concurrency=1, max_batch_size=10)
    gate.let_waiting(2)
    await until(lambda: gate.waiting == 2)
    gate.open()
    assert await asyncio.gather(*tasks) == list(range(6))


async def test_another_queue(make: Make, gate: Gate, flavour: Flavour) -> None:
    """A shorter queue drops nothing and takes nothing; a longer one takes more at once."""
    batcher = make(gate.function(flavour), max_batch_size=1, max_queue_size=3)
    tasks = [asyncio.create_task(batcher.process(0))]
    await until(lambda: gate.waiting == 1)
    tasks += [asyncio.create_task(batcher.process(n)) for n in (1, 2, 3)]
    await until(lambda: batcher.stats().queued == 3)
    batcher.reconfigure(max_queue_size=1)
    with pytest.raises(QueueFullError, match="max_queue_size is 1"):
        await batcher.process(9)
    batcher.reconfigure(max_queue_size=4)
    tasks.append(asyncio.create_task(batcher.process(4)))
    await until(lambda: batcher.stats().queued == 4)
    gate.open()
    assert await asyncio.gather(*tasks) == list(range(5))
    assert gate.items == list(range(5))


async def test_another_policy(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Items that a window holds go at once when there is none any more."""
    gate.open()
    batcher = make(gate.function(flavour), policy=Window(1000.0))
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: batcher.stats().queued == 1)
    batcher.reconfigure(policy=Adaptive())
    assert await task == 1
    batcher.reconfigure(max_queue_time=1000.0)
    task = asyncio.create_task(batcher.process(2))
    await until(lambda: batcher.stats().queued == 1)
    batcher.reconfigure(max_queue_time=None)
    assert await task == 2


async def test_a_policy_that_did_not_see_the_start(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The end of a batch that began under another policy teaches the new one nothing."""
    batcher = make(gate.function(flavour), max_batch_size=2, concurrency=2, policy=Adaptive())
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(8)]
    await until(lambda: gate.waiting == 2)
    for policy in (Greedy(), Adaptive()):
        batcher.reconfigure(policy=policy)
        await until(lambda: gate.waiting)
        gate.let_waiting(0)
    gate.open()
    assert await asyncio.gather(*tasks) == list(range(8))


async def test_all_or_nothing(make: Make, gate: Gate, flavour: Flavour) -> None:
    """After an error everything is as before."""
    gate.open()
    batcher = make(gate.function(flavour), max_queue_size=5)
    with pytest.raises(OptionError, match="concurrency must be a whole number"):
        batcher.reconfigure(max_queue_size=1, concurrency=0)
    with pytest.raises(OptionError, match="give one of the two"):
        batcher.reconfigure(policy=Greedy(), max_queue_time=1.0)
    with pytest.raises(OptionError, match=r"cannot change executor: it can change max_batch_size, "):
        batcher.reconfigure(executor=None)  # type: ignore[call-arg]
    assert await batcher.process_many(range(5)) == list(range(5))
    batcher.reconfigure()
    await batcher.stop()
    batcher.reconfigure(concurrency=2)  # without an effect


async def test_times(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The time limit of calls counts for new calls; that of batches, for running ones too."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    first = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.waiting == 1)
    batcher.reconfigure(timeout=0.001)
    with pytest.raises(TimeoutError):
        await batcher.process(2)
    batcher.reconfigure(timeout=None, batch_timeout=0.001)
    with pytest.raises(TimeoutError):
        await first
    gate.open()


async def test_nothing_is_lost_or_overtaken(make: Make, flavour: Flavour) -> None:
    """Threads call while another one changes everything, again and again."""
    seen: list[tuple[int, int]] = []

    def answer(items: list[tuple[int, int]]) -> list[tuple[int, int]]:
        seen.extend(items)
        return items

    async def answer_later(items: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return answer(items)

    batcher = make(answer if flavour == "sync" else answer_later, max_queue_size=-1)
    over = threading.Event()

    def change() -> None:
        chance = random.Random(5)
        policies = (Greedy(), Window(0.0), Window(0.0005), Adaptive())
        while not over.is_set():
            changes: dict[str, Any] = {
                "max_batch_size": chance.choice([1, 3, 256]),
                "policy": chance.choice(policies),
                "max_queue_size": chance.choice([1000, -1]),
            }
            batcher.reconfigure(**changes)

    def call(number: int) -> None:
        for start in range(0, 300, 10):
            futures = [batcher.submit((number, start + place)) for place in range(10)]
            assert [future.result() for future in futures] == [(number, start + place) for place in range(10)]

    changing = asyncio.create_task(asyncio.to_thread(change))
    try:
        await asyncio.gather(*(asyncio.to_thread(call, number) for number in range(4)))
    finally:
        over.set()
        await changing
    for number in range(4):
        assert [place for caller, place in seen if caller == number] == list(range(300))
    assert batcher.stats().completed == 1200
