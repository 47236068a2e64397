"""A long life under load: `python -m tests.faults.soak --minutes 20`, or `make soak`.

Open-loop load of 70 % of what the emulated model can serve in batches of 8, one batch in ten fails, and every
twentieth client leaves before its answer. What the server holds is shown as it goes; the process ends with 1
if memory, descriptors or threads have grown, if a request got no answer, or if anything still waits at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from statistics import quantiles

import psutil
from rich.console import Console

from tests.faults.tools import Client, open_loop, request
from tests.support.server import Server, serve

CAPACITY = 8 / (0.011 + 8 * 0.00001)
SHARE = 0.7
INTERVAL = 10.0
"""Seconds between two looks."""

GROWTH = 5_000_000
"""Bytes by which memory may grow after the first quarter."""

MORE = 8
"""Descriptors and threads that may be in use at one look and not at another."""


async def leave_now_and_then(port: int, seconds: float) -> None:
    """Send requests whose clients leave before the answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client = Client(port)
        task = asyncio.create_task(client.ask(request()))
        await asyncio.wait((task,), timeout=0.005)
        client.reset()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()
        await asyncio.sleep(1 / (SHARE * CAPACITY / 20))


async def soak(server: Server, minutes: float, console: Console) -> list[str]:
    """Load the server for so long; return what is wrong."""
    process = psutil.Process(server.process.pid)
    looks: list[tuple[int, int, int]] = []
    lost = 0
    count = max(round(60 * minutes / INTERVAL), 4)
    console.print("  time, s   200      500      503   lost   p99, ms   memory, MB   descriptors   threads")
    for look in range(count):
        load = open_loop(server.port, SHARE * CAPACITY, INTERVAL, look)
        seen, _ = await asyncio.gather(load, leave_now_and_then(server.port, INTERVAL))
        lost += seen.lost
        looks.append((process.memory_info().rss, process.num_fds(), process.num_threads()))
        p99 = quantiles(seen.latencies, n=100)[-1] if len(seen.latencies) > 1 else float("nan")
        memory, descriptors, threads = looks[-1]
        console.print(
            f"{(look + 1) * INTERVAL:9.0f} {seen.statuses[200]:6} {seen.statuses[500]:8} {seen.statuses[503]:8} "
            f"{seen.lost:6} {1000 * p99:9.1f} {memory / 1e6:12.1f} {descriptors:13} {threads:9}"
        )
    stats = await server.stats()
    settled = looks[len(looks) // 4 :]
    wrong = []
    if settled[-1][0] - settled[0][0] > GROWTH:
        wrong.append(f"memory grew by {(settled[-1][0] - settled[0][0]) / 1e6:.1f} MB")
    wrong += [
        f"{name} grew from {settled[0][place]} to {settled[-1][place]}"
        for place, name in ((1, "descriptors"), (2, "threads"))
        if settled[-1][place] > settled[0][place] + MORE
    ]
    if lost:
        wrong.append(f"{lost} requests got no answer")
    if stats["queued"] or stats["running"]:
        wrong.append(f"{stats['queued']} items wait and {stats['running']} run at the end")
    return wrong


def main() -> int:
    """Soak both backends, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="for each backend")
    parser.add_argument("--backend", choices=["threading", "asyncio"], action="append")
    options = parser.parse_args()
    console = Console(width=120)
    failed = False
    for backend in options.backend or ["threading", "asyncio"]:
        console.print(f"{backend}, {options.minutes:g} minutes")
        settings = {"MODEL_CALL": "emulated", "BATCHER_MAX_BATCH_SIZE": "8", "FAULT": "tenth"}
        app = "tests.faults.faulty:app"
        with serve(app=app, BATCHER_BACKEND=backend, **settings) as server:
            wrong = asyncio.run(soak(server, options.minutes, console))
        console.print(f"{backend}: {'; '.join(wrong) or 'flat'}", markup=False)
        failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
