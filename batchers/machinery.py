"""What both drivers share: admission, withdrawal, delivery, stopping. A driver only waits and calls.

Everything that an event changes is changed here, under the lock, and followed by `_rearm`, unless the core
says that nothing is due earlier. It knows when it will have something to decide, and the driver is woken if it
would ask too late.
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
from math import inf, isnan
from typing import Any, Generic, TypeAlias, TypeVar

from . import calls
from .core import Core
from .decisions import Batch, Decision, Done
from .delivery import deliver, notify_cancelled
from .errors import BatcherError, ItemCostError, OptionError
from .lanes import Ticket
from .options import Options
from .outcomes import Err, Verdict

T = TypeVar("T")
S = TypeVar("S")

Loop: TypeAlias = asyncio.AbstractEventLoop

logger = logging.getLogger("batchers")


class Machinery(ABC, Generic[T, S]):
    """The state of a batcher and what events do to it."""

    __slots__ = (
        *("_options", "_function", "_is_async", "_mark", "_group_by", "_cost", "_timeout", "_orphaned"),
        *("_core", "_lock", "_armed", "_left", "_stopped", "_home", "_finalizers", "_sweeping", "__weakref__"),
    )

    _options: Options
    _function: Callable[[list[T]], Sequence[S] | Awaitable[Sequence[S]]] | None
    _is_async: bool

    _clock = staticmethod(time.monotonic)
    """Seconds that only grow. Tests put a clock of their own here."""

    def _begin(self) -> None:
        """Set up all that changes: in the constructor, and in the child of a fork, which starts afresh."""
        self._mark = calls.new_mark()
        self._group_by = self._options.group_by
        self._cost = self._options.cost
        self._timeout = self._options.timeout
        if self._timeout is None:
            self._timeout = self._options.chosen_policy.default_timeout
        self._orphaned = False
        self._core: Core[T, S] = Core(self._options)
        self._lock = threading.Lock()
        # The time at which the driver asks the core by itself: -inf, it has been woken; inf, never.
        self._armed = inf
        # Tickets whose callers have left, at a moment at which the lock could not be waited for.
        self._left: deque[Ticket[T]] = deque()
        self._sweeping = False
        self._stopped: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._home: Loop | None = None
        self._finalizers: list[weakref.finalize[Any, Any]] = []
        self._settle_in()

    def _finally(self, function: Callable[[], object]) -> None:
        """Call a function when nobody refers to the batcher any more."""
        finalizer = weakref.finalize(self, function)
        finalizer.atexit = False
        self._finalizers.append(finalizer)

    # What the drivers do

    @abstractmethod
    def _wake(self, here: Loop | None) -> None:
        """Let someone ask the core soon. Called with the lock held, by a thread that runs loop `here`.

        Raises RuntimeError or OSError when nobody can be found to do it.
        """

    @abstractmethod
    def _retire(self) -> None:
        """Let everything end that waits. Called once, with the lock held, when nothing is left to run."""

    @abstractmethod
    def _threads(self, *, busy: bool) -> list[calls.OwnThread]:
        """Return the threads that it has, or had when it was told to end; the busy ones too or not."""

    @abstractmethod
    def _settle_in(self) -> None:
        """Start without threads and loops: in the constructor, and in the child of a fork."""

    def _leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:  # noqa: ARG002 - threads leave no tasks
        """Return the tasks of batches that run on loop `here`."""
        return set()

    def _move(self, here: Loop | None) -> None:
        """Find a living loop to live on, before a call from another than the home loop. Lock held."""

    # What they share

    def _ticket(
        self, item: T, timeout: float | None, priority: int, future: object, loop: Loop | None
    ) -> Ticket[T]:
        """Run the user's callbacks, in the caller, and check what the call says."""
        if self._orphaned:
            msg = "this process was forked, and the executor's workers stayed in the parent: make a new batcher"
            raise BatcherError(msg)
        if timeout is None:
            timeout = self._timeout
        if timeout is None:
            deadline = inf
        elif isnan(timeout):
            msg = f"timeout must be a number of seconds, not {timeout!r}"
            raise OptionError(msg)
        else:
            deadline = self._clock() + timeout
        if type(priority) is not int:
            msg = f"priority must be a whole number, not {priority!r}"
            raise OptionError(msg)
        group = None
        if self._group_by is not None:
            group = self._group_by(item)
            hash(group)  # here, in the caller, is the place for its TypeError
        cost = 0.0 if self._cost is None else self._checked_cost(item)
        return Ticket(item, group, priority, cost, deadline, future, loop)

    def _checked_cost(self, item: T) -> float:
        limit = self._options.max_batch_cost
        if self._cost is None or limit is None:
            return 0.0
        cost = self._cost(item)
        if not 0 <= cost < inf:
            msg = f"the cost of an item must be a finite number, 0 or more, not {cost!r}: correct cost()"
            raise ItemCostError(msg)
        if cost > limit:
            msg = f"the item costs {cost} and max_batch_cost is {limit}: split the item, or raise the limit"
            raise ItemCostError(msg)
        return float(cost)

    def _admit(self, tickets: Sequence[Ticket[T]], here: Loop | None) -> None:
        if calls.serving() is not None:
            calls.refuse_reentrant(self._mark, "process or submit")
        core = self._core
        with self._lock:
            if self._left or core.torn:
                self._tidy()
            if (here is not self._home or here is None) and not core.closed:
                self._settle_on(here)
            if core.offer(tickets, self._clock()) and self._armed != -inf:
                try:
                    self._rearm(here)
                except BaseException as error:
                    for ticket in tickets:
                        core.withdraw(ticket)
                    if isinstance(error, (RuntimeError, OSError)):
                        raise _cannot_start(error) from error
                    raise

    def _settle_on(self, here: Loop | None) -> None:
        """Find a place to live, for a call from another than the home loop. Lock held."""
        try:
            self._move(here)
        except (RuntimeError, OSError) as error:
            raise _cannot_start(error) from error

    def _leave(self, ticket: Ticket[T], loop: Loop) -> None:
        self._withdraw(ticket, loop)
        future: Any = ticket.future
        if not future.cancel() and not future.cancelled():
            future.exception()  # it came too late; nobody will look at it any more

    def _withdraw(self, ticket: Ticket[T], here: Loop | None) -> None:
        with self._lock:
            self._tidy()
            if self._core.withdraw(ticket):
                self._rearm(here)

    def _withdraw_anywhere(self, ticket: Ticket[T]) -> None:
        """Withdraw in the garbage collector, too, or in a signal handler: where this thread may hold the lock.

        If somebody holds it, this thread or another, whoever has it next withdraws the ticket before anything
        else: at the latest a thread that waits for it.
        """
        self._left.append(ticket)
        if self._lock.acquire(blocking=False):
            try:
                self._sweep()
            finally:
                self._lock.release()
        elif not self._sweeping:
            self._sweeping = True
            try:
                calls.OwnThread(self._sweep_later, f"{type(self).__name__}-sweep")
            except RuntimeError:  # no thread starts now: the next event sees to it
                self._sweeping = False

    def _sweep_later(self, _: calls.OwnThread) -> None:
        with self._lock:
            self._sweeping = False  # first: whoever adds one from now on looks for itself
            self._sweep()

    def _sweep(self) -> None:
        self._tidy()
        if self._core.done:
            self._end()

    def _tidy(self) -> None:
        """Withdraw the tickets of callers that have left; give up a core that is torn. Lock held."""
        if self._core.torn:
            self._collapse(None)
        while self._left:
            ticket = self._left.popleft()
            if self._core.withdraw(ticket) and ticket.loop is None:
                notify_cancelled(ticket.future)

    def _collapse(self, error: Exception | None) -> None:
        """Fail all callers, because the core cannot go on: none of them hangs. Lock held."""
        reason = "an exception of a signal handler struck half-way" if error is None else repr(error)
        logger.error("The batcher failed and ends; its callers get BatcherError", exc_info=error)
        msg = f"the batcher has failed ({reason}): make a new one"
        settled = [(ticket, Err(BatcherError(msg))) for ticket in self._core.collapse()]
        self._end()
        try:  # elsewhere: callbacks of futures should not run with the lock held
            calls.OwnThread(lambda _: deliver(settled, None), f"{type(self).__name__}-failed")
        except RuntimeError:  # no thread starts now: better here than never
            deliver(settled, None)

    def _rearm(self, here: Loop | None) -> None:
        """After an event: wake the driver if it would ask too late, or for nothing. Lock held."""
        if self._core.done:
            self._end()
        elif self._armed != -inf:
            due = self._core.due
            if due < self._armed or due == inf != self._armed:
                self._armed = -inf
                try:
                    self._wake(here)
                except BaseException:
                    self._armed = inf  # nobody comes: the next event tries again
                    raise

    def _decide(self) -> Decision[T, S]:
        """Ask the core. Lock held."""
        if self._left or self._core.torn:
            self._tidy()
        try:
            return self._core.decide(self._clock())
        except Exception as error:  # noqa: BLE001 - a defect, or what a signal handler has left
            self._collapse(error)
            return Done()

    def _finish(self, batch: Batch[T], verdict: Verdict[S], here: Loop | None) -> bool:
        """Report the end of a batch and deliver its outcomes. Return whether there is a next one to look for.

        The driver does that afterwards, so that callers who come back at once are part of the next batch.
        """
        core = self._core
        with self._lock:
            if core.torn:
                self._tidy()
            settled = core.finish(batch, verdict, self._clock())
            more = not core.idle or core.closed or self._armed != inf
        deliver(settled, here)
        return more

    def _close(self, here: Loop | None, *, force: bool) -> None:
        calls.refuse_reentrant(self._mark, "stop or close")
        with self._lock:
            self._tidy()
            settled = self._core.close(force=force)
        deliver(settled, here)
        with self._lock:
            if not self._core.done and (here is not self._home or here is None):
                self._settle_on(here)
            self._rearm(here)

    def _abandon(self, here: Loop | None, timeout: float | None) -> bool:
        """Fail all that has not ended; return whether there ever was anything (in this call or before)."""
        if self._stopped.done():
            return self._core.abandoned
        state = repr(self)
        with self._lock:
            if self._stopped.done():
                return self._core.abandoned
            self._tidy()
            settled = list(self._core.abandon())
            self._end()
        logger.warning(
            "%s did not end within %s s; %d callers got BatcherStoppedError", state, timeout, len(settled)
        )
        deliver(settled, here)
        return True

    def _end(self) -> None:
        """Nothing is left to run: let everything end. Lock held; may be called again."""
        if not self._stopped.done():
            self._retire()
            self._stopped.set_result(None)


def _cannot_start(error: Exception) -> BatcherError:
    return BatcherError(f"the batcher cannot start: {error}; free threads or descriptors, and try again")


class Withdrawal:
    """Withdraws a thread's item when its future is cancelled; refers to nothing once the future is done."""

    __slots__ = ("_of",)

    def __init__(self, batcher: Machinery[Any, Any], ticket: Ticket[Any]) -> None:
        """Name the item and where it waits."""
        self._of: tuple[Machinery[Any, Any], Ticket[Any]] | None = (batcher, ticket)

    def forget(self) -> None:
        """There is nothing to withdraw: the item was not accepted."""
        self._of = None

    def __call__(self, future: concurrent.futures.Future[Any]) -> None:
        """Do it, if the future that is done was cancelled."""
        if self._of is not None:
            (batcher, ticket), self._of = self._of, None
            if future.cancelled():
                batcher._withdraw_anywhere(ticket)  # noqa: SLF001
