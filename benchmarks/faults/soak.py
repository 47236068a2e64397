"""A long life under load: `python -m benchmarks.faults.soak --minutes 20`, or `make soak`.

An open loop of 70 % of what the emulated model can serve in batches of 8; one batch in ten fails, and every
twentieth client leaves before its answer. What the server holds is shown as it goes. The command ends with 1 when
memory, descriptors, threads or tasks have grown, when a request got no answer, or when anything waits at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import httpx
import psutil
from rich.console import Console

from .client import FAULT_ROW, Client, LostError, Seen, open_loop
from .result import OURS, Fault, FaultResult
from .servers import Target, serve, tau

ROWS = 8
RATE = 0.7 * ROWS / tau(ROWS)
"""Requests a second."""

LEAVING = RATE / 20
"""Clients a second that leave."""

INTERVAL = 10.0
"""Seconds between two looks."""

GROWTH = 5.0
"""MB by which memory may grow after the first quarter."""

SETTLING, LOOK_SECONDS = 50, 0.1
"""Looks at descriptors until they are steady, and the seconds between."""

DRIFT = 1.1
"""The p99 of the last quarter over that of the first, at most."""

MORE = 8
"""Descriptors, threads and tasks that may be in use at one look and not at another."""


@dataclass(frozen=True)
class Look:
    """What a server held, and how it answered since the look before."""

    memory: float
    """MB."""

    descriptors: int
    threads: int
    tasks: int
    seen: Seen

    @property
    def p99(self) -> float:
        """Seconds, of the answers with 200."""
        found = self.seen.latencies
        return quantiles(found, n=100)[-1] if len(found) > 1 else float("nan")

    @property
    def others(self) -> int:
        """Answers that are neither a prediction nor the failure of a batch."""
        got = self.seen.statuses
        return got.total() - got[200] - got[500] - got[0]


async def leave_now_and_then(target: Target, seconds: float) -> None:
    """Send requests whose clients leave before the answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client = Client(target.port)
        task = asyncio.create_task(client.ask(target.request(FAULT_ROW)))
        await asyncio.wait((task,), timeout=0.005)
        client.reset()
        await asyncio.wait((task,))
        if not task.cancelled() and not isinstance(task.exception(), LostError | None):
            task.result()
        await asyncio.sleep(1 / LEAVING)


async def load(target: Target, seconds: float, seed: int) -> Seen:
    """Load the server until the next look."""
    seen, _ = await asyncio.gather(
        open_loop(target.port, RATE, seconds, seed, data=target.request(FAULT_ROW)),
        leave_now_and_then(target, seconds),
    )
    return seen


def looks_at(target: Target, fault: Fault) -> Iterator[Look]:
    """Load the server, and look at it again and again."""
    process = psutil.Process(target.process.pid)
    count = max(round(fault.size / INTERVAL), 4)
    for number in range(count):
        seen = asyncio.run(load(target, fault.size / count, fault.seed + number))
        _settle(process)
        yield Look(
            process.memory_info().rss / 1e6,
            process.num_fds(),
            process.num_threads(),
            int(_get(target, "/tasks")),
            seen,
        )


def _settle(process: psutil.Process) -> None:
    """Wait until the server has seen that the clients of this part have left."""
    before = -1
    for _ in range(SETTLING):
        now = process.num_fds()
        if now == before:
            return
        before = now
        time.sleep(LOOK_SECONDS)


def _get(target: Target, path: str) -> Any:  # noqa: ANN401 - JSON
    return httpx.get(f"http://127.0.0.1:{target.port}{path}", timeout=10.0).json()


def run(fault: Fault, console: Console | None = None) -> FaultResult:
    """Load a server for so many seconds, and say on a console what it holds."""
    looks: list[Look] = []
    head = "time, s    200    500    503   lost   p99, ms   memory, MB   descriptors   threads   tasks"
    if console is not None:
        console.print(head)
    start = time.monotonic()
    with serve(fault.subject, rows=ROWS, fault="tenth") as target:
        for look in looks_at(target, fault):
            looks.append(look)
            if console is not None:
                got = look.seen.statuses
                console.print(
                    f"{time.monotonic() - start:7.0f} {got[200]:6} {got[500]:6} {got[503]:6} {got[0]:6} "
                    f"{1000 * look.p99:9.1f} {look.memory:12.1f} {look.descriptors:13} {look.threads:9} "
                    f"{look.tasks:7}"
                )
        stats = _get(target, "/stats")
    return FaultResult(
        fault=fault, figures=figures_of(looks, fault) | {"items that wait at the end": waits(stats)}
    )


def waits(stats: dict[str, Any]) -> float:
    """Return the items that wait or run."""
    return float(stats["queued"] + stats["running"])


def figures_of(looks: list[Look], fault: Fault) -> dict[str, float]:
    """Return what has grown between the end of the first quarter and the end of the run."""
    quarter = len(looks) // 4
    first, last = looks[quarter], looks[-1]
    early, late = (median(look.p99 for look in part) for part in (looks[:quarter], looks[-quarter:]))
    return {
        "minutes": fault.size / 60,
        "answered": sum(len(look.seen.latencies) for look in looks),
        "failed with their batch": sum(look.seen.statuses[500] for look in looks),
        "no answer": sum(look.seen.lost for look in looks),
        "other answers": sum(look.others for look in looks),
        "memory after a quarter, MB": first.memory,
        "growth of memory since, MB": last.memory - first.memory,
        "growth of descriptors": last.descriptors - first.descriptors,
        "growth of threads": last.threads - first.threads,
        "growth of tasks": last.tasks - first.tasks,
        "p99 of the first quarter, ms": 1000 * early,
        "p99 of the last quarter, ms": 1000 * late,
        "p99 of the last quarter, against the first": late / early,
    }


LIMITS = {
    "no answer": 0,
    "other answers": 0,
    "growth of memory since, MB": GROWTH,
    "growth of descriptors": MORE,
    "growth of threads": MORE,
    "growth of tasks": MORE,
    "p99 of the last quarter, against the first": DRIFT,
    "items that wait at the end": 0,
}


def main() -> int:
    """Soak both backends, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="for each backend")
    parser.add_argument("--backend", choices=OURS, action="append")
    options = parser.parse_args()
    console = Console(width=120)
    failed = False
    for backend in options.backend or OURS:
        console.print(f"{backend}, {options.minutes:g} minutes")
        found = run(Fault(scenario="soak", subject=backend, size=round(60 * options.minutes)), console).figures
        wrong = [f"{name}: {found[name]:g}" for name, most in LIMITS.items() if found[name] > most]
        console.print(f"{backend}: {', '.join(wrong) or 'flat'}", markup=False)
        failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
