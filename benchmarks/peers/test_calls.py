"""What a call costs with other libraries, on the same rounds as `benchmarks/micro`.

Each peer is imported by its own case: one that is not installed fails alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.rounds import (
    BATCH,
    Call,
    ForCoroutines,
    ForThreads,
    Process,
    measure_coroutines,
    measure_threads,
    work,
    work_async,
)

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # theirs, not ours
]

WINDOW_CALLS = 200
"""Calls in a round with few callers, where batches wait for a window of 5 or 10 ms."""


@asynccontextmanager
async def async_batcher(**options: float) -> AsyncIterator[Process]:
    """Make async-batcher's batcher; its default window is 10 ms."""
    from async_batcher.batcher import AsyncBatcher  # noqa: PLC0415

    class Echo(AsyncBatcher[int, int]):  # type: ignore[misc]
        async def process_batch(self, batch: list[int]) -> list[int]:
            return batch

    batcher = Echo(max_batch_size=BATCH, **options)
    yield batcher.process
    await batcher.stop()


@asynccontextmanager
async def async_batcher_without_window() -> AsyncIterator[Process]:
    """Make one that waits for nothing."""
    async with async_batcher(max_queue_time=0) as process:
        yield process


@asynccontextmanager
async def batched_async(timeout_ms: float = 5.0) -> AsyncIterator[Process]:
    """Make batched's asyncio processor; its default window is 5 ms."""
    from batched import aio  # noqa: PLC0415

    yield aio.dynamically(work_async, batch_size=BATCH, timeout_ms=timeout_ms)


@asynccontextmanager
async def batched_async_without_window() -> AsyncIterator[Process]:
    """Make one that waits for nothing."""
    async with batched_async(0.0) as process:
        yield process


@asynccontextmanager
async def aiodataloader() -> AsyncIterator[Process]:
    """Make a loader without its cache."""
    from aiodataloader import DataLoader  # noqa: PLC0415

    yield DataLoader(work_async, max_batch_size=BATCH, cache=False).load


@asynccontextmanager
async def bentoml() -> AsyncIterator[Process]:
    """Make the dispatcher that BentoML's services use, with its default latency limit."""
    from bentoml._internal.marshal.dispatcher import CorkDispatcher  # noqa: PLC0415

    async def call(items: Any) -> Any:  # noqa: ANN401 - whatever it hands over
        return items

    dispatcher = CorkDispatcher(
        max_latency_in_ms=60_000, max_batch_size=BATCH, fallback=lambda: None, get_batch_size=lambda _: 1
    )
    yield dispatcher(call)
    dispatcher.shutdown()


@contextmanager
def batched_threads(timeout_ms: float = 5.0) -> Iterator[Call]:
    """Make batched's thread processor; its default window is 5 ms."""
    import batched  # noqa: PLC0415

    processor = batched.dynamically(work, batch_size=BATCH, timeout_ms=timeout_ms)
    yield processor
    processor.shutdown()


@contextmanager
def batched_threads_without_window() -> Iterator[Call]:
    """Make one that waits for nothing."""
    with batched_threads(0.0) as call:
        yield call


WITHOUT_WINDOW: dict[str, ForCoroutines] = {
    "async-batcher": async_batcher_without_window,
    "batched": batched_async_without_window,
    "aiodataloader": aiodataloader,
    "bentoml": bentoml,
}
WITH_WINDOW: dict[str, ForCoroutines] = {"async-batcher": async_batcher, "batched": batched_async}
THREADS: dict[str, ForThreads] = {"batched": batched_threads_without_window}
THREADS_WITH_WINDOW: dict[str, ForThreads] = {"batched": batched_threads}


@pytest.mark.parametrize("callers", [1, 64, 1000])
@pytest.mark.parametrize("peer", WITHOUT_WINDOW)
def test_coroutines(benchmark: BenchmarkFixture, peer: str, callers: int) -> None:
    """Coroutines of one loop, each with one call after the other; no window where there is one."""
    measure_coroutines(benchmark, WITHOUT_WINDOW[peer], callers)


@pytest.mark.parametrize("callers", [1, 64, 1000])
@pytest.mark.parametrize("peer", WITH_WINDOW)
def test_coroutines_default_window(benchmark: BenchmarkFixture, peer: str, callers: int) -> None:
    """The same with the window that the library has unless it is told otherwise."""
    measure_coroutines(benchmark, WITH_WINDOW[peer], callers, WINDOW_CALLS, rounds=3)


@pytest.mark.parametrize("callers", [1, 8, 64, 256])
@pytest.mark.parametrize("peer", THREADS)
def test_threads(benchmark: BenchmarkFixture, peer: str, callers: int) -> None:
    """Threads, each with one call after the other."""
    measure_threads(benchmark, THREADS[peer], callers)


@pytest.mark.parametrize("callers", [1, 8, 64, 256])
@pytest.mark.parametrize("peer", THREADS_WITH_WINDOW)
def test_threads_default_window(benchmark: BenchmarkFixture, peer: str, callers: int) -> None:
    """The same with the window that the library has unless it is told otherwise."""
    measure_threads(benchmark, THREADS_WITH_WINDOW[peer], callers, WINDOW_CALLS)
