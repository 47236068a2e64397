"""kill -9 of one of two workers under load."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from dataclasses import dataclass
from statistics import median

from benchmarks.fresh import MeasurementError

from .client import OK, Client, LostError
from .result import Fault, FaultResult
from .servers import Target, serve

CLIENTS = 20
BEFORE, AFTER = 3.0, 6.0
"""Seconds of load before and after."""

BIN = 0.2
"""Seconds over which a rate is counted."""

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
        while time.monotonic() < end:
            port = client.local_port
            try:
                answer = await client.ask(target.request())
            except LostError:
                failed[port in its_own] += 1
                continue
            if answer is None:
                failed[port in its_own] += 1
            elif answer.status == OK:
                moments.append(time.monotonic())
            else:
                failed[False] += 1
        client.close()

    async def kill() -> float:
        await asyncio.sleep(BEFORE)
        victim = target.workers()[0]
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

    def over(self, start: float, seconds: float = BIN) -> float:
        """Return the rate of so many seconds."""
        return (bisect_right(self.moments, start + seconds) - bisect_right(self.moments, start)) / seconds

    @property
    def before(self) -> float:
        """The rate before the kill."""
        return self.over(self.killed - BEFORE / 2, BEFORE / 2 - BIN)

    @property
    def return_seconds(self) -> float:
        """Seconds from the kill to the end of the last window of `BIN` seconds that was too slow."""
        windows = range(round(AFTER / BIN) - 1)
        slow = [number for number in windows if self.over(self.killed + number * BIN) < FULL * self.before]
        return (slow[-1] + 1) * BIN if slow else 0.0

    @property
    def share_in_the_end(self) -> float:
        """The rate of the last second but a bit, against that before."""
        return self.over(self.killed + AFTER - 1.0 - BIN, 1.0) / self.before


def run(fault: Fault) -> FaultResult:
    """Kill a worker of so many servers."""
    answered, its_own, others = 0, 0, 0
    rates = []
    for _ in range(fault.size):
        with serve(fault.subject, workers=2) as target:
            moments, killed, lost, strange = asyncio.run(load(target))
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
        "rate 5 s later, against before": median(rate.share_in_the_end for rate in rates),
    }
    return FaultResult(fault=fault, figures=figures)
