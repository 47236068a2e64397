"""The home loop: the event loop on which the asyncio driver runs, its timer, and moving from one loop to another.

The driver lives on the loop of its callers, as long as all come from one. When a caller comes from elsewhere,
it moves to a loop in a thread of its own, which no caller can close. When its home has ended without it
(`asyncio.run` once more), it starts on the next caller's loop. Batches that began on a former home stay there,
and are looked after from the new one.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import Context
from math import inf
from typing import Any, TypeVar

from batchers.core.decisions import Batch
from batchers.core.outcomes import Failed
from batchers.errors import BatchFunctionError

from .delivery import deliver
from .driver import Driver
from .loops import LONGEST_WAIT, Loop, LoopThread, call_soon_threadsafe

T = TypeVar("T")
S = TypeVar("S")

STRAY_SECONDS = 1.0  # how often batches on a former home are looked after


class HomeLoopDriver(Driver[T, S]):
    """A driver that lives on an event loop, with one timer."""

    __slots__ = ("_awaitables", "_loop_thread", "_tasks", "_timer", "_timer_at")

    def _set_up(self) -> None:
        # Tasks that will ask the core, or have a batch that did not end yet.
        self._tasks: dict[asyncio.Task[None], Batch[T] | None] = {}
        # Awaitables that a sync function has returned, on their way to a loop.
        self._awaitables: dict[Batch[T], tuple[Loop, Awaitable[Any]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._loop_thread: LoopThread | None = None

    @abstractmethod
    def _advance(self) -> None:
        """Do what the core says, until it says Wait. Runs on the home loop."""

    @abstractmethod
    def _start_awaitable(self, batch: Batch[T]) -> None:
        """Await what a sync batch function has returned. Runs on the home loop."""

    def _on_home(self, here: Loop | None, callback: Callable[..., object], *args: object) -> None:
        """Let the home loop call something soon, in a context of its own."""
        if self.home is not None and self.home is here:
            self.home.call_soon(callback, *args, context=Context())
        elif self.home is not None:
            call_soon_threadsafe(self.home, callback, *args)

    def _set_timer(self, home: Loop, until: float) -> None:
        if self._timer is not None:
            if self._timer_at <= until < inf:
                return  # when it rings, the core is asked again: cheaper than a new timer for each item
            self._timer.cancel()
            self._timer = None
        if until < inf:
            self._timer_at = until
            seconds = min(max(until - self.clock(), 0.0), LONGEST_WAIT)
            try:
                self._timer = home.call_later(seconds, self._ring, context=Context())
            except MemoryError:
                self._look_again(home)

    def _look_again(self, home: Loop) -> None:
        """Ask in every turn of the loop until there is memory for a timer. Lock held."""
        self._next_wakeup = -inf
        try:
            home.call_soon(self._advance, context=Context())
        except MemoryError as error:
            self._abort(error)  # nobody would ask, so all are told

    def _ring(self) -> None:
        if asyncio.get_running_loop() is self.home:  # else it was set before a move
            self._timer = None
            self._advance()

    # Living and moving

    def _move(self, here: Loop | None) -> None:
        if (home := self._choose_home(here)) is not self.home:
            if self.home is not None and self._timer is not None:
                call_soon_threadsafe(self.home, self._timer.cancel)
            self.home = home
            self._timer = None
            self._next_wakeup = inf
            if self._tasks or self._awaitables:
                call_soon_threadsafe(home, self._look_after_strays)
            if not self.core.idle:
                self._next_wakeup = -inf
                call_soon_threadsafe(home, self._advance)

    def _choose_home(self, here: Loop | None) -> Loop:
        alive = self.home is not None and self.home.is_running()
        if here is not None and not alive:
            return here
        # Callers from two places, or from none: a home that none of them can close.
        if self._loop_thread is None:
            self._loop_thread = LoopThread(f"{self.name}-loop")
            self._finally(self._loop_thread.stop_soon)
        return self._loop_thread.loop

    def _leave_dead_home(self) -> None:
        """In a thread of the batcher's own: move if the home has ended under those who still wait. Lock held."""
        if self.home is None or not self.home.is_running():
            self._move(None)

    def _look_after_strays(self) -> None:
        """See, at once and from time to time, whether batches on a loop that is home no more can still end.

        Those whose loop runs no more may never end, and their slots are needed.
        """
        home = asyncio.get_running_loop()
        settled: list[Any] = []
        try:
            with self.lock:
                for task, batch in list(self._tasks.items()):
                    if batch is not None and not task.get_loop().is_running():
                        self._tasks.pop(task, None)
                        msg = "the event loop that ran the batch has stopped: stop the batcher before its loop"
                        settled += self.core.finish(batch, Failed(BatchFunctionError(msg)), self.clock())
                for batch, (loop, awaitable) in list(self._awaitables.items()):
                    if not loop.is_running():
                        self._awaitables[batch] = (home, awaitable)
                        home.call_soon(self._start_awaitable, batch, context=Context())
                self._update_wakeup(home)
                elsewhere = [task.get_loop() for task, batch in list(self._tasks.items()) if batch is not None]
                elsewhere += [loop for loop, _ in self._awaitables.values()]
                if any(loop is not home for loop in elsewhere):
                    home.call_later(STRAY_SECONDS, self._look_after_strays)
        finally:
            # Their callers are of a loop that is gone, or of one that may run again, or threads.
            deliver(settled, home)

    def leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:
        """Return the tasks of batches that run on loop `here`."""
        return {task for task in list(self._tasks) if task.get_loop() is here}
