"""Ray Serve with its own batches, and with those of this project: each in a fresh Ray."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, TypeAdapter

from benchmarks.fresh import MeasurementError, python, reason
from benchmarks.scale import Scale
from benchmarks.spread import interleaved

VARIANTS = ("serve.batch", "batchers")
REPEATS = 4
SECONDS = 35.0
"""What one takes, with the start of Ray."""

LIMIT = 300.0


class ReplicaLoad(BaseModel):
    """What so many callers saw, each of which asks again when it is answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    callers: int
    rate: float
    """Answers a second."""
    p99: float
    """Seconds."""
    mean_batch: float
    wrong: int
    no_outcome: int
    """Calls that had neither an answer nor an error after 10 s."""
    cancelled: int
    failed: int


class ReplicaResult(BaseModel):
    """One variant, once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    loads: list[ReplicaLoad]


def names(scale: Scale) -> dict[str, str]:
    """Return the variants by the names of their measurements, in turns; a quick run leaves them out."""
    if scale == "quick":
        return {}
    found: dict[str, str] = {}
    for variant in interleaved(list(VARIANTS), REPEATS):
        found[f"peers/ray/{variant}-{sum(each == variant for each in found.values()) + 1}"] = variant
    return found


def measure(variant: str) -> ReplicaResult:
    """Load a deployment of one variant. MeasurementError if it says nothing."""
    printed = python("-W", "ignore", "-m", "benchmarks.peers.apps.ray_batch", variant, seconds=LIMIT)
    lines = [line for line in printed.splitlines() if line.startswith("[{")]
    if not lines:
        raise MeasurementError(reason(printed))
    return ReplicaResult(variant=variant, loads=TypeAdapter(list[ReplicaLoad]).validate_json(lines[-1]))
