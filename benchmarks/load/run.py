"""One load measurement: a server, Locust's users against it, and what both saw."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from statistics import fmean, quantiles
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from benchmarks.environment import ROOT
from benchmarks.fresh import MeasurementError, reason
from benchmarks.load.ramps import RAMPS
from benchmarks.servers import Server, serve

Route = Literal["/predict", "/optimized_predict"]
Backend = Literal["threading", "asyncio"]
ModelCall = Literal["keras", "compiled", "emulated"]
Ramp = Literal["v0.1.0", "v0.2.0"]

PATIENCE = 60.0
"""Seconds that Locust may take beyond its load."""

BOUNDS = [round(0.001 * 10 ** (step / 10), 6) for step in range(31)]
"""Upper ends of the latency histogram, in seconds: 1 ms to 1 s, ten for each factor of ten."""


class Cell(BaseModel):
    """What is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Route
    backend: Backend = "asyncio"
    model_call: ModelCall
    ramp: Ramp = "v0.2.0"
    most_users: int = 3000
    time_scale: float = 1.0
    workers: int = 1
    settings: dict[str, str] = {}
    """More environment variables of the server."""

    @property
    def seconds(self) -> float:
        """How long the load takes."""
        return sum(RAMPS[self.ramp]) * self.time_scale


class Second(BaseModel):
    """One second, as the users saw it. Latencies in seconds; None where nobody was answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int
    requests: int
    failures: int
    mean: float | None
    p95: float | None


class Seen(BaseModel):
    """One second, as the locustfile writes it."""

    second: int
    users: int
    failures: dict[str, int]
    latencies: list[float]


class Summary(BaseModel):
    """The time in which all users were there. Latencies in seconds, of all requests, failed ones too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: int
    requests_per_second: float
    failures_per_second: float
    failures: dict[str, int]
    mean: float
    p50: float
    p95: float
    p99: float
    histogram: list[int]
    """Requests up to each of `BOUNDS`, and above the last."""


class LoadResult(BaseModel):
    """What a load measurement gave."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: Cell
    seconds: list[Second]
    top: Summary
    batch_size_mean: float
    cpu_seconds: float
    resident_bytes: int


def measure(cell: Cell, port: int | None = None) -> LoadResult:
    """Run it. MeasurementError when the server does not start or dies, or Locust fails."""
    settings = {"BATCHER_BACKEND": cell.backend, "MODEL_CALL": cell.model_call, **cell.settings}
    with (
        serve(settings, port=port, workers=cell.workers) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        before = server.usage()
        record = Path(folder) / "record.json"
        _locust(cell, server, record)
        after = server.usage()
        # A server that was overloaded by /predict has no time for this question, and nothing to say to it.
        sizes = None if cell.path == "/predict" else server.stats()["batch_size"]
        seen = TypeAdapter(list[Seen]).validate_json(record.read_bytes())
    return LoadResult(
        cell=cell,
        seconds=[_second(found) for found in seen],
        top=_summary(cell, seen),
        batch_size_mean=sizes["total"] / max(sum(sizes["counts"]), 1) if sizes else 1.0,
        cpu_seconds=after.cpu_seconds - before.cpu_seconds,
        resident_bytes=after.resident_bytes,
    )


def _locust(cell: Cell, server: Server, record: Path) -> None:
    command = [
        *(sys.executable, "-m", "locust", "-f", "benchmarks/load/locustfile.py", "--headless", "--only-summary"),
        *("--host", server.url, "--path", cell.path, "--ramp", cell.ramp, "--loglevel", "ERROR"),
        *("--most-users", str(cell.most_users), "--time-scale", str(cell.time_scale), "--record", str(record)),
    ]
    end = time.monotonic() + cell.seconds + PATIENCE
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as users,
    ):
        try:
            while users.poll() is None:
                server.check()
                if time.monotonic() > end:
                    msg = f"Locust did not end within {cell.seconds + PATIENCE:.0f} s"
                    raise MeasurementError(msg)
                time.sleep(0.5)
        finally:
            users.kill()
        # Locust's own status is 1 when a request has failed, which is a result here.
        if not record.exists():
            log.seek(0)
            msg = f"Locust ended without a record: {reason(log.read())}"
            raise MeasurementError(msg)


def _second(found: Seen) -> Second:
    return Second(
        users=found.users,
        requests=len(found.latencies),
        failures=sum(found.failures.values()),
        mean=round(fmean(found.latencies), 5) if found.latencies else None,
        p95=round(percentile(found.latencies, 95), 5) if found.latencies else None,
    )


def _summary(cell: Cell, seen: list[Seen]) -> Summary:
    up = RAMPS[cell.ramp][0] * cell.time_scale
    # The first seconds at the top still feel the last users come.
    top = seen[round(up) + 2 : round(cell.seconds)] or seen[-1:]
    latencies = [latency for found in top for latency in found.latencies]
    failures = sum((Counter(found.failures) for found in top), Counter[str]())
    if not latencies:
        msg = "no request was made: is the load too short?"
        raise MeasurementError(msg)
    return Summary(
        seconds=len(top),
        requests_per_second=round(len(latencies) / len(top), 2),
        failures_per_second=round(failures.total() / len(top), 3),
        failures=dict(failures),
        mean=round(fmean(latencies), 6),
        p50=round(percentile(latencies, 50), 6),
        p95=round(percentile(latencies, 95), 6),
        p99=round(percentile(latencies, 99), 6),
        histogram=_histogram(latencies),
    )


def percentile(values: list[float], rank: int) -> float:
    """Return a percentile, 1 to 99."""
    return quantiles(values, n=100, method="inclusive")[rank - 1] if len(values) > 1 else values[0]


def _histogram(latencies: list[float]) -> list[int]:
    counts = [0] * (len(BOUNDS) + 1)
    for value in latencies:
        counts[bisect_left(BOUNDS, value)] += 1
    return counts
