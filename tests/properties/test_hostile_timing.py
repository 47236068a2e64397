"""The random lives again, with threads and loops that wake early, twice, late, or for nothing, from a seed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from batchers import AsyncioBatcher, Batcher, ThreadingBatcher

LIVES = 30


class RestlessCondition(threading.Condition):
    """It wakes without a reason, before its time, and others along with the one that is meant."""

    chance = random.Random(0)

    def wait(self, timeout: float | None = None) -> bool:
        deed = self.chance.random()
        if deed < 0.2:
            return super().wait(0)  # for nothing
        if deed < 0.4 and timeout is not None:
            return super().wait(timeout * self.chance.random())  # early
        return super().wait(timeout)

    def notify(self, n: int = 1) -> None:
        super().notify(n + self.chance.choice([0, 0, 1, 5]))
        if self.chance.random() < 0.2:
            super().notify(n)  # twice


class RestlessLoop(asyncio.SelectorEventLoop):
    """Its timers ring early, and what comes from other threads comes in another turn."""

    chance = random.Random(0)

    def call_later(  # type: ignore[override]  # any arguments
        self, delay: float, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        if self.chance.random() < 0.5:
            delay *= self.chance.random()
        return super().call_later(delay, callback, *args, **more)

    def call_soon_threadsafe(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.Handle:
        if self.chance.random() < 0.3:
            return super().call_soon_threadsafe(self.call_soon, callback, *args, **more)
        return super().call_soon_threadsafe(callback, *args, **more)


class RestlessThreads(ThreadingBatcher[int, int]):
    """A batcher with such conditions."""

    _condition = RestlessCondition


@pytest.mark.parametrize("kind", [RestlessThreads, AsyncioBatcher])
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("seed", range(LIVES))
@pytest.mark.usefixtures("threads_switch_always")
def test_every_call_ends(kind: type[Batcher[int, int]], flavour: str, seed: int) -> None:
    """Each with its own answer, its error, or as cancelled; no batch is too large; nothing is left."""
    chance = random.Random(seed)
    RestlessCondition.chance = RestlessLoop.chance = random.Random(seed + 1)
    sizes: list[int] = []

    def process(items: list[int]) -> list[int]:
        sizes.append(len(items))
        if any(item % 29 == 7 for item in items):
            raise ValueError(items)
        return [item * 2 for item in items]

    async def process_async(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return process(items)

    async def scenario() -> None:
        function = process if flavour == "sync" else process_async
        batcher = kind(
            function,
            max_batch_size=5,
            concurrency=chance.choice([1, 3]),
            max_queue_time=chance.choice([None, 0.001]),
            timeout=30.0,
            batch_timeout=30.0,
        )
        tasks = []
        for item in range(120):
            tasks.append(asyncio.create_task(batcher.process(item)))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                chance.choice(tasks).cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.stop()
        for item, outcome in enumerate(ended):
            if isinstance(outcome, int):
                assert outcome == 2 * item
            else:
                assert isinstance(outcome, (asyncio.CancelledError, ValueError)), outcome
        stats = batcher.stats()
        assert stats.queued == stats.running == stats.batches_in_flight == 0
        assert max(sizes) <= 5

    with asyncio.Runner(loop_factory=RestlessLoop) as runner:
        runner.run(scenario())
