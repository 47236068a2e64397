"""`python -m benchmarks quick|all|load|latency|micro|peers|report`: measure what is missing, then report.

An interrupted run goes on where it was: what is in `assets/results` with the same scale and commit is kept.
`--again` measures anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from . import report
from .environment import Environment, environment
from .fresh import MeasurementError
from .latency import plan as latency_plan
from .latency.run import RateResult
from .latency.run import measure as measure_rate
from .load import plan as load_plan
from .load.run import LoadResult
from .load.run import measure as measure_load
from .micro import plan as micro_plan
from .micro.run import MicroResult
from .micro.run import measure as measure_micro
from .peers import plan as peers_plan
from .peers.http import ServerResult
from .peers.http import measure as measure_server
from .results import Result, ResultFileError, read, write
from .scale import Scale

PARTS = ("load", "latency", "micro", "peers")

START_AND_STOP = 6.0
"""Seconds for a server to start and stop, for the estimate."""


@dataclass(frozen=True)
class Measurement:
    """One of the plan."""

    name: str
    kind: type[BaseModel]
    seconds: float
    run: Callable[[], BaseModel]


def plan(scale: Scale, port: int | None) -> list[Measurement]:
    """Return all measurements, in order."""
    load = [
        Measurement(name, LoadResult, cell.seconds + START_AND_STOP, partial(measure_load, cell, port))
        for name, cell in load_plan.cells(scale).items()
    ]
    latency = [
        Measurement(name, RateResult, rate.estimate, partial(measure_rate, rate, port))
        for name, rate in latency_plan.rates(scale).items()
    ]
    micro = [
        Measurement(name, MicroResult, group.seconds, partial(measure_micro, group))
        for name, group in micro_plan.groups(scale).items()
    ]
    peers = [
        Measurement(name, ServerResult, visit.estimate, partial(measure_server, visit.server, visit.seconds))
        for name, visit in peers_plan.visits(scale).items()
    ]
    return [*load, *latency, *micro, *peers]


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the status of the process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=["quick", "all", *PARTS, "report"])
    parser.add_argument("--quick", action="store_true", help="shorter, with fewer users: for a part")
    parser.add_argument("--again", action="store_true", help="measure also what was measured")
    parser.add_argument("--only", default="", help="measurements whose name has this in it")
    parser.add_argument("--port", type=int, default=None, help="of the server under test; default: a free one")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    status = 0
    if options.what != "report":
        scale: Scale = "quick" if options.quick or options.what == "quick" else "full"
        part = f"{options.what}/" if options.what in PARTS else ""
        planned = (found for found in plan(scale, options.port) if found.name.startswith(part))
        wanted = [found for found in planned if options.only in found.name]
        status = _measure(wanted, scale, console, again=options.again)
    try:
        report.write()
    except ResultFileError as error:
        console.print(f"error: {error}", markup=False)
        status = 1
    return status


def _measure(wanted: list[Measurement], scale: Scale, console: Console, *, again: bool) -> int:
    here = environment()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    failed = 0
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("starting", total=len(wanted))
        for measurement in wanted:
            progress.update(bar, description=f"{measurement.name} ({measurement.seconds:.0f} s)")
            try:
                if again or not _is_measured(measurement, scale, here):
                    measured = measurement.run()
                    write(Result(name=measurement.name, scale=scale, environment=here, measured=measured))
            except (MeasurementError, ResultFileError) as error:
                console.print(f"error: {measurement.name}: {error}", markup=False)
                failed += 1
            progress.advance(bar)
    return 1 if failed else 0


def _is_measured(measurement: Measurement, scale: Scale, here: Environment) -> bool:
    found = read(measurement.name, measurement.kind)
    return found is not None and found.scale == scale and found.environment == here


if __name__ == "__main__":
    sys.exit(main())
