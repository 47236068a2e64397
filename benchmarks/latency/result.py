"""What an open-loop measurement asks for, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, quantiles

from pydantic import BaseModel, ConfigDict

from benchmarks.load.run import Backend
from benchmarks.spread import Spread

from .open_loop import Arrivals, Seen

ENOUGH = 1000
"""Answers without which a 99.9th percentile says nothing."""


class Load(BaseModel):
    """One run inside a process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend
    max_batch_size: int
    max_queue_size: int
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
    """Answers per second of the arrivals' time."""
    failures: dict[str, int]
    mean: float
    p50: float
    p95: float
    p99: float
    p999: float | None
    """None for fewer than `ENOUGH` answers."""
    batches: Sizes
    cpu_seconds_per_call: float
    resident_bytes: int

    @property
    def failed_share(self) -> float:
        """Failures as a share of the calls."""
        return 1 - self.answered / self.offered


def sizes_of(counts: Sequence[int], total: float) -> Sizes:
    """Return what a batcher counted."""
    found = list(counts)
    return Sizes(counts=found, mean=round(total / max(sum(found), 1), 3))


def summarise(arrivals: Arrivals, seen: Seen, batches: Sizes, cpu_seconds: float, resident_bytes: int) -> Run:
    """Return what is kept of a run. ValueError when nobody was answered."""
    latencies = seen.latencies
    if len(latencies) < 2:  # noqa: PLR2004 - fewer have no percentiles
        msg = f"nobody was answered: {dict(seen.failures)}"
        raise ValueError(msg)
    offered = len(latencies) + seen.failures.total()
    hundredths = quantiles(latencies, n=100, method="inclusive")
    return Run(
        offered=offered,
        answered=len(latencies),
        goodput=round(len(latencies) / arrivals.seconds, 2),
        failures=dict(seen.failures),
        mean=round(fmean(latencies), 6),
        p50=round(hundredths[49], 6),
        p95=round(hundredths[94], 6),
        p99=round(hundredths[98], 6),
        p999=round(quantiles(latencies, n=1000, method="inclusive")[998], 6) if len(latencies) >= ENOUGH else None,
        batches=batches,
        cpu_seconds_per_call=round(cpu_seconds / offered, 8),
        resident_bytes=resident_bytes,
    )


def pooled(runs: Sequence[Run], field: str) -> Spread:
    """Return one figure of repeated runs, by the name of its field; those that lack it are left out."""
    return Spread(tuple(value for run in runs if (value := getattr(run, field)) is not None))
