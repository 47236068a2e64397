"""What both drivers share: admission, cancellation, delivery, stopping. A driver only waits and calls.

Every event changes the core here, under the lock. Then `_update_wakeup` runs, unless the core says that nothing is
due earlier. The core knows when it will have something to decide; `_update_wakeup` wakes the driver if the driver
would ask too late.

A driver belongs to one batcher. It refers to it weakly while nothing waits or runs, so that a batcher that nobody
uses is collected, and strongly (`_kept`) from the moment in which somebody is to ask the core until all is done.
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

from batchers.core.admission import STALLED_LIMIT
from batchers.core.decisions import Batch, Decision, Dispatch, Done
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Verdict
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
    """The state of a batcher, and what events do to it."""

    __slots__ = (
        *("options", "function", "is_async", "name", "_ref", "_kept", "_finalizers"),
        *("core", "lock", "stopped", "home", "batcher_id", "requests"),
        *("_next_wakeup", "_cancelled", "_helping", "__weakref__"),
    )

    clock = staticmethod(time.monotonic)
    """Seconds that only grow. Subclasses of tests have clocks of their own."""

    def __init__(
        self,
        batcher: Any,  # noqa: ANN401 - of it only `process_batch` is called, and only where `function` is None
        function: Callable[[list[T]], Sequence[S] | Awaitable[Sequence[S]]] | None,
        options: Options,
        *,
        is_async: bool,
    ) -> None:
        """Serve this batcher: with `function`, or with its own `process_batch`."""
        self.options = options
        self.function = function
        self.is_async = is_async
        self.name = options.name or type(batcher).__name__
        self._ref = weakref.ref(batcher)
        self._finalizers: list[weakref.finalize[Any, Any]] = []
        self._reset()
        lifetime.watch(self)

    def _reset(self, *, orphaned: bool = False) -> None:
        """Set up all that changes: in the constructor, and in the child of a fork, which starts afresh."""
        options = self.options
        self.batcher_id = new_batcher_id()
        self.requests: RequestFactory[T] = RequestFactory(options, self.clock, orphaned=orphaned)
        self._kept: Any = None
        self.core: Core[T, S] = Core(options)
        self.lock = threading.Lock()
        # The time at which the driver asks the core by itself. -inf: it has been woken. inf: never.
        self._next_wakeup = inf
        # Requests whose callers have left at a moment in which the lock could not be waited for.
        self._cancelled: deque[Request[T]] = deque()
        self._helping = False  # whether a thread is on its way that cancels them
        self.stopped: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.home: Loop | None = None
        self._finalizers.clear()
        self._set_up()

    def _finally(self, function: Callable[[], object]) -> None:
        """Call a function when nobody refers to the batcher any more."""
        batcher = self._ref()
        if batcher is not None:
            finalizer = weakref.finalize(batcher, function)
            finalizer.atexit = False
            self._finalizers.append(finalizer)

    @property
    def process_batch(self) -> Callable[[list[T]], Any]:
        """The batch function: the one that was passed, or the batcher's own method."""
        if self.function is not None:
            return self.function
        batcher = self._ref()
        if batcher is None:  # it is kept while it has work
            msg = "the batcher of this call is gone"
            raise BatcherError(msg)
        found: Callable[[list[T]], Any] = batcher.process_batch
        return found

    # What the two drivers do

    @abstractmethod
    def _set_up(self) -> None:
        """Start without threads and loops: in the constructor, and in the child of a fork."""

    @abstractmethod
    def _wake(self, here: Loop | None) -> None:
        """Let somebody ask the core soon. Called with the lock held, by a thread that runs loop `here`.

        Raises RuntimeError or OSError when nobody can be found to do it.
        """

    @abstractmethod
    def _retire(self) -> None:
        """Let everything end that waits. Called once, with the lock held, when nothing is left to run."""

    @abstractmethod
    def own_threads(self, *, busy: bool) -> list[threads.DaemonThread]:
        """Return the threads that it has, or had when all were to end; the busy ones too or not."""

    def leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:  # noqa: ARG002 - threads leave no tasks
        """Return the tasks of batches that run on loop `here`."""
        return set()

    def _move(self, here: Loop | None) -> None:
        """Find a living loop to live on, before a call from another than the home loop. Lock held."""

    # Events

    def accept(
        self, item: T, timeout: float | None, priority: int, future: object, here: Loop | None
    ) -> Request[T]:
        """Hand in one item, and return its request. What `requests.make` and `admit` do, in less time.

        `here` is the loop that runs in this thread, if the future is one of its own; else None.
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
        """Hand requests in: all are accepted, or an error is raised. A thread that runs loop `here` calls this."""
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
        """Wake the driver for requests that were just accepted, or withdraw them and raise. Lock held."""
        try:
            self._update_wakeup(here)
        except BaseException as error:
            for request in requests:
                self.core.withdraw(request)
            if isinstance(error, (RuntimeError, OSError)):
                raise _cannot_start(error) from error
            raise

    def _find_home(self, here: Loop | None) -> None:
        """Find a loop to live on, for a call from another than the home loop. Lock held."""
        try:
            self._move(here)
        except (RuntimeError, OSError) as error:
            raise _cannot_start(error) from error

    def cancel(self, request: Request[T], here: Loop | None) -> None:
        """Withdraw the request of a caller that leaves. It does nothing if the request has its outcome."""
        with self.lock:
            self._catch_up()
            if self.core.withdraw(request):
                self._update_wakeup(here)

    def cancel_anywhere(self, request: Request[T]) -> None:
        """Do the same in the garbage collector or a signal handler, where this thread may hold the lock.

        If another thread, or this one, holds it, the next holder withdraws the request before anything else: at
        the latest a thread that waits for the lock.
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
            except RuntimeError:  # no thread starts now: the next event sees to it
                self._helping = False

    def _apply_cancellations_later(self, _: threads.DaemonThread) -> None:
        with self.lock:
            self._helping = False  # first: from now on each `cancel_anywhere` sees to its own request
            self._apply_cancellations()

    def _apply_cancellations(self) -> None:
        self._catch_up()
        if self.core.done:
            self._end()

    def _catch_up(self) -> None:
        """Withdraw the requests of callers that have left; give up an inconsistent core. Lock held."""
        if self.core.inconsistent:
            self._abort(None)
        while self._cancelled:
            request = self._cancelled.popleft()
            if self.core.withdraw(request) and request.loop is None:
                notify_cancelled(request.future)

    def _abort(self, error: Exception | None) -> None:
        """Fail all callers, because the core cannot go on: none of them hangs. Lock held."""
        reason = "an exception of a signal handler struck half-way" if error is None else repr(error)
        logger.error("The batcher failed and ends; its callers get BatcherError", exc_info=error)
        msg = f"the batcher has failed ({reason}): make a new one"
        settled = [(request, Err(BatcherError(msg))) for request in self.core.abort()]
        self._end()
        try:  # elsewhere: callbacks of futures should not run with the lock held
            threads.DaemonThread(lambda _: deliver(settled, None), f"{self.name}-failed")
        except RuntimeError:  # no thread starts now: better here than never
            deliver(settled, None)

    def _update_wakeup(self, here: Loop | None) -> None:
        """After an event: wake the driver if it would ask too late, or for nothing. Lock held."""
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
                    self._next_wakeup = inf  # nobody comes: the next event tries again
                    raise

    def _decide(self) -> Decision[T, S]:
        """Ask the core. Lock held."""
        if self._cancelled or self.core.inconsistent:
            self._catch_up()
        try:
            return self.core.decide(self.clock())
        except Exception as error:  # noqa: BLE001 - a defect, or what a signal handler has left
            self._abort(error)
            return Done()

    def _finish(self, batch: Batch[T], verdict: Verdict[S], here: Loop | None) -> bool:
        """Report the end of a batch and deliver its outcomes. Return whether there is a next one to look for.

        The driver looks for it afterwards, so that callers who come back at once are part of the next batch.
        """
        core = self.core
        with self.lock:
            if core.inconsistent:
                self._catch_up()
            settled = core.finish(batch, verdict, self.clock())
            more = not core.idle or core.closed or self._next_wakeup != inf
            kept = self._stop_keeping()  # noqa: F841 - dropped at the end of this call, when the lock is free
        deliver(settled, here)
        return more

    def _stop_keeping(self) -> Any:  # noqa: ANN401 - the batcher, which only the driver's type does not name
        """Refer to the batcher weakly if nothing is left to do; return what may be dropped. Lock held."""
        if self._kept is None or not self.core.idle or self._next_wakeup == -inf:
            return None
        kept, self._kept = self._kept, None
        return kept

    # Stopping

    def close(self, here: Loop | None, *, force: bool) -> None:
        """Accept nothing more; with `force`, fail what waits."""
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
        """Fail all that has not ended; return whether there ever was anything (in this call or before)."""
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
        """Nothing is left to run: let everything end. Lock held; may be called again."""
        if not self.stopped.done():
            self._retire()
            self.stopped.set_result(None)

    def after_fork(self) -> None:
        """Start afresh in the child: the threads, and the accepted items, are the parent's."""
        was_closed = self.core.closed
        for finalizer in self._finalizers:
            finalizer.detach()  # what they would end is the parent's
        self._reset(orphaned=self.options.executor is not None)
        if was_closed:
            self.close(None, force=True)

    def at_exit(self) -> concurrent.futures.Future[None] | None:
        """Begin to serve what was accepted before the interpreter takes the threads away; return the end of it."""
        if not self.own_threads(busy=True):
            return None  # it lives on somebody else's loop, or not at all
        self.close(None, force=False)
        return self.stopped

    # What it shows

    def describe(self) -> str:
        """Return the state in one line, without waiting for it to stand still."""
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
        """Return the last starts of batches, oldest first."""
        with self.lock:
            self._catch_up()
            return self.core.dispatches()

    def dump(self) -> str:
        """Return the batches that run or hang, for how long and where, with stacks."""
        with self.lock:
            self._catch_up()
            now = self.clock()
            in_flight, stalled = self.core.running_batches
        return "\n".join((self.describe(), *report.batches(in_flight, stalled, now)))

    @property
    def healthy(self) -> bool:
        """Whether batches can run: False while so many hang that no other is begun."""
        return self.core.stalled < STALLED_LIMIT


def _cannot_start(error: Exception) -> BatcherError:
    return BatcherError(f"the batcher cannot start: {error}; free threads or descriptors, and try again")
