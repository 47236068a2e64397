"""What only the threading backend can get wrong: its threads. One-sided, because the other has none to count."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from batchers import DeadlineExceededError, ThreadingBatcher
from batchers.drivers import threading_driver
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, until
from tests.support.inside import driver_of, threading_driver_of


def workers() -> int:
    return len([thread for thread in threading.enumerate() if "-worker-" in thread.name])


async def test_one_thread_is_enough(gate: Gate) -> None:
    """One batch in flight and no deadlines: one thread, also with callers while it runs."""
    batcher: ThreadingBatcher[int, int] = ThreadingBatcher(gate.function("sync"), max_batch_size=1)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(20)]
    await until(lambda: gate.started == 1)
    assert workers() == 1
    gate.open()
    await asyncio.gather(*tasks)
    assert workers() == 1
    await batcher.stop()
    assert workers() == 0


def test_a_first_call_does_not_wait_for_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker runs before its starter has ended the start, which is no reason to sleep."""
    naps: list[float] = []
    monkeypatch.setattr(threading_driver, "time", SimpleNamespace(sleep=naps.append))
    for number in range(50):
        batcher: ThreadingBatcher[int, int] = ThreadingBatcher(list)
        assert batcher.call(number) == number
        batcher.close()
    assert not naps


async def test_a_second_one_watches_deadlines(gate: Gate) -> None:
    """One runs, one keeps the time; no more, whatever the number of calls."""
    batcher: ThreadingBatcher[int, int] = ThreadingBatcher(gate.function("sync"), max_batch_size=1, timeout=60.0)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(20)]
    await until(lambda: gate.started == 1)
    await until(lambda: batcher.stats().queued == 19)
    assert workers() == 2
    gate.open()
    await asyncio.gather(*tasks)
    assert workers() == 2
    await batcher.stop()


async def test_as_many_threads_as_batches_in_flight(gate: Gate) -> None:
    """And they are kept for the next ones."""
    batcher: ThreadingBatcher[int, int] = ThreadingBatcher(gate.function("sync"), max_batch_size=1, concurrency=4)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(20)]
    await until(lambda: gate.started == 4)
    assert workers() <= 5
    gate.open()
    await asyncio.gather(*tasks)
    await asyncio.gather(*(batcher.process(n) for n in range(20)))
    assert workers() <= 5
    await batcher.stop()


async def test_one_call_for_each_loop_and_batch(gate: Gate, flavour: Flavour) -> None:
    """Fifty coroutines of a loop hear of their batch by one call."""
    loop = asyncio.get_running_loop()
    batcher: ThreadingBatcher[int, int] = ThreadingBatcher(gate.function(flavour))
    first = asyncio.create_task(batcher.process(-1))
    await until(lambda: gate.started == 1)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(50)]
    await until(lambda: batcher.stats().queued == 50)
    called = 0

    class Counting:
        """Stands for the loop in the requests."""

        def call_soon_threadsafe(self, *args: Any, **options: Any) -> Any:
            nonlocal called
            called += 1
            return loop.call_soon_threadsafe(*args, **options)

        def is_closed(self) -> bool:
            return False

    stand_in = Counting()
    for request in driver_of(batcher).core._groups.waiting():
        request.loop = stand_in
    gate.open()
    await asyncio.gather(first, *tasks)
    await batcher.stop()

    assert called == 1


async def test_a_wake_up_too_many_is_harmless(make: Make, gate: Gate) -> None:
    """Conditions may wake without a reason."""
    gate.open()
    batcher: ThreadingBatcher[int, int] = ThreadingBatcher(gate.function("sync"), concurrency=2)
    for n in range(200):
        driver = threading_driver_of(batcher)
        with driver.lock:
            driver._lead.notify_all()
            driver._follow.notify_all()
        assert await batcher.process(n) == n
    await batcher.stop()


def test_a_deadline_for_which_no_thread_started(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call finds somebody to watch it, also while no slot is free."""

    def refuse(*_: object) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with ThreadingBatcher(gate.function("sync")) as batcher:
        running = batcher.submit(1)
        while gate.started < 1:
            pass
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            unwatched = batcher.submit(2, timeout=0.001)
        later = batcher.submit(3)

        assert isinstance(unwatched.exception(10), DeadlineExceededError)
        assert not running.done()
        gate.open()
        assert (running.result(), later.result()) == (1, 3)
