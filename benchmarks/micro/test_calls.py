"""What a call costs beyond the model: a batch function that does nothing, batches of 64.

Beside each backend stands the floor, the same job without any feature, in the same group. Absolute figures
belong to the machine; compare the rows of one group of one run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from batchers import BatcherOptions, create_batcher

from .floor import AsyncioFloor, ThreadsFloor, ThreadsForCoroutinesFloor
from .rounds import (
    BATCH,
    FUNCTIONS,
    Call,
    ForCoroutines,
    ForThreads,
    Function,
    Process,
    measure_coroutines,
    measure_threads,
    note,
    work,
    work_async,
)

pytestmark = pytest.mark.timeout(300)

NATURAL: dict[str, Function] = {"threading": work, "asyncio": work_async}
"""The kind of function that each backend calls without another's help."""

LIMITS: BatcherOptions = {"max_batch_size": BATCH, "max_queue_size": -1}


@asynccontextmanager
async def asyncio_floor() -> AsyncIterator[Process]:
    """Make the floor of the asyncio backend."""
    yield AsyncioFloor(work_async, BATCH).process


@asynccontextmanager
async def threading_floor() -> AsyncIterator[Process]:
    """Make the floor of the threading backend."""
    floor = ThreadsForCoroutinesFloor(work, BATCH)
    yield floor.process
    floor.close()


def for_coroutines(backend: str, function: str) -> ForCoroutines:
    """Return the maker of a batcher."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Process]:
        async with create_batcher(backend, FUNCTIONS[function], **LIMITS) as batcher:
            yield batcher.process

    return make


@contextmanager
def threads_floor() -> Iterator[Call]:
    """Make the floor of the threading backend, for threads."""
    floor = ThreadsFloor(work, BATCH)
    yield floor.call
    floor.close()


def for_threads(backend: str, function: str) -> ForThreads:
    """Return the maker of a batcher."""

    @contextmanager
    def make() -> Iterator[Call]:
        with create_batcher(backend, FUNCTIONS[function], **LIMITS) as batcher:
            yield batcher.call

    return make


BATCHERS = [("asyncio", "async"), ("asyncio", "sync"), ("threading", "async"), ("threading", "sync")]

COROUTINES: dict[str, ForCoroutines] = {
    "asyncio-floor": asyncio_floor,
    "threading-floor": threading_floor,
    **{f"{backend}-{function}": for_coroutines(backend, function) for backend, function in BATCHERS},
}

THREADS: dict[str, ForThreads] = {
    "floor": threads_floor,
    **{f"{backend}-{function}": for_threads(backend, function) for backend, function in BATCHERS},
}


@pytest.mark.parametrize("callers", [1, 64, 1000])
@pytest.mark.parametrize("side", COROUTINES)
def test_coroutines(benchmark: BenchmarkFixture, side: str, callers: int) -> None:
    """Coroutines of one loop, each with one call after the other."""
    measure_coroutines(benchmark, COROUTINES[side], callers)


@pytest.mark.parametrize("callers", [1, 8, 64, 256])
@pytest.mark.parametrize("side", THREADS)
def test_threads(benchmark: BenchmarkFixture, side: str, callers: int) -> None:
    """Threads, each with one call after the other."""
    measure_threads(benchmark, THREADS[side], callers)


@pytest.mark.parametrize("length", [100, 1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_queue_length(benchmark: BenchmarkFixture, backend: str, length: int) -> None:
    """So many items handed in at once: what one of them costs must not depend on how many there are."""
    rounds = max(100_000 // length, 1)
    note(benchmark, "queue length", length * rounds)
    items = list(range(length))
    with asyncio.Runner() as runner:
        batcher = create_batcher(backend, NATURAL[backend], max_batch_size=BATCH, max_queue_size=-1)

        async def some() -> None:
            for _ in range(rounds):
                await batcher.process_many(items)

        benchmark.pedantic(lambda: runner.run(some()), rounds=3, warmup_rounds=0)  # type: ignore[no-untyped-call]
        runner.run(batcher.stop())


@pytest.mark.parametrize("size", [1, 16, 256, 4096])
@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_batch_size(benchmark: BenchmarkFixture, backend: str, size: int) -> None:
    """Ten thousand items in batches of at most so many: what is paid once for a batch is shared by its items."""
    length = 10_000
    note(benchmark, "batch size", length)
    items = list(range(length))
    with asyncio.Runner() as runner:
        batcher = create_batcher(backend, NATURAL[backend], max_batch_size=size, max_queue_size=-1)
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: runner.run(batcher.process_many(items)), rounds=5, warmup_rounds=1
        )
        runner.run(batcher.stop())
