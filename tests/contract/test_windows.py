"""`max_queue_time`: how long a batch that is not full is held, to the moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from batchers import Window
from tests.support.clocks import VirtualTime


class Log:
    """Notes when each batch runs."""

    def __init__(self, time: VirtualTime) -> None:
        self.time = time
        self.batches: list[tuple[float, list[Any]]] = []

    def __call__(self, items: list[Any]) -> list[Any]:
        self.batches.append((round(self.time.now(), 6), list(items)))
        return items


def test_a_trickle_never_pushes_the_time(time: VirtualTime) -> None:
    """Items every 0.09 s and a window of 0.1 s: the oldest waits 0.1 s and no more."""
    log = Log(time)

    async def scenario() -> None:
        batcher = time.make(log, max_queue_time=0.1)
        start = time.now()
        tasks = []
        for n in range(4):
            tasks.append(asyncio.create_task(batcher.process(n)))
            await time.advance(0.09)
        await time.advance(0.2)
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3]
        assert [(round(at - start, 6), items) for at, items in log.batches] == [(0.1, [0, 1]), (0.28, [2, 3])]
        await batcher.stop()

    time.run(scenario())


def test_a_full_batch_goes_at_once(time: VirtualTime) -> None:
    """No time passes; and the one that is left waits for its own window."""
    log = Log(time)

    async def scenario() -> None:
        batcher = time.make(log, policy=Window(10.0), max_batch_size=3)
        tasks = [asyncio.create_task(batcher.process(n)) for n in range(4)]
        await time.advance(0)
        assert [task.done() for task in tasks] == [True, True, True, False]
        await time.advance(9.99)
        assert not tasks[3].done()
        await time.advance(0.01)
        assert [task.done() for task in tasks] == [True] * 4
        await batcher.stop()

    time.run(scenario())


def test_greedy_holds_nothing(time: VirtualTime) -> None:
    """A lone item on an idle batcher with default options is dispatched at once."""
    log = Log(time)

    async def scenario() -> None:
        batcher = time.make(log)
        task = asyncio.create_task(batcher.process(1))
        await time.advance(0)
        assert task.done()
        await batcher.stop()

    time.run(scenario())


def test_a_drain_does_not_wait_for_windows(time: VirtualTime) -> None:
    """A stop sends what waits, in batches of the usual size, now."""
    log = Log(time)

    async def scenario() -> None:
        batcher = time.make(log, max_queue_time=100.0, max_batch_size=2)
        tasks = [asyncio.create_task(batcher.process(n)) for n in range(5)]
        await time.advance(1)
        start = time.now()
        await batcher.stop()
        assert time.now() == start
        assert await asyncio.gather(*tasks) == list(range(5))

    time.run(scenario())
    assert [items for _, items in log.batches] == [[0, 1], [2, 3], [4]]


def test_the_last_withdrawn_item_takes_its_timer_along(time: VirtualTime) -> None:
    """No empty batch runs, and nothing rings in an empty batcher."""
    log = Log(time)

    async def scenario() -> None:
        batcher = time.make(log, max_queue_time=10.0)
        task = asyncio.create_task(batcher.process(1))
        await time.advance(1)
        task.cancel()
        await time.advance(0)
        before = time.wake_ups
        await time.advance(100)
        assert time.wake_ups == before
        await batcher.stop()

    time.run(scenario())
    assert log.batches == []


@pytest.mark.parametrize("jump", [1e3, 1e6])
def test_the_clock_jumps_ahead(time: VirtualTime, jump: float) -> None:
    """What is due happens, once; nothing spins."""
    log = Log(time)

    async def scenario() -> None:
        batcher = time.make(log, max_queue_time=1.0)
        task = asyncio.create_task(batcher.process(1))
        await time.advance(0)
        before = time.wake_ups
        await time.advance(jump)
        assert task.done()
        assert time.wake_ups - before < 10
        await batcher.stop()

    time.run(scenario())


def test_groups_have_windows_of_their_own(time: VirtualTime) -> None:
    """A full group goes while another is held; the held one goes at its time."""
    log = Log(time)

    async def scenario() -> None:
        batcher = time.make(log, max_queue_time=1.0, max_batch_size=2, group_by=lambda item: item[0])
        tasks = [asyncio.create_task(batcher.process("a1"))]
        await time.advance(0.5)
        tasks += [asyncio.create_task(batcher.process(item)) for item in ("b1", "b2")]
        await time.advance(0)
        assert [items for _, items in log.batches] == [["b1", "b2"]]
        await time.advance(0.5)
        assert [items for _, items in log.batches] == [["b1", "b2"], ["a1"]]
        await asyncio.gather(*tasks)
        await batcher.stop()

    time.run(scenario())
