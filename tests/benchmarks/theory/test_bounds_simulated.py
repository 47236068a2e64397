"""Exact values and bounds, beside what the simulator does: each formula against runs that it must fit."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest

from batchers import Adaptive, Greedy, Options, Policy
from batchers.policies.base import Rule
from benchmarks.theory.bounds import (
    Line,
    best_mean,
    closed_form,
    closed_loop_bound,
    control_limit_mean,
    lower_bound,
    two_cohorts,
)
from benchmarks.theory.simulator import Clients, Poisson, Service, Simulated, Source, simulate

LINES = {
    "original": Line(0.01099, 0.00001, 200),
    "v100": Line(0.0018874, 0.0001438, 64),
    "steep": Line(0.005, 0.0005, 64),
}


class _UntilThere(Rule):
    """Hold until so many wait: what theory calls a control limit."""

    def __init__(self, limit: int) -> None:
        self.reason = "window"
        self._limit = limit

    def hold(  # noqa: PLR0917 - as `Rule.hold`
        self, waiting: int, others: int, oldest: float, deadline: float, accepted: int, now: float
    ) -> float:
        return -inf if waiting >= self._limit else inf


@dataclass(frozen=True)
class ControlLimit(Greedy):
    """A policy that only this test has."""

    limit: int = 1

    def rule(self, max_batch_size: int, concurrency: int, timeout: float | None = None) -> Rule:
        """Return it."""
        return _UntilThere(self.limit)


def run(line: Line, policy: Policy, source: Source, items: int = 40_000, devices: int = 1) -> Simulated:
    options = Options(policy=policy, max_batch_size=line.most, concurrency=devices, max_queue_size=-1)
    return simulate(options, Service(line), source, items=items)


@pytest.mark.parametrize(("rate", "limit"), [(300, 2), (300, 5), (1000, 6), (1000, 20)])
def test_control_limits(rate: int, limit: int) -> None:
    """The chain of a rule that waits for so many is what such a rule does, and none of them beats the best."""
    line = LINES["original"]
    exact = control_limit_mean(line, rate, limit)
    assert run(line, ControlLimit(limit), Poisson(rate)).mean == pytest.approx(exact, rel=0.01)
    best, at = best_mean(line, rate)
    assert best <= exact
    assert run(line, ControlLimit(at), Poisson(rate)).mean == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_open_loops(name: str, share: float) -> None:
    """The exact mean is met; the closed form is above it while no batch is full, the lower bound below all."""
    line = LINES[name]
    rate = share * line.capacity
    greedy = run(line, Greedy(), Poisson(rate)).mean
    assert greedy == pytest.approx(control_limit_mean(line, rate), rel=0.02)
    assert closed_form(line, rate) >= 0.98 * greedy
    for policy in (Greedy(), Adaptive()):
        assert run(line, policy, Poisson(rate), 10_000).mean >= 0.98 * lower_bound(line, rate)
        assert run(line, policy, Poisson(rate), 10_000, 4).mean >= 0.98 * lower_bound(line, rate, 4)


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("clients", [2, 8, 32, 128])
def test_closed_loops(name: str, clients: int) -> None:
    """Nobody serves more than the bound; clients that come back at once get two halves in turns of Greedy."""
    line = LINES[name]
    bound = closed_loop_bound(line, clients, 0.0006)
    for policy in (Greedy(), Adaptive()):
        assert run(line, policy, Clients(clients), 10_000).throughput <= 1.005 * bound
    at_once = run(line, Greedy(), Clients(clients, 1e-6, 1e-6), 10_000).throughput
    assert at_once == pytest.approx(two_cohorts(line, clients), rel=0.03)
