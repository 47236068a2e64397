"""How long a caller at a full queue is told to wait."""

from __future__ import annotations

import pytest

from batchers.core.decisions import Run
from batchers.core.drain_rate import DrainRate
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.errors import QueueFullError
from batchers.options import Options


def test_before_any_measurement() -> None:
    """A second, for want of better."""
    assert DrainRate().seconds_for(1000) == 1.0


def test_a_steady_rate() -> None:
    """Ten items in each busy second: fifty are gone in five, however many batches were seen."""
    rate = DrainRate()
    for second in range(100):
        rate.observe(10, second, second + 1)
        assert rate.seconds_for(50) == pytest.approx(5.0)


def test_idle_time_does_not_count() -> None:
    """Only the time in which a batch ran."""
    rate = DrainRate()
    rate.observe(10, 0, 1)
    rate.observe(10, 1000, 1001)

    assert rate.seconds_for(10) == pytest.approx(1.0)


def test_shared_time_counts_once() -> None:
    """Two batches side by side drain twice as fast."""
    rate = DrainRate()
    for second in range(20):
        rate.observe(10, second, second + 1)
        rate.observe(10, second, second + 1)

    assert rate.seconds_for(20) == pytest.approx(1.0, rel=0.06)


def test_it_follows_a_change() -> None:
    """Ten batches after it the new rate shows; after fifty the old one is forgotten."""
    rate = DrainRate()
    for second in range(50):
        rate.observe(100, second, second + 1)
    for second in range(50, 100):
        rate.observe(10, second, second + 1)
        if second == 60:
            assert 0.2 < rate.seconds_for(10) < 0.5

    assert rate.seconds_for(10) == pytest.approx(1.0, rel=0.06)


def test_limits() -> None:
    """Never zero, never longer than a minute."""
    rate = DrainRate()
    rate.observe(10, 0, 1)

    assert rate.seconds_for(0) == 0.001
    assert rate.seconds_for(10**9) == 60.0


def test_the_refusal_carries_it() -> None:
    """Waiting and running items are in front of the caller."""
    core: Core[int, int] = Core(Options(max_batch_size=4, max_queue_size=4))
    core.offer([Request(n) for n in range(4)], 0.0)
    decision = core.decide(0.0)
    assert isinstance(decision, Run)
    core.finish(decision.batch, [0] * 4, 2.0)
    core.offer([Request(n) for n in range(4)], 2.0)
    assert isinstance(core.decide(2.0), Run)
    core.offer([Request(n) for n in range(4)], 2.0)

    with pytest.raises(QueueFullError, match="4 items wait and max_queue_size is 4") as caught:
        core.offer([Request(9)], 2.0)

    assert caught.value.retry_after == pytest.approx(4.0)
    assert "4.000 s" in str(caught.value)
