"""What a call costs beyond the model: a batch function that does nothing, batches of 64.

Absolute figures belong to the machine; compare rows of one run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from batchers import Batcher, create_batcher

CALLS = 2000
"""Calls in one round, shared by the callers."""


def work(items: list[int]) -> list[int]:
    """Answer at once."""
    return items


async def work_async(items: list[int]) -> list[int]:
    """Answer at once."""
    return items


@pytest.fixture(params=["threading", "asyncio"])
def backend(request: pytest.FixtureRequest) -> str:
    """Give the name of a backend."""
    return str(request.param)


@pytest.fixture(params=["sync", "async"])
def function(request: pytest.FixtureRequest) -> Callable[[list[int]], Any]:
    """Give a batch function."""
    return work if request.param == "sync" else work_async


@pytest.fixture
def batcher(backend: str, function: Callable[[list[int]], Any]) -> Iterator[Batcher[int, int]]:
    """Give a batcher that lives in a loop of its own or in threads, until the end of the benchmark."""
    with create_batcher(backend, function, max_batch_size=64, max_queue_size=-1) as batcher:
        yield batcher


@pytest.mark.parametrize("callers", [1, 64, 1000])
def test_coroutines(
    benchmark: BenchmarkFixture, backend: str, function: Callable[[list[int]], Any], callers: int
) -> None:
    """Coroutines of one loop, each with one call after the other."""
    calls = CALLS // callers

    async def caller(batcher: Batcher[int, int]) -> None:
        for n in range(calls):
            await batcher.process(n)

    async def round_of(batcher: Batcher[int, int]) -> None:
        await asyncio.gather(*(caller(batcher) for _ in range(callers)))

    with asyncio.Runner() as runner:

        def run(work: Coroutine[Any, Any, None]) -> None:
            runner.run(work)

        batcher = create_batcher(backend, function, max_batch_size=64, max_queue_size=-1)
        benchmark.extra_info["items"] = calls * callers
        benchmark.pedantic(lambda: run(round_of(batcher)), rounds=7, warmup_rounds=1)  # type: ignore[no-untyped-call]
        run(batcher.stop())


@pytest.mark.parametrize("callers", [1, 8, 64])
def test_threads(benchmark: BenchmarkFixture, batcher: Batcher[int, int], callers: int) -> None:
    """Threads, each with one call after the other."""
    calls = CALLS // callers

    def caller() -> None:
        for n in range(calls):
            batcher.submit(n).result()

    def round_of() -> None:
        threads = [threading.Thread(target=caller) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    benchmark.extra_info["items"] = calls * callers
    benchmark.pedantic(round_of, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
