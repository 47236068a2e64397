"""What a call costs beyond the model: a batch function that does nothing, batches of 64.

Beside each backend stands the floor, the same job without any feature, in the same group. Absolute figures
belong to the machine; compare the rows of one group of one run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from batchers import Batcher, create_batcher

from .floor import AsyncioFloor, ThreadsFloor, ThreadsForCoroutinesFloor

pytestmark = pytest.mark.timeout(300)

CALLS = 4000
"""Calls in one round, shared by the callers."""

BATCH = 64


def work(items: list[int]) -> list[int]:
    """Answer at once."""
    return items


async def work_async(items: list[int]) -> list[int]:
    """Answer at once."""
    return items


FUNCTIONS: dict[str, Callable[[list[int]], Any]] = {"sync": work, "async": work_async}


def note(benchmark: BenchmarkFixture, group: str, items: int) -> None:
    """Say which rows belong together, and how many items a round has."""
    benchmark.group = group
    benchmark.extra_info["items"] = items


@pytest.mark.parametrize("callers", [1, 64, 1000])
@pytest.mark.parametrize(
    "side",
    [
        *("asyncio-floor", "asyncio-async", "asyncio-sync"),
        *("threading-floor", "threading-sync", "threading-async"),
    ],
)
def test_coroutines(benchmark: BenchmarkFixture, side: str, callers: int) -> None:
    """Coroutines of one loop, each with one call after the other."""
    backend, _, function = side.partition("-")
    calls = CALLS // callers
    note(benchmark, f"{callers} coroutines", calls * callers)

    async def caller(process: Callable[[int], Awaitable[int]]) -> None:
        for n in range(calls):
            await process(n)

    async def round_of(process: Callable[[int], Awaitable[int]]) -> None:
        await asyncio.gather(*(caller(process) for _ in range(callers)))

    async def make() -> Any:  # noqa: ANN401 - floors and batchers have no common type
        if side == "asyncio-floor":
            return AsyncioFloor(work_async, BATCH)
        if side == "threading-floor":
            return ThreadsForCoroutinesFloor(work, BATCH)
        return create_batcher(backend, FUNCTIONS[function], max_batch_size=BATCH, max_queue_size=-1)

    with asyncio.Runner() as runner:
        made = runner.run(make())
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: runner.run(round_of(made.process)), rounds=7, warmup_rounds=2
        )
        if isinstance(made, Batcher):
            runner.run(made.stop())
        elif isinstance(made, ThreadsForCoroutinesFloor):
            made.close()


@pytest.mark.parametrize("callers", [1, 8, 64, 256])
@pytest.mark.parametrize("side", ["floor", "threading-sync", "threading-async", "asyncio-sync", "asyncio-async"])
def test_threads(benchmark: BenchmarkFixture, side: str, callers: int) -> None:
    """Threads, each with one call after the other."""
    backend, _, function = side.partition("-")
    calls = CALLS // callers
    note(benchmark, f"{callers} threads", calls * callers)
    floor: ThreadsFloor | None = None
    if side == "floor":
        floor = ThreadsFloor(work, BATCH)
        call: Callable[[int], Any] = floor.call
    else:
        batcher = create_batcher(backend, FUNCTIONS[function], max_batch_size=BATCH, max_queue_size=-1)

        def call(item: int) -> int:
            return batcher.submit(item).result()  # type: ignore[no-any-return]

    def caller() -> None:
        for n in range(calls):
            call(n)

    def round_of() -> None:
        threads = [threading.Thread(target=caller) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    benchmark.pedantic(round_of, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    if floor is not None:
        floor.close()
    else:
        batcher.close()


@pytest.mark.parametrize("length", [100, 1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_queue_length(benchmark: BenchmarkFixture, backend: str, length: int) -> None:
    """So many items handed in at once: what one of them costs must not depend on how many there are."""
    rounds = max(100_000 // length, 1)
    note(benchmark, "queue length", length * rounds)
    items = list(range(length))
    with asyncio.Runner() as runner:
        batcher = create_batcher(backend, work_async, max_batch_size=BATCH, max_queue_size=-1)

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
        batcher = create_batcher(backend, work_async, max_batch_size=size, max_queue_size=-1)
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: runner.run(batcher.process_many(items)), rounds=5, warmup_rounds=1
        )
        runner.run(batcher.stop())
