"""What an open-loop measurement asks for, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, quantiles
from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.load.run import Backend
from benchmarks.spread import Spread
from benchmarks.theory.fit import Fit

from .open_loop import Arrivals, Seen

ENOUGH = {50: 2, 95: 100, 99: 500, 99.9: 5000}
"""Answers without which a percentile says nothing."""


class Load(BaseModel):
    """One run inside a process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend
    max_batch_size: int
    max_queue_size: int
    policy: Literal["greedy", "adaptive"] = "greedy"
    arrivals: Arrivals


class Sizes(BaseModel):
    """Batches by their size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    counts: list[int]
    """Batches up to each of `batchers.stats.SIZE_BOUNDS`, and above the last."""
    mean: float


class Run(BaseModel):
    """One backend at one rate, once. Latencies in seconds, of the calls that were answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    offered: int
    answered: int
    goodput: float
    """Answers a second, to calls made after the time to settle."""
    failures: dict[str, int]
    mean: float | None
    """None when nobody was answered."""
    p50: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    """Percentiles are None for fewer than `ENOUGH` answers."""
    lateness: float
    """How late calls were made in the mean, in seconds: a part of their latencies, and the client's doing."""
    batches: Sizes
    """Of the whole run."""
    cpu_seconds_per_call: float
    resident_bytes: int
    line: Fit | None = None
    """How long its last batches took; None in results from before it was kept."""

    @property
    def failed_share(self) -> float:
        """Failures as a share of the calls."""
        return 1 - self.answered / self.offered


def sizes_of(counts: Sequence[int], total: float) -> Sizes:
    """Return what a batcher counted."""
    found = list(counts)
    return Sizes(counts=found, mean=round(total / max(sum(found), 1), 3))


def summarise(  # noqa: PLR0917 - all that a run leaves
    arrivals: Arrivals, seen: Seen, batches: Sizes, cpu_seconds: float, resident_bytes: int, line: Fit
) -> Run:
    """Return what is kept of a run. ValueError when there was no call."""
    latencies = seen.latencies
    offered = len(latencies) + seen.failures.total()
    if not offered:
        msg = "no call was made: is the time too short?"
        raise ValueError(msg)
    thousandths = quantiles(latencies, n=1000, method="inclusive") if len(latencies) > 1 else []
    tails = {
        rank: round(thousandths[round(10 * rank) - 1], 6) if len(latencies) >= enough else None
        for rank, enough in ENOUGH.items()
    }
    return Run(
        offered=offered,
        answered=len(latencies),
        goodput=round(len(latencies) / (arrivals.seconds - arrivals.settle), 2),
        failures=dict(seen.failures),
        mean=round(fmean(latencies), 6) if latencies else None,
        p50=tails[50],
        p95=tails[95],
        p99=tails[99],
        p999=tails[99.9],
        lateness=round(fmean(seen.lateness), 6) if seen.lateness else 0.0,
        batches=batches,
        cpu_seconds_per_call=round(cpu_seconds / (arrivals.rate * arrivals.seconds), 8),
        resident_bytes=resident_bytes,
        line=line,
    )


def pooled(runs: Sequence[Run], field: str) -> Spread:
    """Return one figure of repeated runs, by the name of its field; those that lack it are left out."""
    return Spread(tuple(value for run in runs if (value := getattr(run, field)) is not None))
