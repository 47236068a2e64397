"""`AsyncioBatcher`: one event loop, one timer handle, and a task for each batch in flight.

Theory of operation
===================

The batcher lives on a home loop: that of the first coroutine that calls it, or one in a thread of its own
when the first caller is a thread without a loop. Only the home loop asks the core: `_advance` carries
out decisions until the core says Wait, then leaves one timer behind, or none. Events wake it by
`call_soon`, once for all offers of one turn of the loop, so a batch is closed after what has already
arrived. The lock is there for callers from other loops and threads and for `stats`; it is never held
while anything waits.

A loop can die with callers of other loops in the queue. Every call from elsewhere looks whether home
still runs, and moves if it does not. For callers who are already waiting, an asynchronous generator is kept
on the home loop: `asyncio.run` closes generators before it closes the loop, and that is the signal to move.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from inspect import isawaitable
from math import inf
from typing import Any, TypeVar

from . import calls
from .core import Batch, Done, Run, Wait
from .delivery import deliver
from .errors import BatchFunctionError
from .interface import Batcher, Loop
from .outcomes import Failed, Verdict, judge

T = TypeVar("T")
S = TypeVar("S")

LONGEST_WAIT = 86_400.0
"""Seconds after which a timer looks again; not every loop takes an endless number."""

MOST_THREADS = 1 << 16
"""Threads of the pool when `concurrency` is -1. They are started one by one, when none is free."""


class AsyncioBatcher(Batcher[T, S]):
    """A batcher made of callbacks and tasks of an event loop. `Batcher` says what it promises.

    An async `process_batch` runs on the loop of the first caller (or, called from threads only, on one in a
    thread of the batcher's own); a sync one in a pool of `concurrency` threads of the batcher's own, or
    in `executor`.
    """

    __slots__ = ("_guard", "_loop_thread", "_pool", "_tasks", "_timer", "_timer_at")

    def _settle_in(self) -> None:
        self._tasks: dict[Batch[T], asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._pool: ThreadPoolExecutor | None = None
        self._loop_thread: calls.LoopThread | None = None
        self._guard: AsyncGenerator[None, None] | None = None

    def _has_threads(self) -> bool:
        return self._loop_thread is not None

    # Waiting

    def _wake(self, here: Loop | None) -> None:
        if self._home is None:
            self._move(here)
        self._on_home(here, self._advance)

    def _on_home(self, here: Loop | None, callback: Callable[..., object], *args: object) -> None:
        """Let the home loop call something soon, in a context of nobody's."""
        home = self._home
        if home is None:
            return
        call = home.call_soon if here is home else home.call_soon_threadsafe
        call(callback, *args, context=Context())

    def _advance(self) -> None:
        """Ask the core and do what it says, until it says Wait."""
        home = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._home is not home:
                    return  # moved; the new home asks
                decision = self._decide()
                if isinstance(decision, Wait):
                    self._armed = decision.until
                    self._set_timer(home, decision.until)
                    return
                if isinstance(decision, Done):
                    self._end()
                    return
            if isinstance(decision, Run):
                self._start(decision.batch, home)
            else:
                deliver(decision.settled, home)

    def _set_timer(self, home: Loop, until: float) -> None:
        if self._timer is not None:
            if self._timer_at <= until < inf:
                return  # when it rings, the core is asked again: cheaper than a new timer for each item
            self._timer.cancel()
            self._timer = None
        if until < inf:
            self._timer_at = until
            seconds = min(max(until - self._clock(), 0.0), LONGEST_WAIT)
            self._timer = home.call_later(seconds, self._ring, context=Context())

    def _ring(self) -> None:
        self._timer = None
        self._advance()

    # Running batches

    def _start(self, batch: Batch[T], home: Loop) -> None:
        task = home.create_task(self._run(batch, home), name=f"{self.name}-batch", context=Context())
        if not task.done():  # an eager task factory may have run it already
            self._tasks[batch] = task

    async def _run(self, batch: Batch[T], home: Loop) -> None:
        verdict: Verdict[Any]
        try:
            verdict = judge(await self._evaluate(batch.items, home), len(batch.tickets))
        except BaseException as error:  # noqa: BLE001 - promise 6: whatever it is, it goes to the callers
            if isinstance(error, GeneratorExit) and calls.running_loop() is not home:
                raise  # the batch did not raise it: the loop is gone, and this coroutine is collected
            trace = error.__traceback__
            verdict = Failed(error.with_traceback(trace and trace.tb_next))
        self._finish(batch, verdict, home)
        with self._lock:
            self._tasks.pop(batch, None)
            self._rearm(home)

    async def _evaluate(self, items: list[T], home: Loop) -> object:
        calls.enter(self._mark)
        if self._is_async:
            return await self.process_batch(items)  # type: ignore[misc]  # it is async
        function = self._function or self.process_batch
        executor = self._options.executor or self._own_pool()
        result = await asyncio.wrap_future(calls.send(executor, self._mark, function, items), loop=home)
        return await result if isawaitable(result) else result

    def _own_pool(self) -> Executor:
        with self._lock:
            if self._pool is None:
                most = min(self._options.slots, MOST_THREADS)
                self._pool = ThreadPoolExecutor(most, thread_name_prefix=f"{self.name}-worker")
            return self._pool

    # Living and moving

    def _move(self, here: Loop | None) -> None:
        home = self._home
        if home is None or not home.is_running():
            self._settle_on(here, lost=None)
        elif self._guard is None and (self._loop_thread is None or home is not self._loop_thread.loop):
            self._guard = _watch(weakref.ref(self), home)
            self._on_home(here, _run_to_yield, self._guard)

    def _settle_on(self, here: Loop | None, *, lost: Loop | None) -> None:
        """Make the caller's loop home, or one of our own; take along what waits. Lock held."""
        if here is None:
            if self._loop_thread is None:
                self._loop_thread = calls.LoopThread(f"{self.name}-loop")
                weakref.finalize(self, self._loop_thread.stop_soon).atexit = False
            here = self._loop_thread.loop
        self._home = here
        self._timer = self._guard = None
        self._armed = inf
        settled: list[Any] = []
        for batch, task in list(self._tasks.items()):
            if task.get_loop() is lost or task.get_loop().is_closed():
                del self._tasks[batch]  # it will never end by itself
                msg = "the event loop that ran the batch was closed: stop the batcher before its loop"
                settled += self._core.finish(batch, Failed(BatchFunctionError(msg)), self._clock())
        if settled:
            here.call_soon_threadsafe(deliver, settled, here)
        if not self._core.idle:
            self._armed = -inf
            here.call_soon_threadsafe(self._advance, context=Context())

    def _lose_home(self, home: Loop) -> None:
        """Leave a loop that is about to be closed; those who still wait are served elsewhere."""
        with self._lock:
            if self._home is home and not self._core.idle:
                self._settle_on(None, lost=home)

    def _retire(self) -> None:
        here = calls.running_loop()
        home = self._home
        if home is not None and not home.is_closed():
            if self._timer is not None:
                self._on_home(here, self._timer.cancel)
            if self._guard is not None:
                self._on_home(here, _close, self._guard)
            for task in self._tasks.values():
                self._on_home(here, task.cancel)
        self._timer = self._guard = None
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()

    def _join(self, *, abandoned: bool) -> None:
        if self._pool is not None and not abandoned:
            self._pool.shutdown(wait=True)
        if self._loop_thread is not None:
            self._loop_thread.join(limit=calls.GRACE if abandoned else None)


async def _watch(ref: weakref.ref[AsyncioBatcher[Any, Any]], home: Loop) -> AsyncGenerator[None, None]:
    """Wait for `home` to close its generators."""
    try:
        yield
    finally:
        batcher = ref()
        if batcher is not None:
            batcher._lose_home(home)  # noqa: SLF001 - a part of the batcher


def _run_to_yield(guard: AsyncGenerator[None, None]) -> None:
    """Start the generator on the loop that runs here, which takes note of it."""
    with suppress(StopIteration):
        guard.__anext__().__await__().__next__()


def _close(guard: AsyncGenerator[None, None]) -> None:
    with suppress(StopIteration):
        guard.aclose().__await__().__next__()
