"""Open loop inside one process: `python -m benchmarks.latency.inside JSON`, with a `Load` in the JSON.

The batch function takes the time of the emulated model, with the interpreter free.
"""

from __future__ import annotations

import asyncio
import sys
import time

import psutil

from batchers import Adaptive, BatcherOptions, Greedy, create_batcher
from benchmarks.theory.fit import fit
from server.model import Emulated

from .open_loop import offer
from .result import Load, Run, sizes_of, summarise


async def main(load: Load) -> Run:
    """Measure."""
    model = Emulated()

    def predict(rows: list[list[float]]) -> list[object]:
        return list(model.predict(rows))

    limits: BatcherOptions = {
        "max_batch_size": load.max_batch_size,
        "max_queue_size": load.max_queue_size,
        "policy": Adaptive() if load.policy == "adaptive" else Greedy(),
    }
    async with create_batcher(load.backend, predict, **limits) as batcher:

        async def call() -> None:
            await batcher.process([0.5] * 10)

        before = time.process_time()
        seen = await offer(load.arrivals, call)
        used = time.process_time() - before
        stats = batcher.stats()
        line = fit((start.items, start.seconds) for start in batcher.decisions())
    sizes = sizes_of(stats.batch_size.counts, stats.batch_size.total)
    return summarise(load.arrivals, seen, sizes, used, psutil.Process().memory_info().rss, line)


if __name__ == "__main__":
    print(asyncio.run(main(Load.model_validate_json(sys.argv[1]))).model_dump_json())  # noqa: T201 - its result
