"""A closed loop behind the real server: wrk, with and without the learned hold, in turns."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.fresh import MeasurementError
from benchmarks.load.run import Backend
from benchmarks.peers.http import ROW, SETTLE_SECONDS, WARM_UP_SECONDS, Loaded, need_wrk, wait_until_idle, wrk
from benchmarks.servers import Server, serve
from benchmarks.spread import interleaved
from benchmarks.theory.fit import Fit, fit
from server.model import ModelCall

Policy = Literal["greedy", "adaptive"]
POLICIES: tuple[Policy, ...] = ("greedy", "adaptive")
CONNECTIONS = (1, 8, 32, 128, 256)
MOST = 256
"""Items in a batch."""

START_SECONDS = 8.0


class Loop(BaseModel):
    """What is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend
    model_call: ModelCall
    seconds: int
    """For each number of connections."""
    repeats: int

    @property
    def estimate(self) -> float:
        """Seconds that it takes, roughly."""
        once = (self.seconds + SETTLE_SECONDS) * len(CONNECTIONS) + WARM_UP_SECONDS + START_SECONDS
        return once * self.repeats * len(POLICIES)


class LoopRun(BaseModel):
    """One server with so many connections, once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loaded: Loaded
    batch: float
    """Items, in the mean."""
    line: Fit
    reasons: dict[str, int]


class LoopResult(BaseModel):
    """What it gave: for each policy the repeats, each with all numbers of connections."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loop: Loop
    runs: dict[Policy, list[list[LoopRun]]]


def measure(loop: Loop, port: int | None = None) -> LoopResult:
    """Run it. MeasurementError where wrk is missing, and when a server fails."""
    need_wrk()
    runs: dict[Policy, list[list[LoopRun]]] = defaultdict(list)
    for policy in interleaved(POLICIES, loop.repeats):
        settings = {
            "BATCHER_BACKEND": loop.backend,
            "BATCHER_POLICY": policy,
            "MODEL_CALL": loop.model_call,
            "BATCHER_MAX_BATCH_SIZE": str(MOST),
        }
        with serve(settings, port=port) as server:
            wait_until_idle(server)
            wrk(f"{server.url}/optimized_predict", json.dumps(ROW), CONNECTIONS[-1], WARM_UP_SECONDS)
            runs[policy].append([_load(server, number, loop.seconds) for number in CONNECTIONS])
    return LoopResult(loop=loop, runs=runs)


def _load(server: Server, connections: int, seconds: int) -> LoopRun:
    before = server.stats()
    loaded = wrk(f"{server.url}/optimized_predict", json.dumps(ROW), connections, seconds)
    if loaded.failures:
        msg = f"{loaded.failures} requests failed with {connections} connections"
        raise MeasurementError(msg)
    after = server.stats()
    batches = after["batches"] - before["batches"]
    reasons = {reason: number - before["reasons"][reason] for reason, number in after["reasons"].items()}
    return LoopRun(
        loaded=loaded,
        batch=round((after["completed"] - before["completed"]) / batches, 2),
        line=fit((each["items"], each["seconds"]) for each in after["decisions"]),
        reasons={reason: number for reason, number in reasons.items() if number},
    )
