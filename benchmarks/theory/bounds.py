"""What is possible: exact values and bounds for batches that take tau(n) = a + b * n seconds.

Times are seconds, rates items a second. Arrivals are Poisson where nothing else is said, the queue has no bound,
and a batch has at most `most` items. Sources: Inoue 2021 (Performance Evaluation 147) for the closed form; Deb and
Serfozo 1973 for the control limit as the best rule; Little's law for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, sqrt

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST_STATES = 64
DEVIATIONS = 14.0
"""Standard deviations of a queue that are kept."""


@dataclass(frozen=True)
class Line:
    """How long a batch takes."""

    a: float
    b: float
    most: int

    def tau(self, size: float) -> float:
        """Return the seconds for so many items."""
        return self.a + self.b * size

    @property
    def capacity(self) -> float:
        """Items a second with full batches, one at a time."""
        return self.most / self.tau(self.most)


def poisson(mean: float, length: int) -> Floats:
    """Return the probabilities of 0 to length - 1 events; the last one has all the rest."""
    numbers = np.arange(length)
    logs = np.zeros(length)
    logs[1:] = np.cumsum(np.log(numbers[1:]))
    found: Floats = np.exp(numbers * np.log(mean) - mean - logs)
    found[-1] += max(1.0 - found.sum(), 0.0)
    return found


def _states(line: Line, rate: float) -> int:
    """Return how many queue lengths are needed: geometric tails are longer near the capacity."""
    full = rate * line.tau(line.most)
    load = full / line.most
    tail = DEVIATIONS * sqrt(full) + (12.0 / (1.0 - load) if load > 0.5 else 0.0)  # noqa: PLR2004 - a rough bound
    return max(LEAST_STATES, ceil(max(full, rate * line.tau(full)) + tail) + 2)


def control_limit_mean(line: Line, rate: float, limit: int = 1) -> float:
    """Return the mean latency when a free device waits until `limit` items are there; 1 is the greedy rule.

    Exact, from the Markov chain of what waits when a batch ends. ValueError at or above the capacity.
    """
    if rate >= line.capacity:
        msg = f"{rate}/s is not below the capacity, {line.capacity:.0f}/s"
        raise ValueError(msg)
    count = max(_states(line, rate), limit + 2)
    waiting = np.arange(count)
    there = np.maximum(waiting, limit)  # when the batch starts
    sizes = np.minimum(there, line.most)
    seconds = line.a + line.b * sizes
    chain = np.zeros((count, count))
    arrivals = {int(size): poisson(rate * line.tau(int(size)), count) for size in np.unique(sizes)}
    for state in range(count):
        left = int(there[state] - sizes[state])
        some = arrivals[int(sizes[state])]
        chain[state, left:] = some[: count - left]
        chain[state, -1] += some[count - left :].sum()
    share = _stationary(chain)
    missing = there - waiting
    # Items in the system, summed over time: while it waits (waiting, waiting + 1, ... one 1 / rate each), and
    # while the batch runs.
    waits = (missing * waiting + missing * (missing - 1) / 2) / rate
    runs = there * seconds + rate * seconds**2 / 2
    length = missing / rate + seconds
    return float(share @ (waits + runs) / (share @ length) / rate)


def _stationary(chain: Floats) -> Floats:
    count = len(chain)
    equations = chain.T - np.eye(count)
    equations[-1] = 1.0
    right = np.zeros(count)
    right[-1] = 1.0
    return np.asarray(np.linalg.solve(equations, right), np.float64)


def best_mean(line: Line, rate: float) -> tuple[float, int]:
    """Return the smallest mean latency of all waiting rules for one device, and its control limit.

    The best rule is a control limit (Deb and Serfozo 1973), and the mean is unimodal in it.
    """
    guess = max(1, ceil(rate * line.a / 2))  # the fluid limit
    best = min(
        range(max(1, guess - 3), min(line.most, guess + 3) + 1), key=lambda m: control_limit_mean(line, rate, m)
    )
    limit = min(1, best, key=lambda m: control_limit_mean(line, rate, m))
    return control_limit_mean(line, rate, limit), limit


def closed_form(line: Line, rate: float) -> float:
    """Return Inoue's bound phi on the mean latency of the greedy rule, for batches without a limit (theorem 2)."""
    a, b = line.a, line.b
    load = rate * b
    idle = (a + b) / (2 * (1 - load)) * (1 + 2 * rate * a + (1 - rate * a) / (1 + load))
    busy = 1.5 * a / (1 - load) + b / 2 * (load + 2) / (1 - load**2)
    return min(idle, busy)


def lower_bound(line: Line, rate: float, devices: int = 1) -> float:
    """Return a mean latency below which no rule can come that does not know the future, with so many devices.

    By the drift of the squared queue length: the wait is at least (E n^2 - E n) / (2 rate E n), the service that
    an item sees a + b E n^2 / E n, and the devices force E n to be at least rate a / (devices - rate b), and 1.
    """
    mean = max(1.0, rate * line.a / (devices - rate * line.b))
    k = floor(mean)
    ratio = 2 * k + 1 - k * (k + 1) / mean  # the smallest E n^2 / E n for this E n: n is k or k + 1
    return (ratio - 1) / (2 * rate) + line.a + line.b * ratio


def closed_loop_bound(line: Line, clients: int, turnaround: float) -> float:
    """Return the most items a second for so many clients, each of which comes back after a mean `turnaround`."""
    return max(
        min(size / line.tau(size), clients / (turnaround + line.tau(size)))
        for size in range(1, min(line.most, clients) + 1)
    )


def two_cohorts(line: Line, clients: int) -> float:
    """Return the items a second of the greedy rule with clients that come back at once: two halves in turns."""
    half = min(clients / 2, line.most)
    return half / line.tau(half)
