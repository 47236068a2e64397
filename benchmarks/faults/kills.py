"""kill -9 of one of two workers under load, and the same load without it. Each request has a new connection."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.fresh import MeasurementError

from .client import OK, Client, LostError
from .result import Fault, FaultResult
from .servers import Target, serve

ROWS = 2
"""In a batch, so that one worker alone can serve half of what two do."""

CLIENTS = 200
"""So many that both workers are busy however unevenly the kernel spreads connections over them."""

SETTLING, BEFORE, BACK, AFTER = 2.0, 4.0, 2.0, 8.0
"""Seconds until rates are counted, then until the kill; after it until the rate is to be full, and to the end."""


@dataclass(frozen=True)
class Life:
    """What the clients of one server saw."""

    moments: list[float]
    """Of good answers, in seconds from the moment of the kill."""

    its_own: int = 0
    """Requests that failed on the victim's connections."""

    others: int = 0
    """Requests that failed on others."""

    def rate(self, start: float, end: float) -> float:
        """Return the answers a second between two moments."""
        return sum(start <= moment < end for moment in self.moments) / (end - start)


async def load(target: Target, *, kills: bool) -> Life:
    """Load a server, and kill a worker of it, or none, on the way."""
    moments: list[float] = []
    victims: set[int] = set()
    failed = {True: 0, False: 0}
    moment = time.monotonic() + SETTLING + BEFORE

    async def ask() -> None:
        client = Client(target.port)
        while time.monotonic() < moment + AFTER:
            client.close()  # a new worker gets new connections only
            try:
                answer = await client.ask(target.request())
            except LostError:
                answer = None
            if answer is None:
                failed[client.last_port in victims] += 1
            elif answer.status == OK:
                moments.append(time.monotonic() - moment)
            else:
                failed[False] += 1
        client.close()

    async def kill() -> None:
        await asyncio.sleep(moment - time.monotonic())
        victim = max(target.workers(), key=lambda worker: len(worker.net_connections()))
        victim.suspend()  # so that it accepts nothing between the look and its end
        victims.update(found.raddr.port for found in victim.net_connections() if found.raddr)
        victim.kill()

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(ask())
        if kills:
            group.create_task(kill())
    if kills and not victims:
        msg = "the worker that was killed had no connection"
        raise MeasurementError(msg)
    return Life(moments, failed[True], failed[False])


def run(fault: Fault) -> FaultResult:
    """Kill a worker of so many servers, each followed by one of which none is killed."""
    killed: list[Life] = []
    whole: list[Life] = []
    fewest = 2
    for _ in range(fault.size):
        for kills, lives in (True, killed), (False, whole):
            with serve(fault.subject, rows=ROWS, workers=2) as target:
                lives.append(asyncio.run(load(target, kills=kills)))
                fewest = min(fewest, len(target.workers()))
    return FaultResult(fault=fault, figures=figures_of(killed, whole) | {"workers at the end, fewest": fewest})


def figures_of(killed: list[Life], whole: list[Life]) -> dict[str, float]:
    """Return what the kills did, and what happened without any."""
    return {
        "kills": len(killed),
        "answered": sum(len(life.moments) for life in killed),
        "failed, of the victim's connections": sum(life.its_own for life in killed),
        "failed, of others": sum(life.others for life in killed),
        "rate within 2 s, against before": share(killed, 0.0, BACK),
        "rate from 2 s to 8 s, against before": share(killed, BACK, AFTER),
        "slowest of these seconds, mean of all kills": slowest(killed),
        "from 2 s to 8 s, nothing killed": share(whole, BACK, AFTER),
        "slowest of these seconds, nothing killed": slowest(whole),
    }


def share(lives: list[Life], start: float, end: float) -> float:
    """Return the rate of all lives together between two moments, as a share of that before the kill."""
    return sum(life.rate(start, end) for life in lives) / sum(life.rate(-BEFORE, 0.0) for life in lives)


def slowest(lives: list[Life]) -> float:
    """Return the lowest rate of a second from that on in which it is to be full, of all lives together."""
    return min(share(lives, second, second + 1) for second in range(round(BACK), round(AFTER)))
