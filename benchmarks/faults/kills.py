"""kill -9 of one of two workers under load."""

from __future__ import annotations

import asyncio
import itertools
import time
from bisect import bisect_right
from dataclasses import dataclass

from benchmarks.fresh import MeasurementError

from .client import OK, Client, LostError
from .result import Fault, FaultResult
from .servers import Target, serve

ROWS = 2
"""In a batch, so that one worker alone can serve half of what two do."""

CLIENTS = 20
REQUESTS = 10
"""On one connection: a new worker gets new connections only."""

BEFORE, AFTER = 3.0, 8.0
"""Seconds of load before and after."""

STEP, WINDOW = 0.1, 1.0
"""Seconds between two looks, and over which a rate is counted."""

FULL = 0.9
"""The share of the rate before from which on it is the full rate."""


async def load(target: Target) -> tuple[list[float], float, int, int]:
    """Return the moments of good answers, the moment of the kill, and the requests that failed.

    These are those whose connections were the victim's, and those that had nothing to do with it.
    """
    moments: list[float] = []
    its_own: set[int] = set()
    failed = {True: 0, False: 0}
    end = time.monotonic() + BEFORE + AFTER

    async def ask() -> None:
        client = Client(target.port)
        for number in itertools.count(1):
            if time.monotonic() >= end:
                break
            if number % REQUESTS == 0:
                client.close()
            try:
                answer = await client.ask(target.request())
            except LostError:
                answer = None
            if answer is None:
                failed[client.last_port in its_own] += 1
            elif answer.status == OK:
                moments.append(time.monotonic())
            else:
                failed[False] += 1
        client.close()

    async def kill() -> float:
        await asyncio.sleep(BEFORE)
        victim = max(target.workers(), key=lambda worker: len(worker.net_connections()))
        victim.suspend()  # so that it accepts nothing between the look and its end
        its_own.update(found.raddr.port for found in victim.net_connections() if found.raddr)
        victim.kill()
        return time.monotonic()

    results = await asyncio.gather(kill(), *(ask() for _ in range(CLIENTS)))
    killed = results[0]
    if killed is None:
        msg = "nothing was killed"
        raise MeasurementError(msg)
    return moments, killed, failed[True], failed[False]


@dataclass(frozen=True)
class Rates:
    """Answers a second around a kill."""

    moments: list[float]
    """Of the answers, rising."""
    killed: float

    def over(self, start: float, seconds: float = WINDOW) -> float:
        """Return the rate of so many seconds."""
        return (bisect_right(self.moments, start + seconds) - bisect_right(self.moments, start)) / seconds

    @property
    def before(self) -> float:
        """The rate before the kill."""
        return self.over(self.killed - BEFORE / 2, BEFORE / 2)

    @property
    def fallen(self) -> float:
        """The lowest rate after it, as a share of that before."""
        return min(self.over(self.killed + start) for start in self._looks()) / self.before

    @property
    def return_seconds(self) -> float:
        """Seconds until the first full window after the slowest; 0: none is slow; `AFTER`: none is full again."""
        looks = self._looks()
        rates = [self.over(self.killed + start) for start in looks]
        lowest = min(range(len(rates)), key=rates.__getitem__)
        if rates[lowest] >= FULL * self.before:
            return 0.0
        return next((looks[n] for n in range(lowest, len(looks)) if rates[n] >= FULL * self.before), AFTER)

    def _looks(self) -> list[float]:
        return [number * STEP for number in range(round((AFTER - WINDOW) / STEP))]


def run(fault: Fault) -> FaultResult:
    """Kill a worker of so many servers."""
    answered, its_own, others, fewest = 0, 0, 0, 2
    rates = []
    for _ in range(fault.size):
        with serve(fault.subject, rows=ROWS, workers=2) as target:
            moments, killed, lost, strange = asyncio.run(load(target))
            fewest = min(fewest, len(target.workers()))
        answered += len(moments)
        its_own += lost
        others += strange
        rates.append(Rates(sorted(moments), killed))
    figures = {
        "kills": fault.size,
        "answered": answered,
        "failed, of the victim's connections": its_own,
        "failed, of others": others,
        "slowest return to 90 % of the rate before, s": max(rate.return_seconds for rate in rates),
        "lowest rate meanwhile, against before": min(rate.fallen for rate in rates),
        "workers at the end, fewest": fewest,
    }
    return FaultResult(fault=fault, figures=figures)
