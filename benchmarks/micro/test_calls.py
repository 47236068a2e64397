"""What a call costs beyond the model: a batch function that does nothing, batches of 64.

Beside each backend stands the floor, the same job without any feature, in the same group. Absolute figures
belong to the machine; compare the rows of one group of one run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from batchers import Batcher, BatcherOptions, create_batcher

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


MANY: dict[str, ForCoroutines] = {
    "asyncio": COROUTINES["asyncio-async"],
    "threading": COROUTINES["threading-sync"],
    "asyncio-floor": asyncio_floor,
    "threading-floor": threading_floor,
}


@pytest.mark.parametrize("length", [100, 1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("side", MANY)
def test_queue_length(benchmark: BenchmarkFixture, side: str, length: int) -> None:
    """So many items submitted at once: what one of them costs must not depend on how many there are.

    By `process_many`; the floors know calls of one item only.
    """
    rounds = max(100_000 // length, 1)
    note(benchmark, "queue length", length * rounds)
    items = list(range(length))

    async def all_of(process: Process) -> None:
        many = getattr(getattr(process, "__self__", None), "process_many", None)
        for _ in range(rounds):
            if many is not None:
                await many(items)
            else:
                for waiting in [process(item) for item in items]:
                    await waiting

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        process = runner.run(stack.enter_async_context(MANY[side]()))
        benchmark.pedantic(lambda: runner.run(all_of(process)), rounds=3, warmup_rounds=0)  # type: ignore[no-untyped-call]
        runner.run(stack.aclose())


@pytest.mark.parametrize("length", [1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_cancelled(benchmark: BenchmarkFixture, backend: str, length: int) -> None:
    """So many items wait, 99 of 100 callers leave, the others are served."""
    rounds = max(10_000 // length, 1)
    note(benchmark, "99 % cancelled", length * rounds)

    async def all_of(process: Process) -> None:
        for _ in range(rounds):
            calls: list[Any] = [process(item) for item in range(length)]
            waiting = [call.send(None) for call in calls]  # each has handed in its item; no task is needed
            for number, call in enumerate(calls):
                if number % 100:
                    with suppress(asyncio.CancelledError):
                        call.throw(asyncio.CancelledError())
            await asyncio.wait(waiting[::100])
            for call in calls[::100]:
                with suppress(StopIteration):
                    call.send(None)

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        process = runner.run(stack.enter_async_context(MANY[backend]()))
        benchmark.pedantic(lambda: runner.run(all_of(process)), rounds=3, warmup_rounds=0)  # type: ignore[no-untyped-call]
        runner.run(stack.aclose())


@pytest.mark.parametrize("number", [1, 100, 10_000])
@pytest.mark.parametrize("kind", ["groups", "priorities", "deadlines"])
@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_kinds(benchmark: BenchmarkFixture, backend: str, kind: str, number: int) -> None:
    """Ten thousand items with so many different groups, priorities or deadlines.

    The batches are as many with all numbers: of one item for groups, of 64 for the others.
    """
    length = 10_000
    note(benchmark, kind, length)
    limits: BatcherOptions = {**LIMITS, "max_batch_size": 1 if kind == "groups" else BATCH}
    if kind == "groups":
        limits["group_by"] = lambda item: item % number
    options: list[dict[str, Any]] = [
        {"priority": item % number} if kind == "priorities" else {"timeout": 3600.0 + item % number}
        for item in range(length)
    ]

    async def some(batcher: Batcher[int, int]) -> None:
        if kind == "groups":
            await batcher.process_many(range(length))
        else:
            await asyncio.gather(*(batcher.process(item, **options[item]) for item in range(length)))

    with asyncio.Runner() as runner:
        batcher = create_batcher(backend, NATURAL[backend], **limits)
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: runner.run(some(batcher)), rounds=5, warmup_rounds=1
        )
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
