"""Exact values and bounds, beside figures that were computed elsewhere."""

from __future__ import annotations

import pytest

from benchmarks.theory.bounds import (
    Line,
    best_mean,
    closed_form,
    closed_loop_bound,
    control_limit_mean,
    lower_bound,
    two_cohorts,
)

LINE = Line(0.01099, 0.00001, 200)
"""Of the original benchmark's model: 11 ms for one item, 13 ms for 200."""

TABLE = {
    1: (11.060, 11.060, 1, 11.061, 11.000),
    60: (14.089, 14.089, 1, 14.634, 11.000),
    200: (16.264, 16.234, 2, 16.528, 14.202),
    300: (16.484, 16.390, 2, 16.545, 14.976),
    1000: (16.662, 16.657, 6, 16.662, 16.156),
    5000: (17.363, 17.363, 28, 17.363, 17.253),
    14000: (19.212, 19.213, None, 19.180, 19.133),
}
"""By items a second: greedy, best, its control limit, closed form, lower bound, in ms; from another program."""


@pytest.mark.parametrize("rate", TABLE)
def test_one_device(rate: int) -> None:
    """All five agree to the last digit given."""
    greedy, best, limit, form, lower = TABLE[rate]
    mean, found = best_mean(LINE, rate)
    assert 1000 * control_limit_mean(LINE, rate) == pytest.approx(greedy, abs=0.0011)
    assert 1000 * mean == pytest.approx(best, abs=0.0011)
    assert limit is None or found == limit
    assert 1000 * closed_form(LINE, rate) == pytest.approx(form, abs=0.0011)
    assert 1000 * lower_bound(LINE, rate) == pytest.approx(lower, abs=0.0011)


def test_several_devices() -> None:
    """Bounds for two and four, and none below one batch time."""
    assert 1000 * lower_bound(LINE, 5000, 2) == pytest.approx(13.99, abs=0.005)
    assert 1000 * lower_bound(LINE, 5000, 4) == pytest.approx(12.42, abs=0.005)
    assert lower_bound(LINE, 1, 4) == pytest.approx(LINE.tau(1))


def test_closed_loops() -> None:
    """The bound for clients that come back after 0.6 ms, and what two halves in turns reach."""
    bounds = {8: 686, 32: 2690, 128: 9992, 512: 15396}
    for clients, bound in bounds.items():
        assert closed_loop_bound(LINE, clients, 0.0006) == pytest.approx(bound, rel=0.001)
    for clients, reached in {8: 362.6, 32: 1435, 128: 5503}.items():
        assert two_cohorts(LINE, clients) == pytest.approx(reached, rel=0.001)


def test_the_capacity_is_the_end() -> None:
    """At it, the queue grows without end, which has no mean."""
    assert LINE.capacity == pytest.approx(15396.5, abs=0.1)
    with pytest.raises(ValueError, match="not below the capacity, 15396/s"):
        control_limit_mean(LINE, LINE.capacity)
