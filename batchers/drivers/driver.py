"""Common part of both drivers: admission, cancellation, delivery and shutdown.

A subclass only waits and calls `process_batch`: its part is the abstract methods. Every event changes the core
in this module, under the lock. Then `_update_wakeup` runs, unless the core reports that nothing is due earlier.
The core knows the time of its next decision. `_update_wakeup` wakes the driver if the driver would ask the core
too late.

A driver belongs to one batcher. While nothing is queued or running, the driver refers to the batcher weakly, so
that an unused batcher is collected. The driver refers to the batcher strongly (`_kept`) from each wake-up until
no work is left.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any, Generic, TypeVar

from batchers.core.decisions import Batch, Decision, Dispatch, Done
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Verdict
from batchers.core.refusals import STALLED_LIMIT
from batchers.errors import BatcherError
from batchers.options import Options
from batchers.stats import BatcherStats

from . import lifetime, report, threads
from .delivery import deliver, notify_cancelled
from .invocation import current_scope, new_batcher_id, refuse_reentrant
from .loops import Loop
from .requests import RequestFactory

T = TypeVar("T")
S = TypeVar("S")

logger = logging.getLogger("batchers")


class Driver(ABC, Generic[T, S]):
    """The core of a batcher, its lock, and the events that change the core."""

    __slots__ = (
        *("options", "function", "is_async", "name", "_ref", "_kept", "_finalizers"),
        *("core", "lock", "stopped", "home", "batcher_id", "requests"),
        *("_next_wakeup", "_cancelled", "_helping", "__weakref__"),
    )

    clock = staticmethod(time.monotonic)
    """Monotonic clock in seconds. Subclasses in tests replace it."""

    def __init__(
        self,
        batcher: Any,  # noqa: ANN401 - only its `process_batch` is called, and only if `function` is None
        function: Callable[[list[T]], Sequence[S] | Awaitable[Sequence[S]]] | None,
        options: Options,
        *,
        is_async: bool,
    ) -> None:
        """Initialise the driver of `batcher`; if `function` is None, it calls the batcher's `process_batch`."""
        self.options = options
        self.function = function
        self.is_async = is_async
        self.name = options.name or type(batcher).__name__
        self._ref = weakref.ref(batcher)
        self._finalizers: list[weakref.finalize[Any, Any]] = []
        self._reset()
        lifetime.watch(self)

    def _reset(self, *, orphaned: bool = False) -> None:
        """Initialise all variable state; `orphaned`: this is a fork, and its parent has the executor's workers."""
        options = self.options
        self.batcher_id = new_batcher_id()
        self.requests: RequestFactory[T] = RequestFactory(options, self.clock, orphaned=orphaned)
        self._kept: Any = None
        self.core: Core[T, S] = Core(options)
        self.lock = threading.Lock()
        # Time at which the driver asks the core without a new wake-up. -inf: it has been woken. inf: never.
        self._next_wakeup = inf
        # Requests that were cancelled in a place where waiting for the lock was not allowed.
        self._cancelled: deque[Request[T]] = deque()
        self._helping = False  # True while a thread waits for the lock to withdraw them
        self.stopped: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.home: Loop | None = None
        self._finalizers.clear()
        self._set_up()

    def _finally(self, function: Callable[[], object]) -> None:
        """Call `function` when the batcher is collected, but not at the exit of the interpreter."""
        batcher = self._ref()
        if batcher is not None:
            finalizer = weakref.finalize(batcher, function)
            finalizer.atexit = False
            self._finalizers.append(finalizer)

    @property
    def process_batch(self) -> Callable[[list[T]], Any]:
        """Batch function: the function that was passed, or the method of the batcher."""
        if self.function is not None:
            return self.function
        batcher = self._ref()
        if batcher is None:  # not expected: the driver keeps the batcher alive while there is work
            msg = "the batcher of this call is gone"
            raise BatcherError(msg)
        found: Callable[[list[T]], Any] = batcher.process_batch
        return found

    # Interface of the subclasses

    @abstractmethod
    def _set_up(self) -> None:
        """Initialise the state of the subclass, without threads and loops; `_reset` calls this method."""

    @abstractmethod
    def _wake(self, here: Loop | None) -> None:
        """Make a thread or the home loop ask the core soon.

        The caller holds the lock. `here` is the event loop that runs in the calling thread, if any.
        Raises RuntimeError or OSError if no thread or loop can ask.
        """

    @abstractmethod
    def _retire(self) -> None:
        """Wake all waiting threads and timers so that they end; called once, at the end, with the lock held."""

    @abstractmethod
    def own_threads(self, *, busy: bool) -> list[threads.DaemonThread]:
        """Return the driver's threads, including those of the time of its end; `busy` includes busy workers."""

    def leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:  # noqa: ARG002 - threads have no tasks
        """Return the tasks of batches that run on loop `here`."""
        return set()

    def _move(self, here: Loop | None) -> None:
        """Choose a running loop as the home loop before a call from elsewhere; the caller holds the lock."""

    # Events

    def accept(
        self, item: T, timeout: float | None, priority: int, future: object, here: Loop | None
    ) -> Request[T]:
        """Submit one item, and return its request; the same as `requests.make` and `admit`, in less time.

        `here` is the loop that runs in this thread, if the future belongs to that loop; otherwise None.
        """
        if timeout is None and self.requests.plain and type(priority) is int:
            request = Request(item, None, priority, 0.0, inf, future, here)
        else:
            request = self.requests.make(item, timeout, priority, future, here)
        if current_scope() is not None:
            refuse_reentrant(self.batcher_id, "process or submit")
        core = self.core
        with self.lock:
            if self._cancelled or core.inconsistent:
                self._catch_up()
            if (here is not self.home or here is None) and not core.closed:
                self._find_home(here)
            if core.offer_one(request, self.clock()) and self._next_wakeup != -inf:
                self._wake_for((request,), here)
        return request

    def admit(self, requests: Sequence[Request[T]], here: Loop | None) -> None:
        """Submit requests: accept all, or raise an error and accept none; `here` is as for `accept`."""
        if current_scope() is not None:
            refuse_reentrant(self.batcher_id, "process or submit")
        core = self.core
        with self.lock:
            if self._cancelled or core.inconsistent:
                self._catch_up()
            if (here is not self.home or here is None) and not core.closed:
                self._find_home(here)
            if core.offer(requests, self.clock()) and self._next_wakeup != -inf:
                self._wake_for(requests, here)

    def _wake_for(self, requests: Sequence[Request[T]], here: Loop | None) -> None:
        """Wake the driver for new requests; on failure, withdraw them and raise; the caller holds the lock."""
        try:
            self._update_wakeup(here)
        except BaseException as error:
            for request in requests:
                self.core.withdraw(request)
            if isinstance(error, (RuntimeError, OSError)):
                raise _cannot_start(error) from error
            raise

    def _find_home(self, here: Loop | None) -> None:
        """Do the same as `_move`, but raise BatcherError if no loop can start; the caller holds the lock."""
        try:
            self._move(here)
        except (RuntimeError, OSError) as error:
            raise _cannot_start(error) from error

    def cancel(self, request: Request[T], here: Loop | None) -> None:
        """Withdraw the request of a caller that cancels; do nothing if the request is settled."""
        with self.lock:
            self._catch_up()
            if self.core.withdraw(request):
                self._update_wakeup(here)

    def cancel_anywhere(self, request: Request[T]) -> None:
        """Do the same as `cancel` in a garbage collection or signal handler, where this thread may hold the lock.

        If any thread holds the lock, its next holder withdraws the request before any other work. This is, at the
        latest, a helper thread that waits for the lock.
        """
        self._cancelled.append(request)
        if self.lock.acquire(blocking=False):
            try:
                self._apply_cancellations()
            finally:
                self.lock.release()
        elif not self._helping:
            self._helping = True
            try:
                threads.DaemonThread(self._apply_cancellations_later, f"{self.name}-cancel")
            except RuntimeError:  # no thread can start now: the next event withdraws the request
                self._helping = False

    def _apply_cancellations_later(self, _: threads.DaemonThread) -> None:
        with self.lock:
            self._helping = False  # first: this thread may miss a later request, which needs its own helper
            self._apply_cancellations()

    def _apply_cancellations(self) -> None:
        self._catch_up()
        if self.core.done:
            self._end()

    def _catch_up(self) -> None:
        """Abort an inconsistent core, and withdraw the requests in `_cancelled`; the caller holds the lock."""
        if self.core.inconsistent:
            self._abort(None)
        while self._cancelled:
            request = self._cancelled.popleft()
            if self.core.withdraw(request) and request.loop is None:
                notify_cancelled(request.future)

    def _abort(self, error: Exception | None) -> None:
        """Fail all requests when the core cannot continue, so that no caller hangs; the caller holds the lock."""
        reason = "an exception of a signal handler struck half-way" if error is None else repr(error)
        logger.error("The batcher failed and ends; its callers get BatcherError", exc_info=error)
        msg = f"the batcher has failed ({reason}): make a new one"
        settled = [(request, Err(BatcherError(msg))) for request in self.core.abort()]
        self._end()
        try:  # in another thread, because callbacks of futures should not run with the lock held
            threads.DaemonThread(lambda _: deliver(settled, None), f"{self.name}-failed")
        except RuntimeError:  # no thread can start: a delivery with the lock held is better than none
            deliver(settled, None)

    def _update_wakeup(self, here: Loop | None) -> None:
        """Wake the driver after an event if it would ask too late, or without need; the caller holds the lock."""
        if self.core.done:
            self._end()
        elif self._next_wakeup != -inf:
            due = self.core.due
            if due < self._next_wakeup or due == inf != self._next_wakeup:
                self._next_wakeup = -inf
                self._kept = self._ref()
                try:
                    self._wake(here)
                except BaseException:
                    self._next_wakeup = inf  # the wake-up failed: the next event tries again
                    raise

    def _decide(self) -> Decision[T, S]:
        """Return the decision of the core, or Done after a failure of the core; the caller holds the lock."""
        if self._cancelled or self.core.inconsistent:
            self._catch_up()
        try:
            return self.core.decide(self.clock())
        except Exception as error:  # noqa: BLE001 - a defect, or an inconsistency after a signal handler
            self._abort(error)
            return Done()

    def _finish(self, batch: Batch[T], verdict: Verdict[S], here: Loop | None) -> bool:
        """Report the end of a batch, deliver its outcomes, and return True if the driver must ask the core again.

        The driver asks after the delivery, so that callers that submit again at once are part of the next batch.
        """
        core = self.core
        with self.lock:
            if core.inconsistent:
                self._catch_up()
            settled = core.finish(batch, verdict, self.clock())
            more = not core.idle or core.closed or self._next_wakeup != inf
            kept = self._stop_keeping()  # noqa: F841 - dropped at the end of this call, without the lock
        deliver(settled, here)
        return more

    def _stop_keeping(self) -> Any:  # noqa: ANN401 - the batcher, whose type is unknown here
        """Refer to the batcher weakly if no work is left, and return it; the caller holds the lock.

        Return None if there is no change. The caller must release the lock before it drops the batcher.
        """
        if self._kept is None or not self.core.idle or self._next_wakeup == -inf:
            return None
        kept, self._kept = self._kept, None
        return kept

    # Shutdown

    def close(self, here: Loop | None, *, force: bool) -> None:
        """Accept no more items; with `force`, fail waiting ones; raise ReentrantCallError in `process_batch`."""
        refuse_reentrant(self.batcher_id, "stop or close")
        with self.lock:
            self._catch_up()
            settled = self.core.close(force=force)
        deliver(settled, here)
        with self.lock:
            if not self.core.done and (here is not self.home or here is None):
                self._find_home(here)
            self._update_wakeup(here)

    def abandon(self, here: Loop | None, timeout: float | None) -> bool:
        """Fail all items that are not settled; return True if work was given up, in this call or before."""
        if self.stopped.done():
            return self.core.abandoned
        state = self.describe()
        with self.lock:
            if self.stopped.done():
                return self.core.abandoned
            self._catch_up()
            settled = list(self.core.abandon())
            self._end()
        logger.warning(
            "%s did not end within %s s; %d callers got BatcherStoppedError", state, timeout, len(settled)
        )
        deliver(settled, here)
        return True

    def _end(self) -> None:
        """End the driver when nothing is left to run; may be called again; the caller holds the lock."""
        if not self.stopped.done():
            self._retire()
            self.stopped.set_result(None)

    def after_fork(self) -> None:
        """Reset the driver in the child of a fork: the threads and the accepted items belong to the parent."""
        was_closed = self.core.closed
        for finalizer in self._finalizers:
            finalizer.detach()  # it would end threads of the parent
        self._reset(orphaned=self.options.executor is not None)
        if was_closed:
            self.close(None, force=True)

    def at_exit(self) -> concurrent.futures.Future[None] | None:
        """Start to serve the accepted items before the interpreter ends the threads; return the future of the end.

        Return None if the driver has no threads.
        """
        if not self.own_threads(busy=True):
            return None  # the driver runs on the loop of a caller, or never started
        self.close(None, force=False)
        return self.stopped

    # Reports

    def describe(self) -> str:
        """Return the state in one line, without the lock: the numbers may be of different moments."""
        batcher = self._ref()
        kind = self.name if batcher is None else type(batcher).__name__
        state = "stopped" if self.stopped.done() else report.state_of(self.core)
        return report.line(kind, self.name, state, self.core)

    def stats(self) -> BatcherStats:
        """Return the counters of one consistent moment."""
        with self.lock:
            self._catch_up()
            return self.core.stats()

    def dispatches(self) -> list[Dispatch]:
        """Return the most recent starts of batches, oldest first."""
        with self.lock:
            self._catch_up()
            return self.core.dispatches()

    def dump(self) -> str:
        """Return a report of the running and stalled batches: seconds since the start, location and stack."""
        with self.lock:
            self._catch_up()
            now = self.clock()
            in_flight, stalled = self.core.running_batches
        return "\n".join((self.describe(), *report.batches(in_flight, stalled, now)))

    @property
    def healthy(self) -> bool:
        """True if batches can start; False while STALLED_LIMIT batches are stalled."""
        return self.core.stalled < STALLED_LIMIT


def _cannot_start(error: Exception) -> BatcherError:
    return BatcherError(f"the batcher cannot start: {error}; free threads or descriptors, and try again")
