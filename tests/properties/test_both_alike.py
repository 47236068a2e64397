"""The same seeded life on both backends, in virtual time: the same batches at the same times, and outcomes."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from batchers import Adaptive, Greedy, Window
from tests.support.clocks import LoopTime, ThreadTime, VirtualTime

LIVES = 60


def options_of(chance: random.Random) -> dict[str, Any]:
    """Return options that a seed chooses."""
    return {
        "policy": chance.choice([Greedy(), Window(0.004), Adaptive(), Adaptive(latency_target=0.1)]),
        "max_batch_size": chance.choice([1, 3, 8]),
        "concurrency": chance.choice([1, 2, 3]),
        "max_queue_size": chance.choice([5, 100]),
        "timeout": chance.choice([None, 0.05]),
        "batch_timeout": chance.choice([None, None, 0.01]),
        "on_error": chance.choice(["fail", "bisect"]),
        "group_by": chance.choice([None, lambda item: item % 2]),
    }


def play(time: VirtualTime, seed: int) -> tuple[list[tuple[float, list[int]]], dict[int, str]]:
    """Return when which batch started, in order, and what became of each item."""
    chance = random.Random(seed)
    options = options_of(chance)
    batches: list[tuple[float, list[int]]] = []
    became: dict[int, str] = {}

    def function(items: list[int]) -> list[int]:
        if any(item % 17 == 3 for item in items):
            raise ValueError(items)
        return items

    def seconds(items: list[int]) -> float:
        batches.append((round(time.now(), 9), list(items)))
        return 0.003 + 0.0011 * len(items) + 0.0001 * (items[0] % 5)

    async def call(batcher: Any, item: int, priority: int, timeout: float | None) -> None:
        try:
            answer = await batcher.process(item, priority=priority, timeout=timeout)
        except asyncio.CancelledError:
            became[item] = "cancelled"
        except Exception as error:  # noqa: BLE001 - its kind is compared
            became[item] = type(error).__name__
        else:
            became[item] = f"answered {answer}"

    async def scenario() -> None:
        batcher = time.make(function, seconds, **options)
        tasks: list[asyncio.Task[None]] = []
        stopping: asyncio.Task[None] | None = None
        for item in range(150):
            await time.advance(chance.expovariate(600))
            deed = chance.random()
            if deed < 0.1 and tasks:
                chance.choice(tasks).cancel()
            elif deed < 0.12 and stopping is None and item > 100:
                stopping = asyncio.create_task(batcher.stop(force=chance.random() < 0.5))
            else:
                timeout = chance.choice([None, None, 0.01])
                tasks.append(asyncio.create_task(call(batcher, item, chance.choice([0, 0, 1]), timeout)))
        await time.advance(2.0)
        await asyncio.gather(*tasks)
        if stopping is None:
            stopping = asyncio.create_task(batcher.stop())
        await time.advance(1.0)
        await stopping

    time.run(scenario())
    return sorted(batches), became


@pytest.mark.parametrize("seed", range(LIVES))
def test_the_same_on_both(seed: int) -> None:
    """Arrivals, durations, cancels, failures, priorities, groups, deadlines and stops."""
    one, other = play(LoopTime(), seed), play(ThreadTime(), seed)
    assert one[1] == other[1]
    assert one[0] == other[0]
