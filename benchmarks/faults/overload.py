"""Ten times the capacity, by an open loop; and clients that retry when they are refused."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
from collections import Counter
from statistics import median, quantiles
from typing import Any

from benchmarks.fresh import MeasurementError

from .client import GAVE_UP, OK, Client, LostError, Seen, open_loop
from .result import OURS, Fault, FaultResult
from .servers import Target, serve

ROWS = 2
"""In a batch: 181 rows a second are then all that the emulated model can do, and ten times that can be sent."""

QUEUE = 64
TIMES = 10
PATIENCE = 2.0
"""Seconds after which a client leaves."""

CALM_SECONDS = 6
CALM = 0.5
"""The load before and after, as a share of the capacity."""

PART, TENTH = 0.5, 0.1
"""Seconds of a part of the calm, and the share of its requests that tells it from calm."""

RETRIERS = (50, 100, 200, 400, 800)
"""Numbers of clients that ask again and again."""

REST = 0.001
"""Seconds between two attempts of a client that does not wait: one that never rests would only load itself."""


async def closed_loop(target: Target, clients: int, seconds: float, *, waits: bool) -> tuple[int, int]:
    """Ask from so many clients, each again and again; return the good answers and all attempts.

    `waits`: whether a client that is refused waits as long as Retry-After says.
    """
    end = time.monotonic() + seconds
    good, attempts = 0, 0

    async def ask() -> None:
        nonlocal good, attempts
        client = Client(target.port)
        while time.monotonic() < end:
            attempts += 1
            try:
                answer = await client.ask(target.request())
            except LostError:
                answer = None
            if answer is not None and answer.status == OK:
                good += time.monotonic() < end
                continue
            pause = float(answer.headers.get("retry-after", "0")) if answer is not None and waits else REST
            await asyncio.sleep(min(pause, max(end - time.monotonic(), 0)))
        client.close()

    await asyncio.gather(*(ask() for _ in range(clients)))
    return good, attempts


def run(fault: Fault) -> FaultResult:
    """Overload a server for so many seconds."""
    with serve(fault.subject, rows=ROWS, BATCHER_MAX_QUEUE_SIZE=str(QUEUE)) as target:
        gc.disable()  # a collection of what is kept of 100 000 requests would be in the latencies
        try:
            return FaultResult(fault=fault, figures=asyncio.run(overload(target, fault)))
        finally:
            gc.enable()


async def overload(target: Target, fault: Fault) -> dict[str, float]:
    """Load it as it can bear, then ten times as much as it can serve, then as before."""
    await closed_loop(target, 4 * ROWS, 1.0, waits=False)
    before = target.usage()
    good, _ = await closed_loop(target, 4 * ROWS, CALM_SECONDS, waits=False)
    capacity = good / CALM_SECONDS
    busy = (target.usage().cpu_seconds - before.cpu_seconds) / CALM_SECONDS
    calm_batches = await decisions(target)
    data = target.request()
    calm = await open_loop(target.port, CALM * capacity, CALM_SECONDS, fault.seed, data=data)
    # What it needs for so many connections is no growth.
    await open_loop(target.port, TIMES * capacity, 5.0, fault.seed, data=data, patience=PATIENCE)
    start = target.usage()
    memory = asyncio.create_task(look_at_memory(target))
    loads = asyncio.create_task(
        open_loop(target.port, TIMES * capacity, fault.size, fault.seed, data=data, patience=PATIENCE)
    )
    await asyncio.sleep(fault.size)  # what was sent by then is still answered while it is calm again
    memory.cancel()
    end = target.usage()
    batches = await decisions(target)
    looks = await memory
    again = CALM * capacity, CALM_SECONDS, fault.seed + 1
    after = await open_loop(target.port, *again, data=data, patience=PATIENCE)
    seen = await loads
    in_time = sum(answer.status == OK and answer.moment + answer.seconds <= fault.size for answer in seen.answers)
    refused = len(seen.refusals)
    figures: dict[str, float] = {
        "seconds": fault.size,
        "capacity, answers/s": capacity,
        "sent/s": len(seen.answers) / fault.size,
        "answered, share of the capacity": in_time / fault.size / capacity,
        "refused with 503": refused,
        "without Retry-After, of these": sum(not refusal.retry_after for refusal in seen.refusals),
        "clients that left after 2 s": seen.statuses[GAVE_UP],
        "no answer, or another": len(seen.answers) - len(seen.latencies) - refused - seen.statuses[GAVE_UP],
    }
    if seen.latencies:
        p99 = quantiles(seen.latencies, n=100)[-1]
        figures["p99 of answers, s"] = p99
        figures["p99 / (queue time + 2 batches)"] = p99 / ((QUEUE + 2 * ROWS) / capacity)
    if batches:
        figures["from batch to batch, while it was calm, ms"] = 1000 * interval(calm_batches)
        figures["from batch to batch, ms"] = 1000 * interval(batches)
    if refused:
        figures["a refusal takes, median, ms"] = 1000 * median(refusal.seconds for refusal in seen.refusals)
        spent = (end.cpu_seconds - start.cpu_seconds) / fault.size - busy
        figures["processor time of a refusal, ms"] = 1000 * spent * fault.size / refused
    quarter = looks[len(looks) // 4 :]
    figures["memory grew after the first quarter, MB"] = (quarter[-1] - quarter[0]) / 1e6
    figures["until latencies are as before, s"] = recovery(calm, after)
    return figures


async def decisions(target: Target) -> list[dict[str, Any]]:
    """Return the last decisions of a server; of a peer's: none."""
    if target.subject not in OURS:
        return []
    client = Client(target.port)
    answer = await client.ask(b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
    client.close()
    if answer is None or answer.status != OK:
        msg = f"no statistics: {answer}"
        raise MeasurementError(msg)
    return list(json.loads(answer.body)["decisions"])


def interval(decisions: list[dict[str, Any]]) -> float:
    """Return the mean seconds from the start of a batch to the start of the next one."""
    return float(decisions[-1]["time"] - decisions[0]["time"]) / (len(decisions) - 1)


async def look_at_memory(target: Target) -> list[int]:
    """Return the resident bytes of every second until this is cancelled."""
    looks: list[int] = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            looks.append(target.usage().resident_bytes)
            await asyncio.sleep(1.0)
    return looks


def recovery(calm: Seen, after: Seen) -> float:
    """Return the seconds to the end of the last part in which a tenth of the requests, or more, went wrong.

    That is: not answered, or slower than twice the p99 before.
    """
    limit = 2 * quantiles(calm.latencies, n=100)[-1]
    bad: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    for answer in after.answers:
        part = int(answer.moment / PART)
        sent[part] += 1
        bad[part] += answer.status != OK or answer.seconds > limit
    return max((PART * (part + 1) for part, number in sent.items() if bad[part] >= TENTH * number), default=0.0)


def storm(fault: Fault) -> FaultResult:
    """Let clients that were refused come again, for so many seconds each: at once, and when they were told."""
    with serve(fault.subject, rows=ROWS, BATCHER_MAX_QUEUE_SIZE=str(QUEUE)) as target:
        figures = asyncio.run(both_storms(target, fault.size))
    return FaultResult(fault=fault, figures=figures)


async def both_storms(target: Target, seconds: int) -> dict[str, float]:
    """Return what both kinds of clients got."""
    await closed_loop(target, 4 * ROWS, 1.0, waits=False)
    good, _ = await closed_loop(target, 4 * ROWS, CALM_SECONDS, waits=False)
    capacity = good / CALM_SECONDS
    figures: dict[str, float] = {"seconds for each number of clients": seconds}
    for number in RETRIERS:
        for waits in (False, True):
            good, attempts = await closed_loop(target, number, seconds, waits=waits)
            answered, asked = words_of(number, waits=waits)
            figures[answered] = good / seconds / capacity
            figures[asked] = attempts / max(good, 1)
    return figures


def words_of(clients: int, *, waits: bool) -> tuple[str, str]:
    """Return the names of two figures: what share of the capacity is answered, and the attempts for an answer."""
    how = "wait as Retry-After says" if waits else "come again at once"
    return (
        f"{clients} clients that {how}: answered, share of the capacity",
        f"{clients} clients that {how}: attempts for an answer",
    )
