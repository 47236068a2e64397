"""Measure, and report: `python -m benchmarks --help` lists the commands."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from . import report
from .command_line import LONG, PARTS, parser
from .environment import Environment, environment
from .faults import mutants
from .faults import plan as faults_plan
from .faults.equal import why_equal
from .faults.mutants import MutantsResult
from .faults.result import FaultResult
from .fresh import MeasurementError
from .latency import plan as latency_plan
from .latency.run import RateResult
from .latency.run import measure as measure_rate
from .lengths import run as texts
from .lengths.result import TextsResult
from .load import plan as load_plan
from .load.run import Cell, LoadResult
from .load.run import measure as measure_load
from .micro import plan as micro_plan
from .micro.run import MicroResult
from .micro.run import measure as measure_micro
from .peers import plan as peers_plan
from .peers import replicas
from .peers.http import ServerResult
from .peers.http import measure as measure_server
from .peers.replicas import ReplicaResult
from .policies import plan as policies_plan
from .policies.closed_loop import LoopResult
from .policies.closed_loop import measure as measure_loop
from .policies.lengths import LengthsResult
from .policies.lengths import measure as measure_lengths
from .policies.simulated import SimulatedResult
from .policies.simulated import measure as measure_case
from .results import Result, ResultFileError, read, write
from .scale import Scale
from .start import run as start
from .start.run import StartResult
from .theory import command as simulation
from .theory import processes

START_AND_STOP = 6.0
"""Seconds for a server to start and stop, for the estimate."""

SIMULATION, LENGTHS = 6.0, 1.0
"""Seconds for one simulated case with all policies, and for one with lengths, for the estimate."""

LONG_ONES = ("faults/soak", faults_plan.MUTANTS)
"""What takes most of an hour and is measured apart."""

SIMULATIONS = {"simulate": simulation.run, "front-ends": processes.run}
"""What nothing is measured for."""


@dataclass(frozen=True)
class Measurement:
    """One of the plan."""

    name: str
    kind: type[BaseModel]
    seconds: float
    run: Callable[[], BaseModel]
    is_whole: Callable[[Any], bool]
    """Whether a result is one of what is planned, with nothing missing."""


def plan(scale: Scale, port: int | None) -> list[Measurement]:
    """Return all measurements, in order."""
    load = [
        Measurement(
            name,
            LoadResult,
            cell.seconds + START_AND_STOP,
            partial(measure_load, cell, port),
            _is_whole("cell", cell),
        )
        for name, cell in load_plan.cells(scale).items()
    ]
    latency = [
        Measurement(name, RateResult, rate.estimate, partial(measure_rate, rate, port), _is_whole("rate", rate))
        for name, rate in (latency_plan.rates(scale) | policies_plan.rates(scale)).items()
    ]
    micro = [
        Measurement(name, MicroResult, group.seconds, partial(measure_micro, group), _is_whole("group", group))
        for name, group in micro_plan.groups(scale).items()
    ]
    peers = [
        Measurement(
            name,
            ServerResult,
            visit.estimate,
            partial(measure_server, visit.server, visit.seconds),
            _is_whole("server", visit.server),
        )
        for name, visit in peers_plan.visits(scale).items()
    ]
    peers += [
        Measurement(
            name,
            ReplicaResult,
            replicas.SECONDS,
            partial(replicas.measure, variant),
            _is_whole("variant", variant),
        )
        for name, variant in replicas.names(scale).items()
    ]
    simulated = [
        Measurement(name, SimulatedResult, SIMULATION, partial(measure_case, case), _is_whole("case", case))
        for name, case in policies_plan.cases(scale).items()
    ]
    lengths = [
        Measurement(name, LengthsResult, LENGTHS, partial(measure_lengths, case), _is_whole("case", case))
        for name, case in policies_plan.lengths(scale).items()
    ]
    loops = [
        Measurement(name, LoopResult, loop.estimate, partial(measure_loop, loop, port), _is_whole("loop", loop))
        for name, loop in policies_plan.loops(scale).items()
    ]
    faults = [
        Measurement(
            name,
            FaultResult,
            faults_plan.estimate(fault),
            partial(faults_plan.measure, fault),
            _is_whole("fault", fault),
        )
        for name, fault in faults_plan.faults(scale).items()
    ]
    if scale == "full":
        faults.append(
            Measurement(
                faults_plan.MUTANTS,
                MutantsResult,
                mutants.SECONDS,
                partial(mutants.measure, why_equal),
                lambda done: bool(done.made),
            )
        )
    asked = texts.texts(scale)
    embedded = [
        Measurement(
            "lengths/texts",
            TextsResult,
            asked.seconds,
            partial(texts.measure, asked),
            _is_whole("texts", asked),
        )
    ]
    repeats = start.repeats(scale)
    starts = [
        Measurement(
            "start/imports",
            StartResult,
            start.SECONDS * (repeats + 1),
            partial(start.measure, repeats),
            _is_whole("repeats", repeats),
        )
    ]
    return [*load, *latency, *micro, *peers, *simulated, *lengths, *loops, *embedded, *faults, *starts]


def _is_whole(field: str, planned: object) -> Callable[[Any], bool]:
    return lambda done: getattr(done, field) == planned and not getattr(done, "failed", "")


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the status of the process."""
    options = parser().parse_args(arguments)
    console = Console(stderr=True)
    scale: Scale = "quick" if options.quick or options.what == "quick" else "full"
    if options.what == "cell":
        return _measure_cell(options, console)
    if options.what in SIMULATIONS:
        return _simulate(options, console)
    status = 0
    if options.what != "report":
        part = f"{options.what}/" if options.what in PARTS else ""
        planned = (found for found in plan(scale, options.port) if found.name.startswith(part))
        wanted = [found for found in planned if options.only in found.name]
        if options.what in {"all", LONG}:
            wanted = [found for found in wanted if found.name.startswith(LONG_ONES) == (options.what == LONG)]
        runnable = [found for found in wanted if not found.name.startswith("lengths/")]
        if runnable != wanted and options.what != "lengths" and not texts.is_installed():
            console.print(texts.MISSING, markup=False)
            wanted = runnable
        if not wanted:
            hint = f"; soaks and mutants are in `{LONG}`" if options.what == "all" else ""
            console.print(
                f"error: no {scale} measurement has {part}...{options.only} in its name{hint}", markup=False
            )
            return 2
        status = _measure(wanted, scale, console, again=options.again)
    try:
        report.write(scale)
    except ResultFileError as error:
        console.print(f"error: {error}", markup=False)
        status = 1
    return status


def _simulate(options: argparse.Namespace, console: Console) -> int:
    try:
        print(SIMULATIONS[options.what](options))  # noqa: T201 - its result
    except (simulation.SimulationError, processes.NotPositiveError) as error:
        console.print(f"error: {error}", markup=False)
        return 2
    return 0


def _measure_cell(options: argparse.Namespace, console: Console) -> int:
    """Measure one cell, print what came out, and keep nothing."""
    cell = Cell(
        path=options.path,
        backend=options.backend,
        model_call=options.model_call,
        ramp=options.ramp,
        most_users=options.most_users,
        time_scale=options.time_scale,
        workers=options.workers,
        settings=dict(setting.partition("=")[::2] for setting in options.set),
    )
    try:
        with console.status(f"{cell.seconds:.0f} s and the start of the server"):
            measured = measure_load(cell, options.port)
    except MeasurementError as error:
        console.print(f"error: {error}", markup=False)
        return 1
    print(measured.top.model_dump_json(indent=1))  # noqa: T201 - its result
    return 0


def _measure(wanted: list[Measurement], scale: Scale, console: Console, *, again: bool) -> int:
    here = environment()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    failed = 0
    missing = []
    for measurement in wanted:
        try:
            if again or not _is_measured(measurement, scale, here):
                missing.append(measurement)
        except ResultFileError as error:
            console.print(f"error: {measurement.name}: {error}", markup=False)
            failed += 1
    with Progress(*columns, console=console, speed_estimate_period=3600) as progress:
        bar = progress.add_task("starting", total=sum(measurement.seconds for measurement in missing))
        for number, measurement in enumerate(missing, 1):
            progress.update(bar, description=f"{number} of {len(missing)}: {measurement.name}")
            try:
                measured = measurement.run()
                if environment() != here:
                    msg = "the code was changed while it was measured: measure it again"
                    raise MeasurementError(msg)  # noqa: TRY301 - told as all others
                write(Result(name=measurement.name, scale=scale, environment=here, measured=measured))
            except Exception as error:  # noqa: BLE001 - one that fails must not cost the others
                why = error if isinstance(error, MeasurementError) else repr(error)
                console.print(f"error: {measurement.name}: {why}", markup=False)
                failed += 1
            progress.advance(bar, measurement.seconds)
    return 1 if failed else 0


def _is_measured(measurement: Measurement, scale: Scale, here: Environment) -> bool:
    found = read(measurement.name, scale, measurement.kind)
    return found is not None and found.environment == here and measurement.is_whole(found.measured)


if __name__ == "__main__":
    # Servers and users are ended on the way out, so SIGTERM has to take that way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
