"""Every policy in one simulated case, beside what theory says of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from benchmarks.theory.command import Case
from benchmarks.theory.simulator import Simulated

WINDOWS = ("0.001", "0.002", "0.005", "0.01", "0.02")
"""Seconds; a window of 0 is greedy."""

POLICIES = ("greedy", *(f"window:{seconds}" for seconds in WINDOWS), "adaptive")


class SimulatedResult(BaseModel):
    """What came out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: Case
    policies: dict[str, Simulated]
    theory: dict[str, float]


def measure(case: Case) -> SimulatedResult:
    """Simulate all policies."""
    return SimulatedResult(
        case=case, policies={policy: case.simulate(policy) for policy in POLICIES}, theory=case.theory()
    )
