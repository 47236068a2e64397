"""The lock of a driver, and the one rule for it.

While a thread holds the lock, it changes the core and the variables of this class, and nothing else. The library
logs, starts threads, calls event loops, resolves futures, and drops items and futures without the lock. An event
*plans* what has to follow it (`_planned`); after the release, the same thread does it (`_perform`). If an
exception interrupts that thread, the next event does it, because `_performed` still differs from `_planned`.
Everything that can be planned may be done twice.

CPython itself may run code of the user in a thread that holds the lock: the garbage collector, signal handlers,
trace functions, and `__hash__` and `__eq__` of groups. The lock is reentrant, so this code does not wait for
itself. If it comes back to the batcher, a cancellation is noted and applied by the thread after the event, a
report is answered, and all other calls raise BatcherError.

An exception in the middle of an event leaves the core inconsistent. The next holder of the lock repairs it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Generic, NoReturn, TypeVar

from batchers.core import messages
from batchers.core.decisions import Decision, Dispatch, Done, Expire, Settled, Wait
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err
from batchers.errors import BatcherError, BatcherStoppedError
from batchers.options import Options
from batchers.stats import BatcherStats

from . import report, threads
from .delivery import deliver, release
from .futures import SharedFuture
from .loops import RETRY_SECONDS, Loop

T = TypeVar("T")
S = TypeVar("S")

logger = logging.getLogger("batchers")


class LockedCore(ABC, Generic[T, S]):
    """A core with its lock, and what was planned under it."""

    __slots__ = (
        *("core", "lock", "is_inside", "name", "stopped", "_ref", "_kept"),
        *(
            "_next_wakeup",
            "_planned",
            "_performed",
            "_cancelled",
            "_owed",
            "_undelivered",
            "_released",
            "_starter",
        ),
    )

    clock = staticmethod(time.monotonic)
    """Monotonic clock in seconds. Subclasses in tests replace it."""

    def _reset_lock(self, core: Core[T, S]) -> None:
        """Initialise the lock of a new core, with nothing planned."""
        self.name: str
        self.core = core
        self._ref: weakref.ref[Any]  # to the batcher
        self._kept: Any = None  # the batcher, while work is left
        lock: Any = threading.RLock()
        self.lock = lock
        self.is_inside: Callable[[], bool] = lock._is_owned  # noqa: SLF001 - as threading.Condition does
        """Return True if this thread holds the lock, so that this call comes from inside of an event."""
        # Time at which the driver asks the core without a new wake-up. -inf: it has been woken. inf: never.
        self._next_wakeup = inf
        self._planned = 0  # number of times that an event has planned something
        self._performed = 0  # value of `_planned` up to which all is done
        self._cancelled: deque[Request[T]] = deque()  # cancelled from inside of an event
        # Outcomes by their identity: those in delivery, and those whose delivery was interrupted, with a failure.
        self._owed: dict[int, Settled[T, S]] = {}
        self._undelivered: dict[int, tuple[Settled[T, S], Exception | None]] = {}
        self._released: deque[Request[T]] = deque()  # withdrawn under the lock; not dropped yet
        # A lock that is held while a thread starts a thread or loop of the driver, and who starts it.
        self._starter: tuple[threading.Lock, int] = (threading.Lock(), 0)
        self.stopped: SharedFuture[None] = SharedFuture()

    @property
    def options(self) -> Options:
        """The options that hold now."""
        return self.core.options

    @abstractmethod
    def _wake(self, here: Loop | None) -> bool:
        """Make a thread or the home loop ask the core soon; the caller does not hold the lock.

        Return False if another thread starts something now; it will perform what was planned. `here` is the event
        loop that runs in the calling thread, if any. Raises StartError if no thread or loop can ask.
        """

    def _notify(self) -> bool:
        """Notify a thread that waits on a Condition of the lock, so that no other wake-up is needed.

        Return False if there is none. The caller holds the lock.
        """
        return False

    @abstractmethod
    def _retire(self) -> None:
        """Let all threads and timers end; called at the end, possibly again, without the lock."""

    # Plans

    def _plan_wakeup(self) -> None:
        """Plan to wake the driver if it would ask too late, or without need; the caller holds the lock."""
        core = self.core
        if core.closed and core.done:
            self._planned += 1
        elif self._next_wakeup != -inf:
            due = core.due
            if due < self._next_wakeup or due == inf != self._next_wakeup:
                self._kept = self._ref()
                plan = not self._notify()
                # Counted before, because an exception from outside may come between; and after, because another
                # thread may perform the plan at once.
                self._planned += plan
                self._next_wakeup = -inf
                self._planned += plan

    def _perform(self, here: Loop | None) -> None:
        """Do what was planned; the caller does not hold the lock.

        While a thread starts another one, it does this at the end of the start for everybody.
        """
        while (planned := self._planned) != self._performed:
            if self.is_inside() or self._starter[0].locked():
                return
            if self._cancelled:
                with self.lock:
                    self._catch_up()
            while self._released:
                with suppress(IndexError):  # another thread was faster
                    release(self._released.popleft())
            while self._undelivered:
                self._deliver_in_thread()
            if self.core.closed and self.core.done:
                self._retire()
                self.stopped.resolve(None, -1, again=True)
            elif self._next_wakeup == -inf and not self._wake(here):
                return
            self._performed = planned

    def _after_loop(self) -> None:
        """Perform what the thread of the own loop had planned; an exception from outside may have ended it."""
        self._perform(None)

    def _is_starting(self) -> bool:
        """Return True while a thread starts a thread or loop of the driver."""
        return self._starter[0].locked()

    def _owe(self, settled: Settled[T, S]) -> Settled[T, S]:
        """Note outcomes that this thread will deliver, and return them; the caller holds the lock."""
        if settled:
            self._owed[id(settled)] = settled
        return settled

    def _deliver(self, settled: Settled[T, S], here: Loop | None) -> None:
        """Deliver outcomes; after an exception, for instance MemoryError, deliver them once more in a thread."""
        try:
            deliver(settled, here)
            self._owed.pop(id(settled), None)
        except BaseException:
            self._deliver_again(settled, here)
            raise

    def _deliver_again(self, settled: Settled[T, S], here: Loop | None) -> None:
        """Deliver outcomes whose delivery was interrupted."""
        self._undelivered[id(settled)] = settled, None
        self._owed.pop(id(settled), None)
        self._planned += 1
        self._perform(here)

    def _deliver_in_thread(self) -> None:
        """Deliver outcomes in a new thread, because callbacks of futures may run for long, or call anything.

        They are removed last, so that an exception from outside loses none; two deliveries are the same as one.
        """
        with self.lock:
            found = next(iter(self._undelivered.items()), None)
        if found is None:
            return  # another thread was faster
        key, (settled, failure) = found

        def run(_: object) -> None:
            deliver(settled, None)
            if failure is not None:
                report.log(logging.ERROR, "The batcher failed and ends; its callers get BatcherError", failure)

        try:
            # At the end of the thread, because that is repeated if an exception from outside interrupts it.
            threads.DaemonThread(lambda _: None, f"{self.name}-failed", at_end=run)
        except threads.StartError:
            run(None)
        self._undelivered.pop(key, None)

    def _may_start(self, start: threading.Lock) -> bool:
        """Return True if this thread may start a thread or loop of the driver, and False if another one does it.

        The thread holds `start`, a new lock, and releases it after the start by the exit of a `with`: no exception
        from outside comes between. Then it performs what was planned, for all that have come meanwhile.
        """
        threads.need_frames()
        with self.lock:
            if self._is_starting():
                return False
            self._starter = start, threading.get_ident()
            return True

    def refuse_wait(self, call: str, instead: str) -> None:
        """Raise BatcherError if this thread would wait for itself: it is in an event, or starts a thread."""
        if sys.is_finalizing():
            msg = f"{call} came at the end of the interpreter, where no thread runs the batch"
            raise BatcherStoppedError(msg)
        start, starter = self._starter
        if self.is_inside() or (start.locked() and starter == threading.get_ident()):
            refuse_inside(call, instead)

    # Parts of events; the caller holds the lock

    def _catch_up(self) -> None:
        """Repair an inconsistent core, and withdraw the requests in `_cancelled`."""
        if self.core.inconsistent:
            self._repair()
            for key, settled in list(self._owed.items()):  # their delivery may have been interrupted
                self._undelivered[key] = settled, None
                self._owed.pop(key, None)  # last, so that an exception from outside loses none
            self._planned += 1
        while self._cancelled:
            request = self._cancelled[0]
            if self.core.withdraw(request):
                self._released.append(request)
                self._planned += 1
                self._plan_wakeup()
            self._cancelled.popleft()

    def _repair(self) -> None:
        try:
            settled = self.core.repair()
        except (MemoryError, RecursionError):
            raise  # the next event tries again
        except Exception:  # noqa: BLE001 - from a signal handler, or a defect
            try:
                settled = self.core.repair()
            except Exception as error:  # noqa: BLE001 - a defect
                self._abort(error)
                return
        if settled:
            self._undelivered[id(settled)] = settled, None
        self.core.ended = ()
        self.core.inconsistent = False
        self._next_wakeup = inf
        self._planned += 1
        self._plan_wakeup()

    def _abort(self, error: Exception) -> None:
        """Fail all requests when the core cannot continue, so that no caller hangs."""
        failure = repr(error)
        requests = self.core.abort(failure)
        failed = [(request, Err(BatcherError(messages.failed(failure)))) for request in requests]
        self._undelivered[id(failed)] = failed, error
        self._planned += 1

    def _decide(self) -> Decision[T, S]:
        """Return the decision of the core, or Done after a failure of the core.

        After a MemoryError, the decision is Wait for RETRY_SECONDS.
        """
        core = self.core
        try:
            if self._cancelled or core.inconsistent:
                self._catch_up()
            decision = core.decide(self.clock())
            if type(decision) is Expire:
                self._owe(decision.settled)
        except BaseException as error:
            core.inconsistent = True
            if not isinstance(error, Exception):
                raise
            return self._decide_again(error)
        return decision

    def _decide_again(self, error: Exception) -> Decision[T, S]:
        """Do what `_decide` does, after an exception has interrupted it."""
        core = self.core
        try:
            if isinstance(error, MemoryError):
                return Wait(self.clock() + RETRY_SECONDS)
            self._catch_up()  # it was a defect, or a signal handler
            decision = core.decide(self.clock())
            if type(decision) is Expire:
                self._owe(decision.settled)
        except MemoryError:
            core.inconsistent = True
            return Wait(self.clock() + RETRY_SECONDS)
        except Exception as second:  # noqa: BLE001 - a defect
            core.inconsistent = True
            self._abort(second)
            return Done()
        except BaseException:
            core.inconsistent = True
            raise
        finally:
            del error  # breaks a cycle: its traceback refers to this frame
        return decision

    # Reports

    def _read(self, report_of: Callable[[Core[T, S]], Any]) -> Any:  # noqa: ANN401 - any report
        """Return a report of the core at one consistent moment."""
        if self.is_inside() or sys.is_finalizing():  # then a thread that does not run any more may hold the lock
            if self.core.inconsistent:
                refuse_inside("a report", "ask later")
            return report_of(self.core)
        with self.lock:
            if self._cancelled or self.core.inconsistent:
                self._catch_up()
            found = report_of(self.core)
        self._perform(None)
        return found

    def check_room(self) -> None:
        """Raise the error of a call that would be refused now, because the queue is full, whatever its item is."""
        if self.core.queued < self.core.queue_limit:  # without the lock: the acceptance looks again
            return
        with self.lock:
            if not (self._cancelled or self.core.inconsistent):
                self.core.check_room(1)

    def describe(self) -> str:
        """Return the state in one line, without the lock: the numbers may be of different moments."""
        batcher = self._ref()
        kind = self.name if batcher is None else type(batcher).__name__
        state = "stopped" if self.stopped.done() else report.state_of(self.core)
        return report.line(kind, self.name, state, self.core)

    def dump(self) -> str:
        """Return a report of the running and stalled batches: seconds since the start, location and stack."""
        in_flight, stalled = self._read(lambda core: core.running_batches)
        return "\n".join((self.describe(), *report.batches(in_flight, stalled, self.clock())))

    def stats(self) -> BatcherStats:
        """Return the counters of one consistent moment."""
        found: BatcherStats = self._read(Core.stats)
        return found

    def dispatches(self) -> list[Dispatch]:
        """Return the most recent starts of batches, oldest first."""
        found: list[Dispatch] = self._read(Core.dispatches)
        return found


def refuse_inside(call: str, instead: str) -> NoReturn:
    """Raise the error for a call that comes from inside of an event."""
    msg = (
        f"{call} came from inside of the batcher, in the same thread (a finalizer, a signal handler, a trace "
        f"function, a log handler, or the comparison of groups): {instead}"
    )
    raise BatcherError(msg)
