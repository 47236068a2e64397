"""The random lives again, with threads and loops that wake early, twice, late, or for nothing, from a seed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchers import (
    AsyncioBatcher,
    Batcher,
    BatcherError,
    BatcherStoppedError,
    DeadlineExceededError,
    QueueFullError,
    ThreadingBatcher,
)

LIVES = 30


class RestlessCondition(threading.Condition):
    """It wakes without a reason, before its time or after it, and others along with the one that is meant."""

    chance = random.Random(0)
    failing: Callable[[], None] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        if self.failing is not None:
            self.failing()
        deed = self.chance.random()
        if deed < 0.2:
            return super().wait(0)  # for nothing
        if deed < 0.4 and timeout is not None:
            return super().wait(timeout * self.chance.random())  # early
        woken = super().wait(timeout)
        if deed < 0.6:
            super().wait(0.001)  # late
        return woken

    def notify(self, n: int = 1) -> None:
        super().notify(n + self.chance.choice([0, 0, 1, 5]))
        if self.chance.random() < 0.2:
            super().notify(n)  # twice


class RestlessLoop(asyncio.SelectorEventLoop):
    """Its timers ring early or late, and what comes from other threads comes in another turn."""

    chance = random.Random(0)

    def call_later(  # type: ignore[override]  # any arguments
        self, delay: float, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        deed = self.chance.random()
        if deed < 0.5:
            delay *= self.chance.random()
        elif deed < 0.7:
            delay += 0.002
        return super().call_later(delay, callback, *args, **more)

    def call_soon_threadsafe(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.Handle:
        if self.chance.random() < 0.3:
            return super().call_soon_threadsafe(self.call_soon, callback, *args, **more)
        return super().call_soon_threadsafe(callback, *args, **more)


class Failing:
    """What a machine without memory or threads does: one call of its kind fails in a life, or `times` in a row."""

    def __init__(self, first: int, times: int = 1) -> None:
        self._failing = range(first, first + times)
        self._calls = 0
        self.failed = 0

    def __call__(self) -> None:
        """Fail, if this is one of them."""
        self._calls += 1
        if self._calls - 1 in self._failing:
            self.failed += 1
            raise MemoryError


class FailingLoop(RestlessLoop):
    """It cannot make a task, or a timer, of the library's, once; or neither a timer nor a turn of its own."""

    kind = ""
    failing = Failing(0)

    def create_task(self, coro: Any, **more: Any) -> asyncio.Task[Any]:
        """Make one, for all others at any time."""
        if self.kind == "task" and is_ours(coro.cr_code.co_filename) and coro.__name__ != "process":
            self.failing()
        return super().create_task(coro, **more)

    def call_later(  # type: ignore[override]  # any arguments
        self, delay: float, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        """Set a timer."""
        if self.kind in {"timer", "timer and turn"} and is_of_ours(callback):
            self.failing()
        return super().call_later(delay, callback, *args, **more)

    def call_soon(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.Handle:
        """Let it be called in the next turn."""
        if self.kind == "timer and turn" and self.failing.failed == 1 and is_of_ours(callback):
            self.failing()
        return super().call_soon(callback, *args, **more)


def is_of_ours(callback: Any) -> bool:
    code = getattr(getattr(callback, "__func__", callback), "__code__", None)
    return code is not None and is_ours(code.co_filename)


def is_ours(file: str) -> bool:
    return Path(file).parent.name == "batchers"


def double(items: list[int]) -> list[int]:
    return [item * 2 for item in items]


async def double_soon(items: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return double(items)


FIRST = {"thread": 1, "wait": 4, "task": 4, "timer": 4, "timer and turn": 4}
"""How many calls of a kind there are in each life, at least: one of them fails."""


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
            max_queue_size=chance.choice([1000, 8]),
            timeout=chance.choice([30.0, 0.01]),
            batch_timeout=30.0,
        )
        tasks = []
        stop = chance.choice([None, 90])
        stopping = None
        for item in range(120):
            tasks.append(asyncio.create_task(batcher.process(item)))
            if item == stop:
                stopping = asyncio.create_task(batcher.stop(force=chance.random() < 0.5))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                chance.choice(tasks).cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await (batcher.stop() if stopping is None else stopping)
        causes = (asyncio.CancelledError, ValueError, QueueFullError, DeadlineExceededError, BatcherStoppedError)
        for item, outcome in enumerate(ended):
            if isinstance(outcome, int):
                assert outcome == 2 * item
            else:
                assert isinstance(outcome, causes), outcome
            assert stop is not None or not isinstance(outcome, BatcherStoppedError)
        stats = batcher.stats()
        assert stats.queued == stats.running == stats.batches_in_flight == 0
        assert max(sizes, default=0) <= 5

    with asyncio.Runner(loop_factory=RestlessLoop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize(
    ("kind", "function", "fails"),
    [
        (RestlessThreads, double, "thread"),
        (RestlessThreads, double_soon, "thread"),
        (RestlessThreads, double, "wait"),
        (RestlessThreads, double_soon, "wait"),
        (
            AsyncioBatcher,
            double,
            "thread",
        ),  # an async function runs on its callers' loop, and a sync one in no task
        (AsyncioBatcher, double_soon, "task"),
        (AsyncioBatcher, double, "timer"),
        (AsyncioBatcher, double_soon, "timer"),
        (AsyncioBatcher, double, "timer and turn"),
        (AsyncioBatcher, double_soon, "timer and turn"),
    ],
)
@pytest.mark.parametrize("seed", range(LIVES // 3))
def test_every_call_ends_when_something_fails_once(
    kind: type[Batcher[int, int]],
    function: Callable[[list[int]], Any],
    fails: str,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread does not start, or there is no memory for a task, a timer or a wait: nobody waits for ever."""
    chance = random.Random(seed)
    RestlessCondition.chance = RestlessLoop.chance = random.Random(seed + 1)
    failing = Failing(chance.randrange(FIRST[fails]), times=2 if fails == "timer and turn" else 1)
    FailingLoop.kind, FailingLoop.failing = fails, failing
    if fails == "wait":
        monkeypatch.setattr(RestlessCondition, "failing", failing)
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if fails == "thread":
            try:
                failing()
            except MemoryError:
                msg = "can't start new thread"
                raise RuntimeError(msg) from None
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)

    async def scenario() -> None:
        batcher = kind(function, max_batch_size=5, concurrency=2, max_queue_time=0.001, timeout=30.0)
        ended = []
        for _ in range(10):
            calls = [batcher.process(item) for item in range(chance.randrange(1, 12))]
            ended += list(enumerate(await asyncio.gather(*calls, return_exceptions=True)))
        await batcher.stop()
        for item, outcome in ended:
            assert outcome == 2 * item or isinstance(outcome, (BatcherError, MemoryError)), outcome
        stats = batcher.stats()
        assert stats.queued == stats.running == stats.batches_in_flight == 0

    with asyncio.Runner(loop_factory=FailingLoop) as runner:
        runner.run(scenario())
    assert failing.failed == (2 if fails == "timer and turn" else 1)
