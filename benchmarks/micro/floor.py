"""The same job without any feature: what a batcher costs at least on each way of waiting.

No limits, no cancelling, no failures, no statistics, no stop. Whoever needs one of these needs a batcher.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

Function = Callable[[list[Any]], Any]


class AsyncioFloor:
    """A deque, futures and one task for each batch, for coroutines of one loop and an async function."""

    def __init__(self, function: Function, max_batch_size: int) -> None:
        """Start empty."""
        self._function = function
        self._most = max_batch_size
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._busy = False

    def process(self, item: object) -> asyncio.Future[Any]:
        """Return the future of a result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((item, future))
        if not self._busy:
            self._busy = True
            self._task = loop.create_task(self._run(loop))
        return future

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting
        batch = [waiting.popleft() for _ in range(min(len(waiting), self._most))]
        results = await self._function([item for item, _ in batch])
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
        self._busy = bool(waiting)
        if self._busy:
            self._task = loop.create_task(self._run(loop))


class _Waiter:
    """One call of a thread: it waits for a lock that the worker releases."""

    __slots__ = ("done", "item", "result")

    def __init__(self, item: object) -> None:
        self.item = item
        self.done = threading.Lock()
        self.done.acquire()


class _Worker(ABC):
    """A deque, a Condition and one thread that takes what waits."""

    def __init__(self, function: Function, max_batch_size: int) -> None:
        self._function = function
        self._most = max_batch_size
        self._waiting: deque[Any] = deque()
        self._condition = threading.Condition(threading.Lock())
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._waiting.append(None)
            self._condition.notify()
        self._thread.join()

    def _work(self) -> None:
        waiting = self._waiting
        while True:
            with self._condition:
                while not waiting:
                    self._condition.wait()
                batch = [waiting.popleft() for _ in range(min(len(waiting), self._most))]
            if batch[-1] is None:
                return
            self._run(batch)

    @abstractmethod
    def _run(self, batch: list[Any]) -> None:
        """Call the function and let everybody go."""


class ThreadsFloor(_Worker):
    """For threads, each of which waits for a lock of its own."""

    def call(self, item: object) -> Any:  # noqa: ANN401 - whatever the function returns
        """Return a result."""
        waiter = _Waiter(item)
        with self._condition:
            self._waiting.append(waiter)
            self._condition.notify()
        waiter.done.acquire()
        return waiter.result  # type: ignore[attr-defined]  # set before the lock is released

    def _run(self, batch: list[_Waiter]) -> None:
        results = self._function([waiter.item for waiter in batch])
        for waiter, result in zip(batch, results, strict=True):
            waiter.result = result  # type: ignore[attr-defined]
            waiter.done.release()


class ThreadsForCoroutinesFloor(_Worker):
    """For coroutines of one loop: one `call_soon_threadsafe` for each batch."""

    def __init__(self, function: Function, max_batch_size: int) -> None:
        """Start the worker."""
        self._loop = asyncio.get_running_loop()
        super().__init__(function, max_batch_size)

    def process(self, item: object) -> asyncio.Future[Any]:
        """Return the future of a result."""
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._condition:
            self._waiting.append((item, future))
            self._condition.notify()
        return future

    def _run(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        results = self._function([item for item, _ in batch])
        self._loop.call_soon_threadsafe(_resolve, batch, results)


def _resolve(batch: list[tuple[Any, asyncio.Future[Any]]], results: list[Any]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)
