"""The real backends, in virtual time, do what the simulator says."""

from __future__ import annotations

import asyncio
import random
from itertools import islice
from typing import Any

import pytest

from batchers import Adaptive, AsyncioBatcher, BatcherStats, Greedy, Options, Policy, Window
from batchers.drivers.asyncio_driver import AsyncioDriver
from benchmarks.theory.bounds import Line
from benchmarks.theory.simulator import Bursts, Recorded, Service, simulate
from tests.support.clocks import ThreadTime, VirtualLoop

LINE = Line(0.01099, 0.00001, 200)


POLICIES = [Greedy(), Window(0.005), Adaptive()]


class Script:
    """The same arrivals for a backend and for the simulator."""

    def __init__(self, policy: Policy, slots: int) -> None:
        self.times = tuple(islice(Bursts(100, 2000, 0.2).arrivals(random.Random(5)), 1500))
        self.options: dict[str, Any] = {
            "policy": policy,
            "max_batch_size": 20,
            "concurrency": slots,
            "max_queue_size": -1,
        }

    def check(self, stats: BatcherStats, latencies: list[float]) -> None:
        """Compare what came out: the same batches for the same reasons, and the same latencies."""
        simulated = simulate(
            Options(**self.options),
            Service(LINE),
            Recorded(self.times),
            items=len(self.times),
            warm_up=0.0,
        )
        assert {reason: number for reason, number in stats.reasons.items() if number} == simulated.reasons
        assert len(latencies) == simulated.items
        assert sum(latencies) / len(latencies) == pytest.approx(simulated.mean, rel=1e-6)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("slots", [1, 3])
def test_asyncio(policy: Policy, slots: int) -> None:
    """In an event loop whose waiting takes no time."""
    script = Script(policy, slots)
    loop = VirtualLoop()
    latencies: list[float] = []

    class VirtualDriver(AsyncioDriver[int, int]):
        clock = staticmethod(loop.time)

    class Virtual(AsyncioBatcher[int, int]):
        _Batcher__batchers_driver_type = VirtualDriver

        async def process_batch(self, batch: list[int]) -> list[int]:
            await asyncio.sleep(LINE.tau(len(batch)))
            return batch

    async def caller(batcher: Virtual, number: int) -> None:
        start = loop.time()
        assert await batcher.process(number) == number
        latencies.append(loop.time() - start)

    async def main() -> BatcherStats:
        async with Virtual(**script.options) as batcher:
            start = loop.time()
            tasks = []
            for number, time in enumerate(script.times):
                await asyncio.sleep(start + time - loop.time())
                tasks.append(asyncio.create_task(caller(batcher, number)))
            await asyncio.gather(*tasks)
            return batcher.stats()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        script.check(runner.run(main()), latencies)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("slots", [1, 3])
def test_threading(policy: Policy, slots: int) -> None:
    """With threads whose Condition wakes when the test's clock says so."""
    script = Script(policy, slots)
    world = ThreadTime()
    latencies: list[float] = []

    async def main() -> None:
        batcher = world.make(list, lambda batch: LINE.tau(len(batch)), **script.options)
        for number, time in enumerate(script.times):
            await world.advance(time - world.now())
            future = batcher.submit(number)
            future.add_done_callback(lambda _, start=time: latencies.append(world.now() - start))  # type: ignore[misc]
        await world.advance(1.0)
        script.check(batcher.stats(), latencies)
        batcher.close()

    world.run(main())
