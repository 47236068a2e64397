"""Home loop: the event loop on which the asyncio driver runs, its timer, and the change of the home loop.

The home loop is the loop of the callers, while all of them use the same loop. When a call comes from elsewhere,
the driver moves to a loop in its own thread, which no caller can close. When the home loop has ended before the
driver (for example if `asyncio.run` is called again), the driver starts on the loop of the next caller. Batches on
a former home loop stay there. The driver checks them from the new home loop.
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

FORMER_HOME_SECONDS = 1.0  # interval between two checks of the batches on a former home loop


class HomeLoopDriver(Driver[T, S]):
    """Driver that runs on an event loop, with one timer."""

    __slots__ = ("_awaitables", "_loop_thread", "_tasks", "_timer", "_timer_at")

    def _set_up(self) -> None:
        # Tasks that will ask the core (None), or that have a batch which has not ended yet.
        self._tasks: dict[asyncio.Task[None], Batch[T] | None] = {}
        # Awaitables that a sync function has returned, each with the loop that will await it.
        self._awaitables: dict[Batch[T], tuple[Loop, Awaitable[Any]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._loop_thread: LoopThread | None = None

    @abstractmethod
    def _advance(self) -> None:
        """Execute the decisions of the core until the decision is Wait; runs on the home loop."""

    @abstractmethod
    def _start_awaitable(self, batch: Batch[T]) -> None:
        """Await the awaitable that a sync batch function has returned; runs on the home loop."""

    def _on_home(self, here: Loop | None, callback: Callable[..., object], *args: object) -> None:
        """Schedule a callback on the home loop, in an empty context; do nothing if there is no home loop."""
        if self.home is not None and self.home is here:
            self.home.call_soon(callback, *args, context=Context())
        elif self.home is not None:
            call_soon_threadsafe(self.home, callback, *args)

    def _set_timer(self, home: Loop, until: float) -> None:
        if self._timer is not None:
            if self._timer_at <= until < inf:
                return  # the old timer asks the core again, which costs less than a new timer for each item
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
        """Ask the core in the next iteration of the loop, because there is no memory for a timer.

        This repeats in every iteration until there is memory. The caller holds the lock.
        """
        self._next_wakeup = -inf
        try:
            home.call_soon(self._advance, context=Context())
        except MemoryError as error:
            self._abort(error)  # nothing would ask the core, and all callers would hang

    def _ring(self) -> None:
        if asyncio.get_running_loop() is self.home:  # otherwise the timer belongs to a former home loop
            self._timer = None
            self._advance()

    # Choice and change of the home loop

    def _move(self, here: Loop | None) -> None:
        if (home := self._choose_home(here)) is not self.home:
            if self.home is not None and self._timer is not None:
                call_soon_threadsafe(self.home, self._timer.cancel)
            self.home = home
            self._timer = None
            self._next_wakeup = inf
            if self._tasks or self._awaitables:
                call_soon_threadsafe(home, self._check_former_homes)
            if not self.core.idle:
                self._next_wakeup = -inf
                call_soon_threadsafe(home, self._advance)

    def _choose_home(self, here: Loop | None) -> Loop:
        alive = self.home is not None and self.home.is_running()
        if here is not None and not alive:
            return here
        # The callers use several loops, or none: choose a loop that none of them can close.
        if self._loop_thread is None:
            self._loop_thread = LoopThread(f"{self.name}-loop")
            self._finally(self._loop_thread.stop_soon)
        return self._loop_thread.loop

    def _leave_dead_home(self) -> None:
        """Change the home loop if it does not run any more while requests still wait.

        Only threads of the batcher call this method. The caller holds the lock.
        """
        if self.home is None or not self.home.is_running():
            self._move(None)

    def _check_former_homes(self) -> None:
        """Check the batches on a former home loop: now, and every FORMER_HOME_SECONDS while there are any.

        A batch whose loop does not run any more may never end. It fails with BatchFunctionError, because its slot
        is needed. An awaitable that waits for such a loop is passed to the home loop.
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
                    home.call_later(FORMER_HOME_SECONDS, self._check_former_homes)
        finally:
            # The callers may be threads, or coroutines of a loop that has ended or that may run again.
            deliver(settled, home)

    def leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:
        """Return the tasks of batches that run on loop `here`."""
        return {task for task in list(self._tasks) if task.get_loop() is here}
