"""The real asyncio backend, in virtual time, does what the simulator says."""

from __future__ import annotations

import asyncio
import random
from itertools import islice
from typing import Any

import pytest

from batchers import Adaptive, AsyncioBatcher, Greedy, Options, Policy, Window
from benchmarks.theory.bounds import Line
from benchmarks.theory.simulator import Bursts, Recorded, Service, simulate
from tests.support.clocks import VirtualLoop

LINE = Line(0.01099, 0.00001, 200)


@pytest.mark.parametrize("policy", [Greedy(), Window(0.005), Adaptive()], ids=repr)
@pytest.mark.parametrize("slots", [1, 3])
def test_the_same_batches(policy: Policy, slots: int) -> None:
    """The same arrivals give the same batches for the same reasons, and the same latencies."""
    times = tuple(islice(Bursts(100, 2000, 0.2).arrivals(random.Random(5)), 1500))
    options: dict[str, Any] = {"policy": policy, "max_batch_size": 20, "concurrency": slots, "max_queue_size": -1}
    simulated = simulate(Options(**options), Service(LINE), Recorded(times), items=len(times), warm_up=0.0)
    loop = VirtualLoop()
    latencies: list[float] = []

    class Virtual(AsyncioBatcher[int, int]):
        _clock = staticmethod(loop.time)

        async def process_batch(self, batch: list[int]) -> list[int]:
            await asyncio.sleep(LINE.tau(len(batch)))
            return batch

    async def caller(batcher: Virtual, number: int) -> None:
        start = loop.time()
        assert await batcher.process(number) == number
        latencies.append(loop.time() - start)

    async def main() -> dict[Any, int]:
        async with Virtual(**options) as batcher:
            start = loop.time()
            tasks = []
            for number, time in enumerate(times):
                await asyncio.sleep(start + time - loop.time())
                tasks.append(asyncio.create_task(caller(batcher, number)))
            await asyncio.gather(*tasks)
            return dict(batcher.stats().reasons)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        reasons = runner.run(main())

    assert {reason: number for reason, number in reasons.items() if number} == simulated.reasons
    assert sum(latencies) / len(latencies) == pytest.approx(simulated.mean, rel=1e-6)
