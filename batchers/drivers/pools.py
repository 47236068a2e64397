"""The executor of a batcher: one that the user made, or one that a factory makes, again after it has broken."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor
from math import inf
from typing import Any

from batchers.errors import BatchFunctionError

from . import threads
from .invocation import BatcherId, caused_by, invoke

SHORTEST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0
"""Seconds before a new pool is made, if the last one broke without having run a batch: doubled each time."""

_orphans: list[Executor] = []
"""Pools of the parent of this process. If one were collected here, it might wait for a lock of the parent."""


class Pool:
    """An executor for sync batch functions, and what to do when it breaks."""

    __slots__ = ("_backoff", "_clock", "_closing", "_executor", "_factory", "_lock", "_next", "_proven", "broken")

    def __init__(self, executor: Executor | Callable[[], Executor], clock: Callable[[], float]) -> None:
        """Store an executor, or a factory of executors, which is called at the first batch."""
        handed_in = isinstance(executor, Executor)
        self._executor: Executor | None = executor if handed_in else None  # type: ignore[assignment]
        self._factory: Callable[[], Executor] | None = None if handed_in else executor  # type: ignore[assignment]
        self._clock = clock
        self._lock = threading.Lock()
        self._backoff = 0.0  # seconds
        self._next = -inf  # time at which the next pool may be made
        self._proven = False  # True if the pool has run a batch
        self._closing: list[threads.DaemonThread] = []  # the threads that shut pools down
        self.broken: BaseException | None = None  # the cause, if an executor that the user made is broken

    def send(self, batcher_id: BatcherId, function: Callable[[list[Any]], Any], items: list[Any]) -> RunningBatch:
        """Send a batch to the pool, and return it; a call of it waits for the result.

        Raises BatchFunctionError if the pool is broken or accepts
        no more work, and any error of the factory.
        """
        executor = self._current()
        try:
            # Of `batchers.arrays`: it stacks the items when they are pickled.
            pack = getattr(function, "__batchers_pack__", None)
            future = executor.submit(invoke, batcher_id, function, items if pack is None else pack(items))
        except BrokenExecutor as error:
            raise self._broke(executor, error) from error
        except RuntimeError as error:
            msg = f"the executor takes no more work ({error}): stop the batcher before its executor"
            raise BatchFunctionError(msg) from error
        return RunningBatch(self, executor, future)

    def finished(self, executor: Executor, future: concurrent.futures.Future[Any]) -> Any:  # noqa: ANN401 - the result
        """Return the result of a batch, or raise its error; wait for it if need be."""
        try:
            error = future.exception()
        except concurrent.futures.CancelledError as cancelled:
            raise asyncio.CancelledError from cancelled  # the batch was cancelled; its callers were not
        if isinstance(error, BrokenExecutor):
            # It is not raised itself: its traceback would refer to the frames of the executor, by `f_back`.
            raise self._broke(executor, error)
        self._proven = True
        if error is not None:
            raise error
        return future.result()

    def close(self) -> None:
        """Shut down the pool of a factory."""
        if self._factory is None:
            return
        with self._lock:
            executor, self._executor = self._executor, None
            self._next = inf
        if executor is not None:
            self._shut_down(executor)

    @property
    def threads(self) -> list[threads.DaemonThread]:
        """The threads that shut pools down."""
        return [thread for thread in self._closing if not thread.is_dead]

    @property
    def survives_fork(self) -> bool:
        """True if a child of this process can make a pool of its own."""
        return self._factory is not None

    def orphan(self) -> None:
        """Keep the pool of the parent alive in this process, a fork."""
        if self._executor is not None:
            _orphans.append(self._executor)

    def _current(self) -> Executor:
        """Return the pool, made anew if needed; no lock is held while the factory of the user runs."""
        if self.broken is not None:
            raise self._error(self.broken)
        executor = self._executor
        if executor is not None:
            return executor
        now = self._clock()
        if self._factory is None or now < self._next:
            if self._next == inf:
                msg = "the pool of the batcher was shut down, because the batcher was stopped"
                raise BatchFunctionError(msg)
            msg = f"the pool of the batcher broke again; the next one is made in {self._next - now:.1f} s"
            raise BatchFunctionError(msg)
        try:
            made: object = self._factory()
        except BaseException:
            self._wait_longer()
            raise
        if not isinstance(made, Executor):
            msg = f"executor() must return a concurrent.futures.Executor, not {made!r}"
            raise BatchFunctionError(msg)
        with self._lock:
            if self._executor is None and self._next < inf:
                self._executor, self._proven = made, False
                return made
            kept = self._executor
        made.shutdown(wait=False)  # another thread was faster, or the batcher was stopped
        return kept if kept is not None else self._current()

    def _broke(self, executor: Executor, cause: BaseException) -> BatchFunctionError:
        """Drop a broken pool, and return the error for the callers of its batches."""
        if self._factory is None:
            self.broken = cause
            return self._error(cause)
        with self._lock:
            mine = self._executor is executor
            if mine:
                self._executor = None
        if mine:
            if self._proven:
                self._backoff = 0.0
                self._next = self._clock()
            else:
                self._wait_longer()
            self._shut_down(executor)
        return caused_by(
            cause, f"the pool broke while it ran the batch ({cause}); the next batch gets another pool"
        )

    def _shut_down(self, executor: Executor) -> None:
        """Shut an executor down in a thread of its own, because its processes may be busy."""
        try:
            self._closing = [
                *self.threads,
                threads.DaemonThread(lambda _: executor.shutdown(), "batcher-pool-end"),
            ]
        except threads.StartError:
            executor.shutdown(wait=False)

    def _wait_longer(self) -> None:
        self._backoff = min(max(2 * self._backoff, SHORTEST_BACKOFF), LONGEST_BACKOFF)
        self._next = max(self._next, self._clock() + self._backoff)

    def _error(self, cause: BaseException) -> BatchFunctionError:
        msg = (
            f"the executor of this batcher is broken ({cause}): make a new batcher with a new one, or pass a "
            "function that makes one, and the batcher replaces it (executor=lambda: ProcessPoolExecutor(4))"
        )
        return caused_by(cause, msg)


class RunningBatch:
    """A batch that runs in a pool."""

    __slots__ = ("_executor", "_pool", "future")

    def __init__(self, pool: Pool, executor: Executor, future: concurrent.futures.Future[Any]) -> None:
        """Store the pool, the executor that it had at the start, and the future of the executor."""
        self._pool = pool
        self._executor = executor
        self.future = future

    def __call__(self) -> Any:  # noqa: ANN401 - the result is the user's
        """Wait for the result and return it, or raise the error of the batch."""
        return self._pool.finished(self._executor, self.future)
