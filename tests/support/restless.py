"""Threads and loops that wake early, twice, late, or for nothing, from a seed; and machines that fail once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batchers
from batchers import ThreadingBatcher
from batchers.drivers import delivery, threads
from batchers.drivers.threading_driver import ThreadingDriver

chance = random.Random(0)
"""What all of them do next."""


class RestlessCondition(threading.Condition):
    """It wakes without a reason, before its time or after it, and others along with the one that is meant."""

    failing: Callable[[], None] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        if self.failing is not None:
            self.failing()
        deed = chance.random()
        if deed < 0.2:
            return super().wait(0)  # for nothing
        if deed < 0.4 and timeout is not None:
            return super().wait(timeout * chance.random())  # early
        woken = super().wait(timeout)
        if deed < 0.6:
            super().wait(0.001)  # late
        return woken

    def notify(self, n: int = 1) -> None:
        super().notify(n + chance.choice([0, 0, 1, 5]))
        if chance.random() < 0.2:
            super().notify(n)  # twice


class RestlessLoop(asyncio.SelectorEventLoop):
    """Its timers ring early or late, and what comes from other threads comes in another turn."""

    def call_later(  # type: ignore[override]  # any arguments
        self, delay: float, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        deed = chance.random()
        if deed < 0.5:
            delay *= chance.random()
        elif deed < 0.7:
            delay += 0.002
        return super().call_later(delay, callback, *args, **more)

    def call_soon_threadsafe(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.Handle:
        if chance.random() < 0.3:
            return super().call_soon_threadsafe(super().call_soon, callback, *args, **more)
        return super().call_soon_threadsafe(callback, *args, **more)


class Failing:
    """What a machine without memory or threads does: one call of its kind fails in a life, or `times` in a row."""

    def __init__(self, first: int, times: int = 1) -> None:
        self._failing = range(first, first + times)
        self._calls = 0
        self.failed = 0

    def __call__(self) -> None:
        """Fail, if this is one of them."""
        self._calls += 1
        if self._calls - 1 in self._failing:
            self.failed += 1
            raise MemoryError


class FailingLoop(RestlessLoop):
    """What it cannot do of the library's, once: make a task, set a timer, take a turn, hear of another thread.

    Or neither set a timer nor take a turn.
    """

    kind = ""
    failing = Failing(0)

    def create_task(self, coro: Any, **more: Any) -> asyncio.Task[Any]:
        """Make one, for all others at any time."""
        if self.kind == "task" and is_ours(coro.cr_code.co_filename) and coro.__name__ != "process":
            self.failing()
        return super().create_task(coro, **more)

    def call_later(  # type: ignore[override]  # any arguments
        self, delay: float, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        """Set a timer."""
        if self.kind in {"timer", "timer and turn"} and is_of_ours(callback):
            self.failing()
        return super().call_later(delay, callback, *args, **more)

    def call_soon(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.Handle:
        """Let it be called in the next turn."""
        after_a_timer = self.kind == "timer and turn" and self.failing.failed == 1
        if (after_a_timer or self.kind == "turn") and is_of_ours(callback):
            self.failing()
        return super().call_soon(callback, *args, **more)

    def call_soon_threadsafe(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, **more: Any
    ) -> asyncio.Handle:
        """Let it be called, from another thread."""
        if self.kind == "tell" and is_of_ours(callback):
            self.failing()
        return super().call_soon_threadsafe(callback, *args, **more)


def is_of_ours(callback: Any) -> bool:
    code = getattr(getattr(callback, "__func__", callback), "__code__", None)
    return code is not None and is_ours(code.co_filename)


def is_ours(file: str) -> bool:
    return Path(file).is_relative_to(Path(batchers.__file__).parent)


class RestlessWorkers(threads.WorkerThreads):
    """What they are given to do is done late."""

    failing: Callable[[], None] | None = None

    def run(self, work: Callable[[], object]) -> None:
        if self.failing is not None:
            self.failing()

        def work_late() -> None:
            dawdle()
            work()
            dawdle()

        dawdle()
        super().run(work_late)
        dawdle()


class RestlessDriver(ThreadingDriver[int, int]):
    """A driver with such conditions."""

    condition = RestlessCondition


class RestlessThreads(ThreadingBatcher[int, int]):
    """A batcher with such a driver."""

    _Batcher__batchers_driver_type = RestlessDriver


def dawdle() -> None:
    """Let others go first, now and then."""
    if chance.random() < 0.2:
        threading.Event().wait(0.001)


def make_restless(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Let everything wait like that, in the batchers' own threads too; `RestlessThreads` has its conditions."""
    chance.seed(seed)
    wait = delivery.Waiter.wait

    def wait_late(waiter: delivery.Waiter) -> None:
        dawdle()
        wait(waiter)
        dawdle()

    monkeypatch.setattr(delivery.Waiter, "wait", wait_late)
    monkeypatch.setattr(threads, "WorkerThreads", RestlessWorkers)
    monkeypatch.setattr(asyncio, "new_event_loop", RestlessLoop)
