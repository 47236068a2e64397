"""A batch function that tells what it got and waits until the test lets it go on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal

Flavour = Literal["sync", "async"]


class Gate:
    """Records every batch; answers each item with `answer(item)` once the gate lets the batch through.

    `gate.function("sync")` blocks its thread while it waits, `gate.function("async")` suspends. Batches
    pass in the order in which they came, `let(n)` at a time, or freely after `open()`.
    """

    def __init__(self, answer: Callable[[Any], Any] = lambda item: item) -> None:
        self.answer = answer
        self.seen: list[list[Any]] = []
        self.result: Callable[[list[Any]], Any] = lambda items: [self.answer(item) for item in items]
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], object]] = deque()
        self._passes = 0.0

    @property
    def started(self) -> int:
        """Batches that have begun."""
        return len(self.seen)

    @property
    def items(self) -> list[Any]:
        """All items that were ever run, in order."""
        return [item for batch in self.seen for item in batch]

    def function(self, flavour: Flavour) -> Callable[[list[Any]], Any]:
        """Return the batch function."""
        return self._sync if flavour == "sync" else self._async

    def let(self, batches: float) -> None:
        """Let so many batches pass, waiting or to come; the oldest first."""
        with self._lock:
            self._passes += batches
            go = []
            while self._waiting and self._passes >= 1:
                self._passes -= 1
                go.append(self._waiting.popleft())
        for release in go:
            release()

    def let_waiting(self, place: int) -> None:
        """Let one of the batches that wait now pass: 0 is the oldest, -1 the youngest."""
        with self._lock:
            release = self._waiting[place]
            del self._waiting[place]
        release()

    @property
    def waiting(self) -> int:
        """Batches that wait."""
        return len(self._waiting)

    def open(self) -> None:
        """Let all pass from now on."""
        self.let(float("inf"))

    def _enter(self, items: list[Any], release: Callable[[], object]) -> bool:
        """Note the batch; return whether it may pass at once."""
        with self._lock:
            self.seen.append(list(items))
            if self._passes >= 1:
                self._passes -= 1
                return True
            self._waiting.append(release)
            return False

    def _sync(self, items: list[Any]) -> Any:
        passed = threading.Event()
        if not self._enter(items, passed.set):
            passed.wait()
        return self.result(items)

    async def _async(self, items: list[Any]) -> Any:
        loop = asyncio.get_running_loop()
        passed: asyncio.Future[None] = loop.create_future()

        def release() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has died, and the batch with it
                loop.call_soon_threadsafe(_pass, passed)

        if not self._enter(items, release):
            await passed
        return self.result(items)


def _pass(passed: asyncio.Future[None]) -> None:
    if not passed.done():
        passed.set_result(None)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state. The test's own time limit ends a wait for what never comes."""
    while not condition():
        await asyncio.sleep(0)


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """Return results, and exceptions as values."""
    return await asyncio.gather(*calls, return_exceptions=True)
