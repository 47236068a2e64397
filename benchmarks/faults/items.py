"""Very many items through one batcher: does memory grow? `python -m benchmarks.faults.items FAULT`."""

from __future__ import annotations

import asyncio
import gc
import sys
import time

import psutil

from .lives import Life, Limits, begin
from .result import Fault, FaultResult

CALLERS = 64
LOOKS = 10
"""At memory, evenly over the items."""

SECONDS = 1200
"""For one run."""


async def call_all(life: Life, items: int) -> None:
    """Send so many items from `CALLERS` coroutines, each with one after the other."""

    async def caller(count: int) -> None:
        for number in range(count):
            await life.call(number, None)

    await asyncio.gather(*(caller(items // CALLERS) for _ in range(CALLERS)))


async def look_at(fault: Fault) -> list[int]:
    """Return the resident bytes after each tenth of the items."""

    async def echo(items: list[int]) -> list[int]:
        return items

    life = begin(fault.subject, echo, Limits(rows=256, queue=1024, concurrency=1))
    process = psutil.Process()
    looks = []
    for _ in range(LOOKS):
        await call_all(life, fault.size // LOOKS)
        gc.collect()
        looks.append(process.memory_info().rss)
    await life.stop(force=False)
    return looks


def run(fault: Fault) -> FaultResult:
    """Send so many items."""
    start = time.monotonic()
    looks = asyncio.run(look_at(fault))
    figures = {
        "million items": fault.size / 1e6,
        "minutes": (time.monotonic() - start) / 60,
        "memory after the first tenth, MB": looks[0] / 1e6,
        "growth until the end, MB": (looks[-1] - looks[0]) / 1e6,
    }
    return FaultResult(fault=fault, figures=figures)


if __name__ == "__main__":
    print(run(Fault.model_validate_json(sys.argv[1])).model_dump_json())  # noqa: T201 - its result
