"""Calls of the model for one request each, in threads, as most servers make them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batchers import BatcherError, BatcherStoppedError, DeadlineExceededError


class Alone:
    """So many calls at a time at most, whatever becomes of the requests that they are made for.

    Not FastAPI's own threads: those count a call as over when its request is, though its thread still runs. And
    what waits, waits here: the queue of an executor keeps a call that was cancelled until a thread is free for it.
    """

    def __init__(
        self, predict: Callable[[list[Any]], list[Any]], threads: int, longest: float | None = None
    ) -> None:
        """Call `predict` with one item at a time. `longest`: seconds of a request that says nothing of them."""
        self._predict = predict
        self._longest = longest
        self._pool = ThreadPoolExecutor(threads, "predict alone")
        self._free = asyncio.Semaphore(threads)
        self._limits: set[asyncio.Timeout] = set()
        self._running: set[asyncio.Future[list[Any]]] = set()
        self._over = False

    async def process(self, item: Any, *, timeout: float | None = None) -> Any:  # noqa: ANN401 - the user's
        """Return the result of an item within so many seconds, or raise its error.

        DeadlineExceededError when there is none in time, BatcherStoppedError after `give_up`.
        """
        if self._over:
            raise BatcherStoppedError
        limit = asyncio.timeout(self._longest if timeout is None else timeout)
        try:
            async with limit:
                self._limits.add(limit)
                try:
                    (answer,) = await self._call(item)
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise  # the model's own
            raise self._too_late() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _too_late(self) -> BatcherError:
        return BatcherStoppedError() if self._over else DeadlineExceededError()

    async def _call(self, item: Any) -> list[Any]:  # noqa: ANN401 - as above
        items = [item]
        await self._free.acquire()
        try:
            running = asyncio.get_running_loop().run_in_executor(self._pool, self._run, items)
        except BaseException:  # no thread can start: what is in the pool's queue all the same is to do nothing
            items.clear()
            self._free.release()
            raise
        self._running.add(running)
        running.add_done_callback(self._ended)
        return await asyncio.shield(running)  # whoever leaves, leaves the thread behind, and it still counts

    def _run(self, items: list[Any]) -> list[Any]:
        return self._predict(items) if items else []

    def _ended(self, running: asyncio.Future[list[Any]]) -> None:
        if not running.cancelled():
            running.exception()  # seen, also where its request is over: asyncio would log that nobody did
        self._running.discard(running)
        self._free.release()

    def give_up(self) -> None:
        """Tell all who wait that the server stops, and all who come. On the event loop."""
        self._over = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(0.0)

    def stop(self) -> None:
        """Wait for nobody. On the event loop; threads that run end with their calls."""
        self.give_up()
        for running in list(self._running):
            running.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
