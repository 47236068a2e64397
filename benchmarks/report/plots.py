"""Pictures, readable in colour and in grey, with the machine in the caption.

Each carries the fingerprint of its results, so that a test sees when it is older than they are.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, get_args

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.faults.overload import RETRIERS, words_of
from benchmarks.faults.result import FaultResult
from benchmarks.latency.result import Run, pooled
from benchmarks.latency.run import RateResult
from benchmarks.load.run import BOUNDS, Backend, LoadResult
from benchmarks.peers.http import ServerResult
from benchmarks.policies.simulated import POLICIES as ALL_POLICIES
from benchmarks.policies.simulated import SimulatedResult
from benchmarks.results import Result

mpl.use("agg")

COMPARISON = "load__comparison.png"
AGAINST_RATE = "latency__against_load.png"
POLICIES = "policies__any_load.png"
SERVERS = "peers__requests_per_second.png"
RETRIES = "faults__retries.png"

STYLES = {"threading": ("tab:blue", "-", "o"), "asyncio": ("tab:orange", "--", "s")}
"""Colour, line and marker: any one of them tells the backends apart."""

SOURCE = "Source"
"""The name of the fingerprint in the file."""


def fingerprint(files: Iterable[Path]) -> str:
    """Return what changes when one of the files does."""
    summed = hashlib.sha256()
    for file in files:
        summed.update(file.read_bytes())
    return summed.hexdigest()


def _save(figure: Figure, caption: str, file: Path, source: str) -> None:
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, 0.03, 1, 0.97))  # room for the caption
    figure.text(0.01, 0.005, caption, fontsize=6, color="0.35")
    figure.savefig(file, dpi=110, metadata={SOURCE: source})


def over_time(result: Result[LoadResult], file: Path, source: str) -> None:
    """Draw requests and failures, latencies, and users, over the time of one measurement."""
    seconds = result.measured.seconds
    times = range(len(seconds))
    figure = Figure(figsize=(10, 8), layout="constrained")
    rates, latencies, users = figure.subplots(3, 1, sharex=True)
    cell = result.measured.cell
    batcher = "" if cell.path == "/predict" else f", backend {cell.backend}"
    rates.set_title(f"{cell.path}{batcher}, {cell.model_call} model: what {cell.most_users} users saw")
    rates.plot(times, [found.requests for found in seconds], "-", color="tab:green", label="requests/s")
    rates.plot(times, [found.failures for found in seconds], "--", color="tab:red", label="failures/s")
    rates.set_ylabel("requests per second")
    latencies.plot(times, [_ms(found.mean) for found in seconds], "-", color="tab:blue", label="mean")
    latencies.plot(times, [_ms(found.p95) for found in seconds], ":", color="tab:purple", label="95th percentile")
    latencies.set_ylabel("latency, ms")
    users.plot(times, [found.users for found in seconds], "-", color="0.3", label="users")
    users.set_ylabel("users")
    users.set_xlabel("time, s")
    for axes in (rates, latencies, users):
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="upper left")
    _save(figure, f"{result.scale}; {result.environment.caption}", file, source)


def _ms(seconds: float | None) -> float:
    return float("nan") if seconds is None else 1000 * seconds


def comparison(results: Sequence[Result[LoadResult]], file: Path, source: str) -> None:
    """Draw the distribution of latencies with all users there, for each model call, both backends in one."""
    calls = sorted({result.measured.cell.model_call for result in results})
    figure = Figure(figsize=(10, 3.2 * len(calls)), layout="constrained")
    for axes, call in zip(figure.subplots(len(calls), 1, sharex=True, squeeze=False)[:, 0], calls, strict=True):
        for result in results:
            if result.measured.cell.model_call == call:
                _distribution(axes, result.measured)
        axes.set_title(f"{call} model")
        axes.set_ylabel("slower requests, share")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(loc="lower left", fontsize=8)
    axes.set_xlabel("latency, ms")
    environment = results[0].environment
    _save(figure, f"{results[0].scale}; {environment.caption}", file, source)


def _distribution(axes: Axes, measured: LoadResult) -> None:
    counts = measured.top.histogram
    total, slower = sum(counts), sum(counts)
    shares = []
    for count in counts[:-1]:
        slower -= count
        shares.append(slower / total if slower else float("nan"))
    cell = measured.cell
    colour, line, marker = ("tab:green", ":", "^") if cell.path == "/predict" else STYLES[cell.backend]
    label = cell.path if cell.path == "/predict" else cell.backend
    axes.plot([1000 * bound for bound in BOUNDS], shares, line, color=colour, marker=marker, ms=3, label=label)


def against_rate(results: Sequence[Result[RateResult]], file: Path, source: str) -> None:
    """Draw latencies, batch sizes and failures against the load, for each kind of load, both backends in one."""
    families = dict.fromkeys(_family(result) for result in results)
    figure = Figure(figsize=(3.4 * len(families), 9), layout="constrained")
    grid = figure.subplots(3, len(families), sharex="col", sharey="row", squeeze=False)
    for column, family in enumerate(families):
        ours = [result.measured for result in results if _family(result) == family]
        latencies, sizes, failures = grid[:, column]
        for backend in get_args(Backend):
            colour, line, marker = STYLES[backend]
            rates = [found.rate.rate for found in ours]
            runs = [found.runs[backend] for found in ours]
            look: dict[str, Any] = {"color": colour, "ls": line, "marker": marker, "ms": 4}
            middle = [_middle(each, "mean") for each in runs]
            low = [1000 * min(pooled(each, "mean").values, default=float("nan")) for each in runs]
            high = [1000 * max(pooled(each, "mean").values, default=float("nan")) for each in runs]
            latencies.plot(rates, middle, label=f"{backend}, mean", **look)
            latencies.fill_between(rates, low, high, color=colour, alpha=0.2, lw=0)
            slow = [_middle(each, "p99") for each in runs]
            latencies.plot(rates, slow, label=f"{backend}, p99", **look | {"ls": ":", "mfc": "none"})
            sizes.plot(rates, [fmean(run.batches.mean for run in each) for each in runs], label=backend, **look)
            shares = [100 * pooled(each, "failed_share").middle for each in runs]
            failures.plot(rates, shares, label=backend, **look)
        latencies.set_title(family)
        latencies.set_yscale("log")
        failures.set_xlabel("calls per second")
        for axes in grid[:, column]:
            axes.grid(visible=True, which="both", alpha=0.2)
    for axes, label in zip(grid[:, 0], ("latency, ms", "items in a batch, mean", "failures, %"), strict=True):
        axes.set_ylabel(label)
        axes.legend(fontsize=7)
    _save(figure, f"{results[0].scale}; {results[0].environment.caption}", file, source)


def _middle(runs: Sequence[Run], field: str) -> float:
    found = pooled(runs, field)
    return 1000 * found.middle if found.values else float("nan")


def _family(result: Result[RateResult]) -> str:
    return result.name.removeprefix("latency/").rpartition("-")[0]


def servers(results: Mapping[str, Sequence[Result[ServerResult]]], file: Path, source: str) -> None:
    """Draw what each server answers, against the number of connections."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    lines = itertools.cycle(itertools.product(("-", "--", ":"), "os^vDPX*"))
    for (name, repeats), (line, marker) in zip(results.items(), lines, strict=False):
        loads = [load for result in repeats for load in result.measured.loads]
        if loads:
            numbers = sorted({load.connections for load in loads})
            rates = [median(load.rate for load in loads if load.connections == number) for number in numbers]
            axes.plot(numbers, rates, line, marker=marker, ms=5, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("connections")
    axes.set_ylabel("requests per second")
    axes.set_title("The same model behind each server, loaded by wrk")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    first = next(iter(results.values()))[0]
    _save(figure, f"{first.scale}; {first.environment.caption}", file, source)


def policies(results: Mapping[str, Result[SimulatedResult]], file: Path, source: str) -> None:
    """Draw every fixed setting and Adaptive: the mean of the open loop, and the throughput of the closed one."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = itertools.cycle(itertools.product(("--", ":", "-."), "s^vDPX"))
    for policy in ALL_POLICIES:
        line, marker = ("-", "o") if policy == "adaptive" else next(lines)
        look: dict[str, Any] = {"ls": line, "marker": marker, "ms": 4, "lw": 2.2 if policy == "adaptive" else 1.2}
        opened = _along(results, "original-poisson-")
        means = [found.policies[policy].mean / found.theory["best_mean"] for _, found in opened]
        left.plot([rate for rate, _ in opened], means, label=policy, **look)
        closed = _along(results, "original-clients-")
        shares = [found.policies[policy].throughput / found.theory["throughput_bound"] for _, found in closed]
        right.plot([clients for clients, _ in closed], shares, label=policy, **look)
    left.set_title("Open loop: mean latency against the best possible")
    left.set_xlabel("items per second")
    left.set_ylim(0.95, 2.0)
    right.set_title("Closed loop: throughput against the bound")
    right.set_xlabel("clients")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize=8)
    first = next(iter(results.values()))
    _save(
        figure,
        f"{first.scale}; simulated: a = 10.99 ms, b = 0.01 ms, 200 items; commit {first.environment.commit}",
        file,
        source,
    )


def retries(results: Mapping[str, Result[FaultResult]], file: Path, source: str) -> None:
    """Draw what is answered of clients that come again at once, and of clients that wait as they are told."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for backend, result in results.items():
        colour, _, marker = STYLES[backend]
        for waits, line in ((False, ":"), (True, "-")):
            label = f"{backend}, {'wait as told' if waits else 'at once'}"
            for place, axes in enumerate((left, right)):
                values = [result.measured.figures[words_of(number, waits=waits)[place]] for number in RETRIERS]
                axes.plot(RETRIERS, values, line, color=colour, marker=marker, ms=5, label=label)
    left.set_ylabel("answered, share of the capacity")
    left.set_ylim(bottom=0)
    right.set_ylabel("attempts for an answer")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("clients")
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize=8)
    figure.suptitle("Clients that were refused come again")
    first = next(iter(results.values()))
    _save(figure, f"{first.scale}; {first.environment.caption}", file, source)


def _along(results: Mapping[str, Result[SimulatedResult]], prefix: str) -> list[tuple[float, SimulatedResult]]:
    """Return the cases of one kind with the number in their source: a rate, or clients."""
    return [
        (float(result.measured.case.source.partition(":")[2]), result.measured)
        for name, result in results.items()
        if name.startswith(prefix)
    ]
