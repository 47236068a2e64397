"""How many batches in flight are worth it, batch by batch."""

from __future__ import annotations

import pytest

from batchers import Options
from batchers.core.decisions import Run, Wait
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.policies.speed_up import ALONE, LIMIT, PATIENCE, STALE, SpeedUp

from .devices import BATCH, Device


@pytest.mark.parametrize("devices", [2, 3, 8, 20])
def test_independent_devices(devices: int) -> None:
    """As many as there are, and not more than the limit."""
    device = Device(lambda running: min(running, devices))
    device.run(4000)
    assert device.kept == min(devices, LIMIT)


@pytest.mark.parametrize(("speed", "slots"), [(1.0, 1), (1.3, 1), (1.6, 1), (1.75, 2), (2.0, 2)])
def test_shared_cores(speed: float, slots: int) -> None:
    """Two at a time are worth it where (2 + 1/2) / s(2) is below 1.5: s(2) above 5/3."""
    device = Device(lambda running: 1.0 if running == 1 else speed)
    device.run(3000)
    assert device.kept == slots


def test_one_at_a_time_at_first() -> None:
    """Until it is known how long a batch takes alone; and then only when items wait."""
    device = Device(float)
    device.run(ALONE - 1)
    assert device.slots.slots == 1
    device.run(500, waiting=0)
    assert device.slots.slots == 1
    device.run(1)
    assert device.slots.slots == 2


def test_a_trial_ends_without_load() -> None:
    """There is never a second batch to run: after so many the trial is over."""
    device = Device(float)
    device.run(ALONE + 1)
    assert device.slots.slots == 2
    device.run(PATIENCE, most=1, waiting=0)
    assert device.slots.slots == 1


def test_failed_batches_say_nothing() -> None:
    """They end at once, or late: the measurement begins anew; and if too much fails the trial is over."""
    device = Device(float)
    device.run(500, well=False)
    assert device.slots.slots == 1
    device.run(ALONE + 1)
    assert device.slots.slots == 2
    device.run(PATIENCE - 2, well=False)
    assert device.slots.slots == 2
    device.run(2, well=False)
    assert device.slots.slots == 1


def test_devices_that_are_lost() -> None:
    """What stays is measured all the time: with one device left, one batch at a time."""
    device = Device(lambda running: min(running, 4))
    device.run(1000)
    assert device.kept == 4
    device.speed = lambda _: 1.0
    device.run(1000)
    assert device.kept == 1


def test_the_core_follows() -> None:
    """More slots from the end of a batch on, and less; the number is in the statistics."""
    core: Core[int, int] = Core(Options(concurrency="auto", max_batch_size=1, max_queue_size=-1))
    now, most, running = 0.0, 0, []
    core.offer([Request(n) for n in range(3000)], now)
    for devices in (LIMIT, 1):
        for _ in range(1200):
            while isinstance(decision := core.decide(now), Run):
                running.append(decision.batch)
            assert isinstance(decision, Wait)
            assert len(running) == core.in_flight
            now += BATCH / min(len(running), devices)
            list(core.finish(running.pop(0), [0], now))
            most = max(most, core.stats().concurrency)
    assert most == LIMIT
    assert core.stats().concurrency <= 2
    assert core.in_flight <= 2
    assert Core(Options(concurrency=-1)).stats().concurrency == -1


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("sizes", [(1, 32), (1, 8, 16, 64), (1, 1, 1, 1, 1, 1, 1, 100)], ids=str)
def test_batches_of_many_sizes(sizes: tuple[int, ...], devices: int) -> None:
    """What counts is the work of all of them, not the size of the one that ended last."""
    device = Device(lambda running: min(running, devices))
    device.sizes = lambda number: sizes[number * 7 % len(sizes)]
    device.run(4000)
    if devices == 1:
        assert device.kept == 1
    else:
        assert 2 <= device.kept <= devices + 1


def test_a_batch_that_hangs() -> None:
    """It is no sign that the others are slow: the slots stay."""
    device = Device(lambda running: min(running, 4))
    device.run(1000)
    device.slots.started("hangs", 10, device.now)
    device.run(500, most=3)
    assert device.kept == 4


def test_a_clock_that_stands_still() -> None:
    """Batches that take no time at all say nothing."""
    found = SpeedUp()
    for number in range(200):
        found.started(number, 4, 1.0)
        found.finished(number, 4, 0.0, 1, 1.0, well=True)
    assert found.slots <= 2


def test_another_model() -> None:
    """One that is twice as fast, but runs one batch at a time: after a while batches run alone, and show it."""
    device = Device(lambda running: min(running, 2))
    device.run(1000)
    assert device.kept == 2
    device.speed = lambda _: 2.0
    device.run(3 * STALE)
    assert device.kept == 1
