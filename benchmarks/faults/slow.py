"""Two hundred clients that send a byte now and then, and one that is normal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from statistics import median, quantiles

from .client import OK, Client, LostError
from .result import Fault, FaultResult
from .servers import Target, serve

SLOW = 200
PAUSE = 0.2
"""Seconds between two bytes."""

SECONDS = 5.0
"""For each half of a round."""


async def be_slow(target: Target, number: int) -> None:
    """Send heads, or bodies, byte by byte, on one connection after the other."""
    data = target.request()
    quick = 0 if number % 2 else data.index(b"\r\n\r\n") + 4
    while True:
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            try:
                writer.write(data[:quick])
                for byte in data[quick:]:
                    if reader.at_eof():
                        break
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(PAUSE)
            finally:
                writer.close()


async def be_normal(target: Target) -> tuple[list[float], int]:
    """Ask for a while; return the seconds of each answer, and how many were not good."""
    client = Client(target.port)
    seconds, bad = [], 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            answer = await client.ask(target.request())
        except LostError:
            answer = None
        if answer is None or answer.status != OK:
            bad += 1
        else:
            seconds.append(time.monotonic() - start)
    client.close()
    return seconds, bad


async def rounds(target: Target, count: int) -> dict[str, float]:
    """Measure without and with slow clients, in turns."""
    alone: list[float] = []
    among: list[float] = []
    failures = 0
    await be_normal(target)
    for _ in range(count):
        seconds, bad = await be_normal(target)
        alone += seconds
        failures += bad
        crowd = [asyncio.create_task(be_slow(target, number)) for number in range(SLOW)]
        await asyncio.sleep(1.0)  # until all are there
        seconds, bad = await be_normal(target)
        among += seconds
        failures += bad
        for task in crowd:
            task.cancel()
        await asyncio.wait(crowd)
    slowest = [quantiles(each, n=100)[-1] for each in (alone, among)]
    return {
        "slow clients": SLOW,
        "normal requests": len(alone) + len(among),
        "failures of these": failures,
        "median alone, ms": 1000 * median(alone),
        "median among slow ones, ms": 1000 * median(among),
        "p99 alone, ms": 1000 * slowest[0],
        "p99 among slow ones, ms": 1000 * slowest[1],
        "p99 among slow ones, against alone": slowest[1] / slowest[0],
    }


def run(fault: Fault) -> FaultResult:
    """Measure so many rounds."""
    with serve(fault.subject) as target:
        return FaultResult(fault=fault, figures=asyncio.run(rounds(target, fault.size)))
