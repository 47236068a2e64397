"""One open-loop measurement: both backends at one rate, in turns, each time in fresh processes."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from benchmarks import fresh
from benchmarks.load.run import Backend, ModelCall
from benchmarks.servers import serve
from benchmarks.spread import interleaved
from benchmarks.theory.fit import fit

from .client import Answers, Errand
from .open_loop import PATIENCE, Arrivals, Seen
from .result import Load, Run, sizes_of, summarise

Place = Literal["process", "http"]

START_SECONDS = 30.0
"""For the start of a process."""


class Rate(BaseModel):
    """What is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Place
    model_call: ModelCall
    rate: float
    seconds: float
    settle: float
    repeats: int
    max_batch_size: int = 256
    max_queue_size: int = 1024
    policy: Literal["greedy", "adaptive"] = "greedy"

    @property
    def estimate(self) -> float:
        """Seconds that it takes, roughly."""
        start = (
            2.0 if self.place == "process" else {"emulated": 3.0, "compiled": 8.0, "keras": 8.0}[self.model_call]
        )
        return (self.seconds + start) * self.repeats * len(get_args(Backend))


class RateResult(BaseModel):
    """What it gave: the repeats of each backend, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Rate
    runs: dict[Backend, list[Run]]


def measure(rate: Rate, port: int | None = None) -> RateResult:
    """Run it. MeasurementError when a process fails."""
    runs: dict[Backend, list[Run]] = defaultdict(list)
    for seed, backend in enumerate(interleaved(get_args(Backend), rate.repeats)):
        # The two backends of one turn meet the same arrivals.
        arrivals = Arrivals(rate=rate.rate, seconds=rate.seconds, settle=rate.settle, seed=seed // 2)
        once = _inside if rate.place == "process" else _over_http
        try:
            runs[backend].append(once(rate, backend, arrivals, port))
        except ValueError as error:
            raise fresh.MeasurementError(str(error)) from None
    return RateResult(rate=rate, runs=runs)


def _inside(rate: Rate, backend: Backend, arrivals: Arrivals, _: int | None) -> Run:
    load = Load(
        backend=backend,
        max_batch_size=rate.max_batch_size,
        max_queue_size=rate.max_queue_size,
        policy=rate.policy,
        arrivals=arrivals,
    )
    limit = rate.seconds + PATIENCE + START_SECONDS
    return fresh.module("benchmarks.latency.inside", load, Run, seconds=limit)


def _over_http(rate: Rate, backend: Backend, arrivals: Arrivals, port: int | None) -> Run:
    settings = {
        "BATCHER_BACKEND": backend,
        "MODEL_CALL": rate.model_call,
        "BATCHER_POLICY": rate.policy,
        "BATCHER_MAX_BATCH_SIZE": str(rate.max_batch_size),
        "BATCHER_MAX_QUEUE_SIZE": str(rate.max_queue_size),
    }
    with serve(settings, port=port) as server:
        errand = Errand(url=f"{server.url}/optimized_predict", arrivals=arrivals)
        before = server.usage()
        limit = rate.seconds + PATIENCE + START_SECONDS
        answers = fresh.module("benchmarks.latency.client", errand, Answers, seconds=limit)
        after = server.usage()
        stats = server.stats()
    sizes = stats["batch_size"]
    return summarise(
        arrivals,
        Seen(answers.latencies, Counter(answers.failures), answers.lateness),
        sizes_of(sizes["counts"], sizes["total"]),
        after.cpu_seconds - before.cpu_seconds,
        after.resident_bytes,
        fit((each["items"], each["seconds"]) for each in stats["decisions"]),
    )
