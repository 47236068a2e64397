"""Pictures, readable in colour and in grey, with the machine in the caption.

Each carries the fingerprint of its results, so that a test sees when it is older than they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from pathlib import Path
from statistics import median
from typing import Any, get_args

import matplotlib as mpl
import numpy as np
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

from .markdown import about
from .overview import CONNECTIONS, SERVER_WORDS

mpl.use("agg")

COMPARISON = "load__comparison.png"
AGAINST_RATE = "latency__against_load.png"
POLICIES = "policies__any_load.png"
SERVERS = "peers__requests_per_second.png"
RETRIES = "faults__retries.png"
BATCHING = "batching__answers_per_second.png"

ALONE_SECONDS = 0.011
"""What the emulated model takes for one item."""

OURS, THEIRS = "tab:blue", "0.72"

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
    rates.set_title(f"{cell.path}{batcher}, {cell.model_call} model, {cell.most_users} users")
    rates.plot(times, [found.requests for found in seconds], "-", color="tab:blue", label="requests")
    rates.plot(times, [found.failures for found in seconds], "--", color="tab:red", label="failures")
    rates.set_ylabel("per second")
    latencies.plot(times, [_ms(found.p95) for found in seconds], ":", color="tab:purple", label="p95")
    latencies.plot(times, [_ms(found.mean) for found in seconds], "-", color="tab:blue", label="mean")
    latencies.set_ylabel("latency, ms")
    users.plot(times, [found.users for found in seconds], "-", color="0.3", label="users")
    users.set_ylabel("users")
    users.set_xlabel("time, s")
    for axes in (rates, latencies, users):
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, len(seconds))
        axes.grid(visible=True, alpha=0.3)
        _plain(axes)
    figure.draw_without_rendering()
    for axes in (rates, latencies, users):
        _label_lines(axes, gap=0.09)
    _save(figure, f"{result.scale}; {result.environment.caption}", file, source)


def _ms(seconds: float | None) -> float:
    return float("nan") if seconds is None else 1000 * seconds


def comparison(results: Sequence[Result[LoadResult]], file: Path, source: str) -> None:
    """Draw how many requests are slower than a latency, with all users there, for each model call."""
    calls = sorted({result.measured.cell.model_call for result in results})
    figure = Figure(figsize=(10, 2.9 * len(calls)), layout="constrained")
    rows = figure.subplots(len(calls), 1, sharex=True, squeeze=False)[:, 0]
    for axes, call in zip(rows, calls, strict=True):
        counts: dict[str, list[int]] = {}
        for result in results:
            cell = result.measured.cell
            if cell.model_call == call:
                name = "no batcher" if cell.path == "/predict" else cell.backend
                before = counts.get(name, [0] * len(result.measured.top.histogram))
                counts[name] = [old + new for old, new in zip(before, result.measured.top.histogram, strict=True)]
        for side, histogram in counts.items():
            _distribution(axes, side, histogram)
        axes.set_title(f"{call} model: share of requests that take longer", fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
        axes.set_yscale("log")
        axes.set_ylim(1e-4, 1.5)
        axes.set_yticks([1, 0.1, 0.01, 0.001, 0.0001], ["all", "10 %", "1 %", "0.1 %", "0.01 %"])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.25)
        _plain(axes)
    axes.set_xlabel("latency, ms")
    figure.draw_without_rendering()
    for axes in rows:
        _label_lines(axes, gap=0.1)
    environment = results[0].environment
    _save(figure, f"{results[0].scale}; {environment.caption}", file, source)


def _distribution(axes: Axes, name: str, counts: Sequence[int]) -> None:
    total = slower = sum(counts)
    shares = []
    for count in counts[:-1]:
        slower -= count
        shares.append(slower / total if slower else nan)
    colour, line, marker = STYLES.get(name, ("0.4", ":", "^"))
    axes.plot([1000 * bound for bound in BOUNDS], shares, line, color=colour, marker=marker, ms=3, label=name)


FAMILIES = {
    "process-emulated": "library alone, a model of 11 ms",
    "http-emulated": "server, a model of 11 ms",
    "http-compiled": "server, the compiled model",
}
"""The loads of the picture."""


def against_rate(results: Sequence[Result[RateResult]], file: Path, source: str) -> None:
    """Draw mean and p99 against the load, for three kinds of load, both backends in one."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    columns = figure.subplots(1, len(FAMILIES), sharey=True)
    for axes, (family, words) in zip(columns, FAMILIES.items(), strict=True):
        ours = [result.measured for result in results if family_of(result) == family]
        for backend in get_args(Backend):
            colour, line, marker = STYLES[backend]
            rates = [found.rate.rate for found in ours]
            for figure_of, style in (("mean", line), ("p99", ":")):
                values = [_middle(found.runs[backend], figure_of) for found in ours]
                name = f"{backend}, {figure_of}"
                axes.plot(rates, values, ls=style, color=colour, marker=marker, ms=4, label=name)
        axes.set_title(words, fontsize=10)
        axes.set_xlabel("calls per second")
        axes.grid(visible=True, alpha=0.25)
        _plain(axes)
    columns[0].set_ylabel("latency, ms")
    highest = max(float(np.nanmax(np.asarray(line.get_ydata()))) for axes in columns for line in axes.get_lines())
    columns[0].set_ylim(0, 1.1 * highest)
    figure.draw_without_rendering()
    for axes in columns:
        _label_lines(axes)
    _save(figure, f"{results[0].scale}; {results[0].environment.caption}", file, source)


def _middle(runs: Sequence[Run], field: str) -> float:
    found = pooled(runs, field)
    return 1000 * found.middle if found.values else nan


def family_of(result: Result[RateResult]) -> str:
    """Return the kind of load of a result."""
    return result.name.removeprefix("latency/").rpartition("-")[0]


def servers(results: Mapping[str, Sequence[Result[ServerResult]]], file: Path, source: str) -> None:
    """Draw the requests a second of each server with so many connections, the fastest first."""
    rates = {
        SERVER_WORDS[name].replace("**", "").replace("`", ""): [
            load.rate for result in repeats for load in result.measured.loads if load.connections == CONNECTIONS
        ]
        for name, repeats in results.items()
    }
    found = sorted((median(each), name) for name, each in rates.items())
    figure = Figure(figsize=(9, 0.42 * len(found) + 1.1), layout="constrained")
    axes = figure.subplots()
    names = [name for _, name in found]
    values = [rate for rate, _ in found]
    ours = [name.startswith("batchers,") for name in names]
    axes.barh(names, values, color=[OURS if own else THEIRS for own in ours], height=0.7)
    for place, (rate, name) in enumerate(found):
        low, high = min(rates[name]), max(rates[name])
        axes.plot([low, high], [place, place], color="0.15", lw=1.2)
        axes.annotate(f" {about(rate)}", (max(high, rate), place), va="center", fontsize=9)
    axes.set_title(
        f"Requests per second with {CONNECTIONS} connections (lines: smallest to largest of the repeats)",
        fontsize=10,
    )
    axes.set_xlim(0, 1.12 * max(map(max, rates.values())))
    _plain(axes)
    axes.tick_params(left=False, labelbottom=False, bottom=False)
    first = next(iter(results.values()))[0]
    _save(figure, f"{first.scale}; {first.environment.caption}", file, source)


def batching(by_backend: Mapping[str, Sequence[tuple[int, float]]], caption: str, file: Path, source: str) -> None:
    """Draw the answers a second of a model of 11 ms, by callers, with each backend and without a batcher."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    most = max(number for points in by_backend.values() for number, _ in points)
    alone = 1 / ALONE_SECONDS
    axes.plot([1, most], [alone, alone], color="0.35", ls=":", lw=2, label="")
    axes.annotate(
        f"without a batcher: {about(alone)} (computed)",
        (most, alone),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
    )
    for backend, points in by_backend.items():
        colour, line, marker = STYLES[backend]
        name = f"{backend}: {about(points[-1][1])}"
        axes.plot(*zip(*points, strict=True), line, color=colour, marker=marker, ms=6, lw=2, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({number for points in by_backend.values() for number, _ in points})
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes.set_yticks([100, 1000, 10_000], ["100", "1000", "10 000"])
    axes.minorticks_off()
    axes.set_xlim(0.9, 3.2 * most)
    axes.set_xlabel("callers that ask again as soon as they are answered")
    axes.set_title(
        "Answers per second of the emulated model (11 ms for one item, 13 ms for 200), default policy", fontsize=10
    )
    _plain(axes)
    axes.grid(visible=True, alpha=0.25)
    figure.draw_without_rendering()
    _label_lines(axes)
    _save(figure, caption, file, source)


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label_lines(axes: Axes, *, at_the_end: bool = True, gap: float = 0.06) -> None:
    """Write the label of each line beside its last point, or its first one; lines that meet there share a label.

    The figure must have been drawn. `gap`: the least distance of two labels, as a share of the height.
    """
    placed: list[tuple[float, float, str]] = []
    for line in axes.get_lines():
        low, high = axes.get_ylim()
        points = np.asarray(line.get_xydata())
        inside = points[(points[:, 1] >= low) & (points[:, 1] <= high)]
        if len(inside) and not str(line.get_label()).startswith("_"):  # matplotlib names those without one so
            spot = axes.transAxes.inverted().transform(axes.transData.transform(inside[-1 if at_the_end else 0]))
            placed.append((float(spot[1]), float(spot[0]), str(line.get_label())))
    last = -1.0
    for height, across, label in _shared(sorted(placed), gap / 2):
        last = max(height, last + gap)
        axes.text(
            *(across + 0.025 if at_the_end else across - 0.025, last, label),
            transform=axes.transAxes,
            va="center",
            ha="left" if at_the_end else "right",
            fontsize=8,
            color="0.15",
        )


def _shared(placed: Iterable[tuple[float, float, str]], near: float) -> list[tuple[float, float, str]]:
    """Return labels from below, with one label for those that are nearer than so much to each other."""
    found: list[tuple[float, float, list[str]]] = []
    for height, across, label in placed:
        if found and height - found[-1][0] < near and abs(across - found[-1][1]) < near:
            found[-1][2].append(label)
        else:
            found.append((height, across, [label]))
    return [(height, across, _joined(labels)) for height, across, labels in found]


def _joined(labels: Sequence[str]) -> str:
    named = {backend: [label for label in labels if backend in label] for backend in get_args(Backend)}
    rest = {label.replace(backend, "") for backend, its in named.items() for label in its}
    if len(labels) == len(named) and all(named.values()) and len(rest) == 1:
        return f"both backends{rest.pop()}"
    return "\n".join(labels) if len(labels) > len(STYLES) else ", ".join(labels)


def policies(results: Mapping[str, Result[SimulatedResult]], file: Path, source: str) -> None:
    """Draw every fixed setting and Adaptive: the mean of the open loop, and the throughput of the closed one."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    markers = iter("s^vDPX")
    for policy in ALL_POLICIES:
        line, marker = ("-", "o") if policy == "adaptive" else ("--", next(markers))
        wide = 2.2 if policy == "adaptive" else 1.2
        look: dict[str, Any] = {"ls": line, "marker": marker, "ms": 4, "lw": wide, "label": _policy_words(policy)}
        opened = _along(results, "original-poisson-")
        means = [found.policies[policy].mean / found.theory["best_mean"] for _, found in opened]
        left.plot([rate for rate, _ in opened], means, **look)
        closed = _along(results, "original-clients-")
        shares = [found.policies[policy].throughput / found.theory["throughput_bound"] for _, found in closed]
        right.plot([clients for clients, _ in closed], shares, **look)
    left.set_title("Independent callers: mean latency, the best possible is 1", fontsize=10)
    left.set_xlabel("items per second")
    left.set_ylim(bottom=0.9)
    right.set_title("Callers that ask again: answers per second, the bound is 1", fontsize=10)
    right.set_xlabel("callers")
    right.set_ylim(0, 1.1)
    for axes, ticks in ((left, (10, 100, 1000, 10_000)), (right, (1, 10, 100))):
        axes.set_xscale("log")
        axes.set_xticks(ticks, [about(tick, 1) for tick in ticks])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.2)
        _plain(axes)
    figure.draw_without_rendering()
    for axes in (left, right):
        low, high = axes.get_xlim()
        axes.set_xlim(low / (high / low) ** 0.3, high)  # room for the labels
        _label_lines(axes, at_the_end=False, gap=0.05)
    first = next(iter(results.values()))
    _save(
        figure,
        f"{first.scale}; simulated: a = 10.99 ms, b = 0.01 ms, 200 items; commit {first.environment.commit}",
        file,
        source,
    )


def _policy_words(policy: str) -> str:
    name, _, seconds = policy.partition(":")
    return (
        f"window of {1000 * float(seconds):.0f} ms"
        if seconds
        else {"adaptive": "Adaptive", "greedy": "Greedy"}[name]
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
    left.set_ylim(0, 1.1)
    right.set_ylabel("attempts for an answer")
    right.set_yscale("log")
    right.set_yticks([1, 10, 100], ["1", "10", "100"])
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(RETRIERS, [f"{number}" for number in RETRIERS])
        axes.minorticks_off()
        axes.set_xlabel("clients")
        axes.grid(visible=True, alpha=0.2)
        _plain(axes)
    figure.draw_without_rendering()
    for axes in (left, right):
        _label_lines(axes)
    figure.suptitle("Refused clients that retry")
    first = next(iter(results.values()))
    _save(figure, f"{first.scale}; {first.environment.caption}", file, source)


def _along(results: Mapping[str, Result[SimulatedResult]], prefix: str) -> list[tuple[float, SimulatedResult]]:
    """Return the cases of one kind with the number in their source: a rate, or clients."""
    return [
        (float(result.measured.case.source.partition(":")[2]), result.measured)
        for name, result in results.items()
        if name.startswith(prefix)
    ]
