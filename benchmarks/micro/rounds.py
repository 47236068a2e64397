"""Rounds of calls to measure, and the batch functions that they are made to: ones that do nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

CALLS = 4000
"""Calls in one round, shared by the callers."""

LEAST = 16
"""Calls of each caller in one round, at least: so that all are there most of the time."""

BATCH = 64

Process = Callable[[int], Awaitable[int]]
Call = Callable[[int], int]
ForCoroutines = Callable[[], AbstractAsyncContextManager[Process]]
"""Makes what coroutines call, on the loop that they will run on."""
ForThreads = Callable[[], AbstractContextManager[Call]]
"""Makes what threads call."""


def work(items: list[int]) -> list[int]:
    """Answer at once."""
    return items


async def work_async(items: list[int]) -> list[int]:
    """Answer at once."""
    return items


Function = Callable[[list[int]], Any]

FUNCTIONS: dict[str, Function] = {"sync": work, "async": work_async}


def note(benchmark: BenchmarkFixture, group: str, items: int) -> None:
    """Say which rows belong together, and how many items a round has."""
    benchmark.group = group
    benchmark.extra_info["items"] = items


def measure_coroutines(
    benchmark: BenchmarkFixture, make: ForCoroutines, callers: int, calls: int = CALLS, rounds: int = 7
) -> None:
    """Measure coroutines of one loop, each with one call after the other."""
    each = max(calls // callers, LEAST)
    note(benchmark, f"{callers} coroutines", each * callers)

    async def caller(process: Process) -> None:
        for n in range(each):
            await process(n)

    async def round_of(process: Process) -> None:
        await asyncio.gather(*(caller(process) for _ in range(callers)))

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        process = runner.run(stack.enter_async_context(make()))
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            lambda: runner.run(round_of(process)), rounds=rounds, warmup_rounds=2
        )
        runner.run(stack.aclose())


def measure_threads(benchmark: BenchmarkFixture, make: ForThreads, callers: int, calls: int = CALLS) -> None:
    """Measure threads, each with one call after the other, from when all are there until all have finished."""
    each = max(calls // callers, LEAST)
    note(benchmark, f"{callers} threads", each * callers)
    threads: list[threading.Thread] = []
    begin, end = threading.Barrier(callers + 1), threading.Barrier(callers + 1)

    def caller(call: Call) -> None:
        begin.wait()
        for n in range(each):
            call(n)
        end.wait()

    def join() -> None:
        for thread in threads:
            thread.join()
        threads.clear()

    def start(call: Call) -> None:
        join()
        threads.extend(threading.Thread(target=caller, args=(call,)) for _ in range(callers))
        for thread in threads:
            thread.start()

    def round_of() -> None:
        begin.wait()
        end.wait()

    with make() as call:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            round_of, setup=lambda: start(call), rounds=5, warmup_rounds=1
        )
        join()
