"""Time that only the test moves, for both backends."""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from batchers import AsyncioBatcher, Batcher, ThreadingBatcher
from batchers.drivers.asyncio_driver import AsyncioDriver
from batchers.drivers.threading_driver import ThreadingDriver

from .gate import until
from .inside import threading_driver_of


class _SkippingSelector(selectors.DefaultSelector):
    """Instead of waiting for a while it moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        self.now = max(self.now + timeout, math.nextafter(self.now, math.inf))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose waiting takes no time: a thousand of its seconds pass in one of ours."""

    def __init__(self) -> None:
        self._virtual = _SkippingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


Seconds: TypeAlias = Callable[[list[Any]], float]
"""How long a batch takes."""


class VirtualTime(ABC):
    """A backend in a world where the test moves the time."""

    @abstractmethod
    def now(self) -> float:
        """Return the seconds so far."""

    @abstractmethod
    def make(
        self, function: Callable[[list[Any]], Any], seconds: Seconds | None = None, **options: Any
    ) -> Batcher[Any, Any]:
        """Return a batcher that lives in this time, with a function that takes so much of it; None: none."""

    @abstractmethod
    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due by then."""

    @abstractmethod
    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Run a scenario to its end."""

    wake_ups: int
    """How often the batcher has asked its core."""


class LoopTime(VirtualTime):
    """For AsyncioBatcher: the loop's own time is virtual."""

    def __init__(self) -> None:
        self._loop = VirtualLoop()
        self.wake_ups = 0

    def now(self) -> float:
        return self._loop.time()

    def make(
        self, function: Callable[[list[Any]], Any], seconds: Seconds | None = None, **options: Any
    ) -> Batcher[Any, Any]:
        world = self

        class VirtualDriver(AsyncioDriver[Any, Any]):
            clock = staticmethod(world._loop.time)

            def _decide(self) -> Any:
                world.wake_ups += 1
                return super()._decide()

        class Virtual(AsyncioBatcher[Any, Any]):
            _Batcher__batchers_driver_type = VirtualDriver

        async def process_batch(items: list[Any]) -> Any:
            if seconds is not None:
                await asyncio.sleep(seconds(items))
            return function(items)

        return Virtual(process_batch, **options)

    async def advance(self, seconds: float) -> None:
        # Through a time just before, so that what is due then has already happened.
        done = self._loop.create_future()
        self._loop.call_later(seconds, done.set_result, None)
        await done
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(scenario)


class ThreadTime(VirtualTime):
    """For ThreadingBatcher: a Condition that wakes when the test's clock says so."""

    def __init__(self) -> None:
        self._now = 0.0
        self.asleep = 0
        self.alarms: list[tuple[float, threading.Condition]] = []
        self.wake_ups = 0
        self._batcher: ThreadingBatcher[Any, Any] | None = None

    def now(self) -> float:
        return self._now

    def make(
        self, function: Callable[[list[Any]], Any], seconds: Seconds | None = None, **options: Any
    ) -> Batcher[Any, Any]:
        world = self

        class FakeCondition(threading.Condition):
            """Counts its sleepers under the batcher's lock; times out only when the clock is moved."""

            sleepers = 0

            def wait(self, timeout: float | None = None) -> bool:
                if timeout is not None:
                    alarm = (world._now + timeout, self)
                    world.alarms.append(alarm)
                self.sleepers += 1
                world.asleep += 1
                super().wait()
                if timeout is not None:
                    world.alarms.remove(alarm)
                return True

            def notify(self, n: int = 1) -> None:
                woken = min(n, self.sleepers)
                self.sleepers -= woken
                world.asleep -= woken
                super().notify(n)

            def notify_all(self) -> None:
                self.notify(max(self.sleepers, 1))

        class VirtualDriver(ThreadingDriver[Any, Any]):
            clock = staticmethod(lambda: world._now)
            condition = FakeCondition

            def _decide(self) -> Any:
                world.wake_ups += 1
                return super()._decide()

        class Virtual(ThreadingBatcher[Any, Any]):
            _Batcher__batchers_driver_type = VirtualDriver

        def process_batch(items: list[Any]) -> Any:
            if seconds is not None:
                self._sleep(seconds(items))
            return function(items)

        self._batcher = Virtual(process_batch, **options)
        return self._batcher

    def _sleep(self, seconds: float) -> None:
        """Let this thread, a worker's, take so much of this time."""
        assert self._batcher is not None
        driver = threading_driver_of(self._batcher)
        with driver.lock:
            driver.condition(driver.lock).wait(seconds)

    async def advance(self, seconds: float) -> None:
        end = self._now + seconds
        await self.settle()
        while self.alarms and (first := min(self.alarms, key=lambda alarm: alarm[0]))[0] <= end:
            self._now = max(first[0], self._now)
            with first[1]:
                first[1].notify_all()
            await self.settle()
        self._now = end

    async def settle(self) -> None:
        """Wait until every worker sleeps, and its callers have heard of what it did."""
        assert self._batcher is not None
        driver = threading_driver_of(self._batcher)

        def all_asleep() -> bool:
            with driver.lock:
                return self.asleep == len(driver._workers)

        for _ in range(3):
            await until(all_asleep)
            for _ in range(10):
                await asyncio.sleep(0)

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner() as runner:
            runner.run(scenario)
