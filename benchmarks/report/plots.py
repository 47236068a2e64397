"""Pictures of load measurements, readable in colour and in grey, with the machine in the caption.

Each carries the fingerprint of its results, so that a test sees when it is older than they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.load.run import BOUNDS, LoadResult
from benchmarks.results import Result

mpl.use("agg")

COMPARISON = "load__comparison.png"

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
