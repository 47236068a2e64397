"""Common part of both drivers: admission, cancellation, delivery and shutdown.

A subclass only waits and calls `process_batch`: its part is the abstract methods, here and in `locking`. Every
event changes the core in this module, under the lock, and plans a wake-up if the driver would ask the core too
late. The core knows the time of its next decision. `locking` says what happens under the lock, and what after it.

A driver belongs to one batcher. While nothing is queued or running, the driver refers to the batcher weakly, so
that an unused batcher is collected. The driver refers to the batcher strongly (`_kept`) from each wake-up until
no work is left.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import sys
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any, ClassVar, TypeVar

from batchers.core.decisions import Batch
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.core.outcomes import Failed, Verdict
from batchers.errors import BatcherError
from batchers.options import Changes, Options
from batchers.rows import Rows

from . import lifetime, report, threads
from .delivery import deliver, release
from .invocation import current_scope, new_batcher_id, prepare, refuse_reentrant
from .locking import LockedCore, refuse_inside
from .loops import Loop, running_loop
from .pools import Pool
from .requests import RequestFactory

T = TypeVar("T")
S = TypeVar("S")

_NO_CALL = "call the batcher from another thread, or after this call has returned"


class Driver(LockedCore[T, S]):
    """The events that change the core of a batcher, and the delivery of their outcomes."""

    __slots__ = (
        *("function", "is_async", "home", "batcher_id", "pool", "requests"),
        *("_finalizers", "_failures", "_started", "__weakref__"),
    )

    needs_loop: ClassVar[bool] = False
    """True if the driver itself needs an event loop."""

    def __init__(
        self,
        batcher: Any,  # noqa: ANN401 - only its `process_batch` is called, and only if `function` is None
        function: Callable[[list[T]], Rows[S] | Awaitable[Rows[S]]] | None,
        options: Options,
        *,
        is_async: bool,
    ) -> None:
        """Initialise the driver of `batcher`; if `function` is None, it calls the batcher's `process_batch`."""
        self.function = function
        self.is_async = is_async
        self.name = options.name or type(batcher).__name__
        self._ref = weakref.ref(batcher)
        self._finalizers: list[weakref.finalize[Any, Any]] = []
        self._reset(options)
        lifetime.watch(self)

    def _reset(self, options: Options, *, orphaned: bool = False) -> None:
        """Initialise all variable state; `orphaned`: this is a fork, and its parent has the executor's workers."""
        self._finalizers.clear()
        self._reset_lock(Core(options))
        self.batcher_id = new_batcher_id()
        self.requests: RequestFactory[T] = RequestFactory(options, self.clock, orphaned=orphaned)
        self.pool = None if options.executor is None else Pool(options.executor, self.clock)
        if self.pool is not None and self.pool.survives_fork:
            self._finally(self.pool.close)
        self._failures = report.FailureLog()
        self._started = False  # True after `start`
        self.home: Loop | None = None
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
    def _settle(self, here: Loop | None) -> None:
        """See to the loops that a call from elsewhere than the home loop needs; without the lock.

        Raises StartError if a loop cannot start.
        """

    @abstractmethod
    def _start_threads(self) -> None:
        """Start the threads that the first batch will need; without the lock; may be called again.

        Raises StartError if a thread cannot start.
        """

    @abstractmethod
    def own_threads(self, *, busy: bool) -> list[threads.DaemonThread]:
        """Return the driver's threads, including those of the time of its end; `busy` includes busy workers."""

    def leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:  # noqa: ARG002 - threads have no tasks
        """Return the tasks of batches that run on loop `here`."""
        return set()

    # Events

    def start(self, here: Loop | None) -> None:
        """Start the threads and choose the loops before the first call; do nothing after the end."""
        if self.is_inside():
            refuse_inside("start", _NO_CALL)
        if self.core.closed:
            return
        self._settle(here)
        self._start_threads()
        self._started = True
        self._perform(here)

    def reconfigure(self, changes: Changes) -> None:
        """Change options: all of them, or none. Raises OptionError; BatcherError inside of an event."""
        if self.is_inside():
            refuse_inside("reconfigure", _NO_CALL)
        while True:
            old = self.options
            new = old.changed(changes)  # without the lock: it may call code of the user
            with self.lock:
                self._catch_up()
                if self.options is old:  # otherwise, another thread was faster, and both changes count
                    settled = self._owe(self.core.reconfigure(new))
                    self.requests = self.requests.changed(new)
                    self._plan_wakeup()
                    break
        self._deliver(settled, running_loop())
        self._perform(running_loop())

    @property
    def running(self) -> bool:
        """True if the driver was started, by `start` or by the first item, and has not ended since."""
        return (self._started or self.core.accepted > 0) and not self.stopped.done()

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
        if self.is_inside():
            refuse_inside("a call", _NO_CALL)
        core = self.core
        try:
            if here is None or here is not self.home:
                self._settle(here)
            # No `try` in here: CPython 3.11 to 3.13 do not release the lock after an exception at it.
            with self.lock:
                if self._cancelled or core.inconsistent:
                    self._catch_up()
                if core.offer_one(request, self.clock()) and self._next_wakeup != -inf:
                    self._plan_wakeup()
            if self._performed != self._planned:
                self._perform(here)
        except BaseException as error:
            self._not_accepted((request,), here, error)
            raise
        return request

    def admit(
        self, requests: Sequence[Request[T]], here: Loop | None, *, each: bool = False
    ) -> Sequence[tuple[Request[T], BatcherError]]:
        """Accept all requests, or raise an error and accept none; with `each`, return those that are refused."""
        refused: Sequence[tuple[Request[T], BatcherError]] = ()
        if sys.is_finalizing():
            self.refuse_wait("submit()", "")
        if current_scope() is not None:
            refuse_reentrant(self.batcher_id, "process or submit")
        if self.is_inside():
            refuse_inside("a call", _NO_CALL)
        core = self.core
        try:
            if here is None or here is not self.home:
                self._settle(here)
            with self.lock:
                if self._cancelled or core.inconsistent:
                    self._catch_up()
                if each:
                    refused = core.offer_each(requests, self.clock())
                if (each or core.offer(requests, self.clock())) and self._next_wakeup != -inf:
                    self._plan_wakeup()
            if self._performed != self._planned:
                self._perform(here)
        except BaseException as error:
            self._not_accepted(requests, here, error)
            raise
        return refused

    def _not_accepted(self, requests: Sequence[Request[T]], here: Loop | None, error: BaseException) -> None:
        """See to an exception during a call: withdraw its requests that were accepted, and serve the others.

        If no thread or loop can start, the others fail as well, because nothing would serve them.
        """
        for request in requests:
            if hasattr(request, "number"):  # the core may have accepted it
                self.cancel(request, here)
        if isinstance(error, threads.StartError):
            text = str(error)
            with self.lock:
                settled = self._owe(self.core.fail_waiting(lambda _: threads.StartError(text)))
            self._deliver(settled, here)
        if self._performed != self._planned:
            self._perform(here)

    def cancel(self, request: Request[T], here: Loop | None = None) -> None:
        """Withdraw the request of a caller that leaves; do nothing if the request is settled.

        The caller may be the garbage collector, or a signal handler, in a thread that is inside of an event. Then
        that thread withdraws the request after the event.
        """
        if self.is_inside():
            self._cancelled.append(request)
            self._planned += 1
            return
        with self.lock:
            if self._cancelled or self.core.inconsistent:
                self._catch_up()
            withdrawn = self.core.withdraw(request)
            if withdrawn:
                self._plan_wakeup()
        if withdrawn:
            release(request)
        if self._performed != self._planned:
            self._perform(here)

    def _finish(self, batch: Batch[T], verdict: Verdict[S], here: Loop | None) -> bool:
        """Report the end of a batch, deliver its outcomes, and return True if the driver must ask the core again.

        The driver asks after the delivery, so that callers that submit again at once are part of the next batch.
        """
        core = self.core
        if type(verdict) is Failed:
            prepare(verdict, batch)
        try:
            with self.lock:
                if core.inconsistent:
                    self._catch_up()
                settled = core.finish(batch, verdict, self.clock())
                if settled:  # as `_owe`, in less time
                    self._owed[id(settled)] = settled
                core.ended = ()
                more = not core.idle or core.closed or self._next_wakeup != inf
                kept = self._stop_keeping()  # noqa: F841 - dropped at the end of this call, without the lock
        except BaseException:
            self._finish_again(batch, verdict, here)
            raise
        if settled:  # as `_deliver`, in less time
            try:
                deliver(settled, here)
                self._owed.pop(id(settled), None)
            except BaseException:
                self._deliver_again(settled, here)
                raise
        if batch.failed:
            self._failures.add(self.name, batch, verdict, self.clock())
        if self._performed != self._planned:
            self._perform(here)
        return more

    def _finish_again(self, batch: Batch[T], verdict: Verdict[S], here: Loop | None) -> None:
        """Do what `_finish` does, after an exception has interrupted it."""
        with self.lock:
            self.core.inconsistent = True
            self._catch_up()
            settled = self._owe(self.core.finish(batch, verdict, self.clock()))
            self.core.ended = ()
        self._deliver(settled, here)
        self._failures.add(self.name, batch, verdict, self.clock())
        self._perform(here)

    def _complete(self, batch: Batch[T], verdict: Verdict[S], here: Loop | None) -> None:
        """Report the end of a batch, and arrange that the core is asked for the next one."""
        if self._finish(batch, verdict, here):
            if here is None and self.core.queued:
                self._leave_dead_home()
            with self.lock:
                self._plan_wakeup()
            self._perform(here)

    def _leave_dead_home(self) -> None:
        """Change the home loop if it does not run any more; for drivers that have one."""

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
        self.refuse_wait("stop or close", _NO_CALL)
        with self.lock:
            self._catch_up()
            settled = self._owe(self.core.close(force=force))
        self._deliver(settled, here)
        if not self.core.done and (here is None or here is not self.home):
            self._settle(here)
        with self.lock:
            self._plan_wakeup()
        self._perform(here)

    def abandon(self, here: Loop | None, timeout: float | None) -> bool:
        """Fail all items that are not settled; return True if work was given up, now or before, or hangs."""
        if self.stopped.done():
            return self.core.abandoned or self.core.stalled > 0
        state = self.describe()
        with self.lock:
            if self.stopped.done():
                return self.core.abandoned or self.core.stalled > 0
            self._catch_up()
            settled = self._owe(list(self.core.abandon()))
            self._plan_wakeup()
        text = "%s did not end within %s s; %d callers got BatcherStoppedError"
        report.log(logging.WARNING, text, None, state, timeout, len(settled))
        self._deliver(settled, here)
        self._perform(here)
        return True

    def after_fork(self) -> None:
        """Reset the driver in the child of a fork: the threads and the accepted items belong to the parent."""
        was_closed = self.core.closed
        for finalizer in self._finalizers:
            finalizer.detach()  # it would end threads of the parent
        pool = self.pool
        if pool is not None:
            pool.orphan()
        self._reset(self.options, orphaned=pool is not None and not pool.survives_fork)
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

    def _retire_pool(self) -> None:
        if self.pool is not None:
            self.pool.close()

    # Reports

    @property
    def healthy(self) -> bool:
        """True if batches can start; False if only a restart helps."""
        return report.is_healthy(self.core, self.pool)
