"""SIGTERM at random moments under load, to one process and to a server with two workers."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections import Counter

from .client import OK, Client, LostError
from .result import OURS, Fault, FaultResult
from .servers import Target, serve

CLIENTS = 50
ROWS = 8
"""In a batch: a server with 50 clients has requests that wait."""

DRAIN_DELAY = 1.0
GRACE = 5.0
"""Seconds within which a server has to end."""

LONGEST = 1.0
"""Seconds of load before the signal, at most."""


async def load(target: Target, moment: float) -> Counter[str]:
    """Ask from all clients, stop the server at that moment, and go on until everybody was told to leave.

    A client leaves when an answer closes its connection, or when nobody accepts a new one.
    """
    found: Counter[str] = Counter()

    async def ask_until_told() -> None:
        client = Client(target.port)
        while True:
            try:
                answer = await client.ask(target.request())
            except LostError:
                found["accepted, but no answer"] += 1
                return
            if answer is None:
                found["connections refused during the stop"] += 1
                return
            found["answered" if answer.status == OK else f"status {answer.status}"] += 1
            if answer.closes:
                return

    async def stop() -> None:
        await asyncio.sleep(moment)
        target.terminate()

    await asyncio.gather(stop(), *(ask_until_told() for _ in range(CLIENTS)))
    return found


def run(fault: Fault, workers: int) -> FaultResult:
    """Stop so many servers."""
    chance = random.Random(fault.seed)
    found: Counter[str] = Counter()
    slowest, unclean = 0.0, 0
    settings = {"BATCHER_DRAIN_DELAY": str(DRAIN_DELAY)} if fault.subject in OURS else {}
    for _ in range(fault.size):
        with serve(fault.subject, rows=ROWS, workers=workers, **settings) as target:
            moment = chance.uniform(0, LONGEST)
            start = time.monotonic()
            found.update(asyncio.run(load(target, moment)))
            try:
                _, status = target.wait()
            except subprocess.TimeoutExpired:
                status = -1
            slowest = max(slowest, time.monotonic() - start - moment)
            unclean += status != 0
    order = ("answered", "accepted, but no answer", "connections refused during the stop")
    others = sum(count for name, count in found.items() if name not in order)
    figures: dict[str, float] = {"stops": fault.size, **{name: found[name] for name in order}}
    figures |= {"other answers": others, "slowest end, s": slowest, "ended with a status other than 0": unclean}
    return FaultResult(fault=fault, figures=figures)
