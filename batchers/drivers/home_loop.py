"""Home loop: the event loop on which the asyncio driver runs, its timer, and the loop of the batch function.

The *home loop* is the loop of the callers, while all of them use the same loop. When a call comes from elsewhere,
the driver moves to a loop in its own thread, which no caller can close. When the home loop has ended before the
driver (for example if `asyncio.run` is called again), the driver starts on the loop of the next caller.

The *function's loop* is the loop on which async functions run, and awaitables that a sync function has returned.
It is chosen once, by the first call: the loop of the coroutine that calls, or the batcher's own loop for a
thread. It stays the same until it ends, also when the driver moves, because the function may use objects that
belong to it. If it ends, the batches that run there fail, and the next batch runs on the home loop. Nothing tells
the driver that a loop of a caller has ended. So while a batch runs on another loop than the home loop, the driver
checks that loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import Context
from math import inf
from typing import Any, TypeVar

from batchers.core.decisions import Batch
from batchers.core.outcomes import Failed
from batchers.errors import BatchFunctionError

from .driver import Driver
from .loops import LONGEST_WAIT, RETRY_SECONDS, Loop, LoopThread, call_soon_threadsafe

T = TypeVar("T")
S = TypeVar("S")

CHECK_SECONDS = 1.0
"""Seconds between two checks that the loop of a batch still runs."""


class HomeLoopDriver(Driver[T, S]):
    """Driver that runs on an event loop, with one timer."""

    __slots__ = ("_checking", "_handed_over", "_loop_thread", "_tasks", "_timer", "_timer_at", "function_loop")

    needs_loop = True

    def _set_up(self) -> None:
        self.function_loop: Loop | None = None
        # Tasks that will ask the core (None), or that have a batch which has not ended yet.
        self._tasks: dict[asyncio.Task[None], Batch[T] | None] = {}
        # Batches on their way to the loop that will await them: the loop, and the awaitable of a sync function.
        self._handed_over: dict[Batch[T], tuple[Loop, Awaitable[Any] | None]] = {}
        self._checking = False  # True while a check is scheduled
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._loop_thread: LoopThread | None = None

    @abstractmethod
    def _advance(self) -> None:
        """Execute the decisions of the core until the decision is Wait; runs on the home loop."""

    @abstractmethod
    def _go_on(self) -> None:
        """Repeat, on the own loop, what an exception from outside has interrupted there."""

    @abstractmethod
    def _start_task(self, batch: Batch[T]) -> None:
        """Start the task of a batch that was handed over to this loop."""

    def _on_home(self, here: Loop | None, callback: Callable[..., object], *args: object) -> None:
        """Schedule a callback on the home loop, in an empty context; do nothing if there is no home loop."""
        home = self.home
        if home is not None and home is here:
            home.call_soon(callback, *args, context=Context())
        elif home is not None:
            call_soon_threadsafe(home, callback, *args)

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

        This repeats in every iteration until there is memory.
        """
        with self.lock:
            self._next_wakeup = -inf
        try:
            home.call_soon(self._advance, context=Context())
        except MemoryError as error:
            with self.lock:
                self._abort(error)  # nothing would ask the core, and all callers would hang
            self._perform(home)

    def _ring(self) -> None:
        if asyncio.get_running_loop() is self.home:  # otherwise the timer belongs to a former home loop
            self._timer = None
            self._advance()

    # Choice and change of the loops

    def _settle(self, here: Loop | None) -> None:
        found = self._loop_thread
        if found is not None and self.home is found.loop is self.function_loop and found.is_running:
            return  # the usual case for threads, in less time
        moved = False
        while not moved:
            home = self.home
            alive = home is not None and home.is_running()
            if here is not None and not alive:
                if self._is_starting():
                    return  # a thread was first, and starts a loop
                new: Loop = here
            else:  # the callers use several loops, or none: choose a loop that none of them can close
                own = self._own_loop()
                if own is None:
                    return  # another thread starts something; it will perform what this call plans
                new = own.loop
            moved = self._move(home, new, here)

    def _own_loop(self) -> LoopThread | None:
        """Return the loop in a thread of the driver, started if needed; None: another thread starts something."""
        found = self._loop_thread
        if found is not None and found.is_running:
            return found
        with (start := threading.Lock()):
            if not self._may_start(start):
                return None
            found = self._loop_thread
            if found is None or not found.is_running:  # otherwise another thread was faster
                found = self._loop_thread = LoopThread(
                    f"{self.name}-loop", weakref.WeakMethod(self._go_on), weakref.WeakMethod(self._after_loop)
                )
                self._finally(found.stop_soon)
                if self.core.done:
                    found.stop_soon()
        return found

    def _move(self, old: Loop | None, new: Loop, here: Loop | None) -> bool:
        """Make another loop the home loop, and that of the function if its own has ended; without the lock.

        Return False, without a change, if another thread has moved meanwhile.
        """
        with self.lock:
            if self.home is not old:
                return False
            if self.function_loop is None or not self.function_loop.is_running():
                self.function_loop = here or new
            if new is old:
                return True
            self.home = new
            timer, self._timer = self._timer, None
            self._next_wakeup = inf
            if not self.core.idle:
                self._next_wakeup = -inf
                self._planned += 1
        if old is not None and timer is not None:
            call_soon_threadsafe(old, timer.cancel)
        if self._tasks or self._handed_over:
            self._checking = True
            call_soon_threadsafe(new, self._check_loops)
        return True

    def _leave_dead_home(self) -> None:
        """Change the home loop if it does not run any more; the caller does not hold the lock.

        Only threads of the batcher call this method.
        """
        if self.home is None or not self.home.is_running():
            self._settle(None)

    def _hand_over(self, batch: Batch[T], awaitable: Awaitable[Any] | None) -> None:
        """Have a batch awaited on the function's loop: its awaitable, or a call of the async function."""
        while True:
            loop = self.function_loop
            if loop is None or not loop.is_running():
                loop = self.function_loop = self.home
            if loop is not None:
                self._handed_over[batch] = loop, awaitable
                if call_soon_threadsafe(loop, self._start_task, batch):
                    break
            # The loop is closed, or another thread starts one. Only a worker gets here: on a loop, that loop runs.
            time.sleep(RETRY_SECONDS)
            self._leave_dead_home()
        self._check_later(self.home)

    def _check_later(self, home: Loop | None) -> None:
        """Check the loops of all batches after CHECK_SECONDS, if one of them is not the home loop."""
        if home is not None and not self._checking and self._elsewhere(home):
            self._checking = True
            call_soon_threadsafe(home, home.call_later, CHECK_SECONDS, self._check_loops)

    def _elsewhere(self, home: Loop) -> bool:
        loops = [task.get_loop() for task, batch in list(self._tasks.items()) if batch is not None]
        loops += [loop for loop, _ in list(self._handed_over.values())]
        return any(loop is not home for loop in loops)

    def _check_loops(self) -> None:
        """Check that the loops of all batches run: now, and every CHECK_SECONDS while one is not the home loop.

        A batch whose loop does not run any more may never end. It fails with BatchFunctionError, because its slot
        is needed. A batch that was still on its way to such a loop goes to the home loop.
        """
        home = asyncio.get_running_loop()
        self._checking = False
        for task, batch in list(self._tasks.items()):
            loop = task.get_loop()
            if batch is not None and not loop.is_running():
                self._tasks.pop(task, None)
                msg = f"the event loop that ran the batch has stopped ({loop!r}): stop the batcher before its loop"
                self._finish(batch, Failed(BatchFunctionError(msg)), home)
        for batch, (loop, awaitable) in list(self._handed_over.items()):
            if not loop.is_running():
                self._handed_over[batch] = home, awaitable
                home.call_soon(self._start_task, batch, context=Context())
        with self.lock:
            self._plan_wakeup()
        self._perform(home)
        self._check_later(home)

    def leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:
        """Return the tasks of batches that run on loop `here`."""
        return {task for task in list(self._tasks) if task.get_loop() is here}
