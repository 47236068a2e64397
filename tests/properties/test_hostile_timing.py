"""The random lives again, with threads and loops that wake early, twice, late, or for nothing, from a seed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from batchers import (
    AsyncioBatcher,
    Batcher,
    BatcherError,
    BatcherStoppedError,
    DeadlineExceededError,
    QueueFullError,
)
from tests.support.restless import (
    Failing,
    FailingLoop,
    RestlessCondition,
    RestlessLoop,
    RestlessThreads,
    RestlessWorkers,
    make_restless,
)

LIVES = 30


def double(items: list[int]) -> list[int]:
    return [item * 2 for item in items]


async def double_soon(items: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return double(items)


def some_batcher(
    kind: type[Batcher[int, int]], function: Callable[[list[int]], Any], chance: random.Random
) -> Batcher[int, int]:
    """Return one with small limits, or others."""
    return kind(
        function,
        max_batch_size=5,
        concurrency=chance.choice([1, 3]),
        max_queue_time=chance.choice([None, 0.001]),
        max_queue_size=chance.choice([1000, 8]),
        timeout=chance.choice([30.0, 0.01]),
        batch_timeout=30.0,
    )


FIRST = {"thread": 1, "wait": 4, "task": 4, "timer": 4, "timer and turn": 4, "turn": 8, "queue": 8, "tell": 8}
"""How many calls of a kind there are in each life, at least: one of them fails."""


@pytest.mark.parametrize("kind", [RestlessThreads, AsyncioBatcher])
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("seed", range(LIVES))
@pytest.mark.usefixtures("threads_switch_always")
def test_every_call_ends(
    kind: type[Batcher[int, int]], flavour: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own answer, its error, or as cancelled; no batch is too large; nothing is left."""
    chance = random.Random(seed)
    make_restless(monkeypatch, seed + 1)
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
        batcher = some_batcher(kind, function, chance)
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


@pytest.mark.parametrize("kind", [RestlessThreads, AsyncioBatcher])
@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("seed", range(LIVES))
@pytest.mark.usefixtures("threads_switch_always")
def test_every_call_of_threads_ends(
    kind: type[Batcher[int, int]], flavour: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside coroutines, so that the asyncio backend has a loop in a thread of its own: the same."""
    chance = random.Random(seed)
    make_restless(monkeypatch, seed + 1)
    batcher = some_batcher(kind, double if flavour == "sync" else double_soon, chance)
    stops = chance.random() < 0.3
    ended: list[tuple[int, object]] = []

    def call(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        futures = []
        for item in range(1000 * number, 1000 * number + 30):
            try:
                if chance.random() < 0.5:
                    ended.append((item, batcher.call(item)))
                else:
                    futures.append((item, batcher.submit(item)))
                    if chance.random() < 0.2:
                        chance.choice(futures)[1].cancel()
            except BatcherError as error:
                ended.append((item, error))
        for item, future in futures:
            try:
                ended.append((item, future.result()))
            except (BatcherError, CancelledError) as error:
                ended.append((item, error))

    async def ask() -> None:
        items = range(30)
        found = await asyncio.gather(*(batcher.process(item) for item in items), return_exceptions=True)
        ended.extend(zip(items, found, strict=True))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    with asyncio.Runner(loop_factory=RestlessLoop) as runner:
        runner.run(ask())
    if stops:
        batcher.close(force=chance.random() < 0.5)
    for thread in threads:
        thread.join()
    batcher.close()
    assert sorted(item for item, _ in ended) == [
        1000 * number + place for number in range(4) for place in range(30)
    ]
    causes = (CancelledError, QueueFullError, DeadlineExceededError, BatcherStoppedError)
    for item, outcome in ended:
        assert outcome == 2 * item or isinstance(outcome, causes), outcome
        assert stops or not isinstance(outcome, BatcherStoppedError)
    stats = batcher.stats()
    assert stats.queued == stats.running == stats.batches_in_flight == 0


@pytest.mark.parametrize(
    ("kind", "function", "fails"),
    [
        (RestlessThreads, double, "thread"),
        (RestlessThreads, double_soon, "thread"),
        (RestlessThreads, double, "wait"),
        (RestlessThreads, double_soon, "wait"),
        # An async function runs on its callers' loop, and a sync one in no task.
        (AsyncioBatcher, double, "thread"),
        (AsyncioBatcher, double_soon, "task"),
        (AsyncioBatcher, double, "timer"),
        (AsyncioBatcher, double_soon, "timer"),
        (AsyncioBatcher, double, "timer and turn"),
        (AsyncioBatcher, double_soon, "timer and turn"),
        (AsyncioBatcher, double, "turn"),
        (AsyncioBatcher, double, "queue"),
        (AsyncioBatcher, double, "tell"),
        (RestlessThreads, double, "tell"),
        (RestlessThreads, double_soon, "tell"),
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
    make_restless(monkeypatch, seed + 1)
    failing = Failing(chance.randrange(FIRST[fails]), times=2 if fails == "timer and turn" else 1)
    FailingLoop.kind, FailingLoop.failing = fails, failing
    if fails == "wait":
        monkeypatch.setattr(RestlessCondition, "failing", failing)
    if fails == "queue":
        monkeypatch.setattr(RestlessWorkers, "failing", failing)
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
