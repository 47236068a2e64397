"""One batcher, shared by threads that do to it, at the same moments, all that threads may do.

pytest-run-parallel runs each test in eight threads at once, several times in each.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for

import pytest

from batchers import Batcher, BatcherStoppedError, DeadlineExceededError, create_batcher

pytestmark = [
    pytest.mark.race,
    pytest.mark.force_parallel_threads(8),
    pytest.mark.iterations(20),
    pytest.mark.usefixtures("threads_switch_always"),
]


def double(items: list[int]) -> list[int]:
    return [2 * item for item in items]


async def double_soon(items: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return [2 * item for item in items]


@pytest.fixture
def shared(backend: str, flavour: str) -> Iterator[Batcher[int, int]]:
    """Give a batcher to all threads of a test."""
    function = double if flavour == "sync" else double_soon
    with create_batcher(backend, function, max_batch_size=3, concurrency=2, max_queue_size=-1) as batcher:
        yield batcher
        stats = batcher.stats()
        assert (stats.queued, stats.running) == (0, 0)


def number() -> int:
    """Return one that no other thread has."""
    return threading.get_ident() * 1000 + random.randrange(1000)


def test_calls(shared: Batcher[int, int]) -> None:
    """Each thread has its own answer."""
    mine = number()
    assert shared.call(mine) == 2 * mine


def test_futures(shared: Batcher[int, int]) -> None:
    """In the order in which the thread asked, and so do coroutines of the thread's own loop."""
    mine = [number() for _ in range(5)]
    futures = [shared.submit(each) for each in mine]

    async def ask() -> list[int]:
        return await asyncio.gather(*map(shared.process, mine))

    assert asyncio.run(ask()) == [2 * each for each in mine]
    assert [future.result() for future in futures] == [2 * each for each in mine]


def test_futures_that_are_cancelled(shared: Batcher[int, int]) -> None:
    """Some are, and no other is."""
    mine = [number() for _ in range(6)]
    futures = [shared.submit(each) for each in mine]
    cancelled = [future.cancel() for future in futures[::2]]
    wait_for(futures)
    for each, future, left in zip(mine[::2], futures[::2], cancelled, strict=True):
        if left:
            with pytest.raises(CancelledError):
                future.result()
        else:
            assert future.result() == 2 * each
    assert [future.result() for future in futures[1::2]] == [2 * each for each in mine[1::2]]


def test_times_that_are_too_short(shared: Batcher[int, int]) -> None:
    """An answer, or an error that says so; never another's answer."""
    mine = number()
    try:
        assert shared.call(mine, timeout=random.random() * 0.001) == 2 * mine
    except DeadlineExceededError:
        assert shared.call(mine) == 2 * mine


def test_books(shared: Batcher[int, int]) -> None:
    """They add up at every moment."""
    future = shared.submit(number())
    stats = shared.stats()
    ended = stats.completed + stats.failed + stats.cancelled + stats.expired + stats.stopped + stats.rejected
    assert stats.submitted == ended + stats.queued + stats.running
    assert "in flight" in shared.dump()
    future.result()
    assert shared.decisions()


def test_lives(backend: str, flavour: str) -> None:
    """Batchers are made, used and closed by many threads; who comes too late is told."""
    function = double if flavour == "sync" else double_soon
    batcher = create_batcher(backend, function, max_batch_size=2)
    futures = [batcher.submit(each) for each in range(5)]
    closer = threading.Thread(target=batcher.close)
    closer.start()
    for each in range(5):
        try:
            assert batcher.call(each) == 2 * each
        except BatcherStoppedError:
            break
    closer.join()
    assert [future.result() for future in futures] == [0, 2, 4, 6, 8]
    with pytest.raises(BatcherStoppedError):
        batcher.submit(1)
