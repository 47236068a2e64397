"""`Batcher`: what both backends promise, and the calls that a user makes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from concurrent.futures import Executor
from math import inf
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, cast

from . import calls, lifetime
from .core import STALLED_LIMIT
from .decisions import Dispatch
from .delivery import Group, Waiter
from .errors import BatcherError, OptionError
from .machinery import Machinery, Withdrawal
from .options import Concurrency, OnError, Options
from .policy import Policy
from .stats import BatcherStats

T = TypeVar("T")
S = TypeVar("S")

BatchFunction: TypeAlias = Callable[[list[T]], Sequence[S] | Awaitable[Sequence[S]]]


class Batcher(Machinery[T, S]):
    """Collects concurrent calls into one call of `process_batch`, and gives each caller its own answer.

    Pass the function to the constructor or override `process_batch`; it may be sync or async. It gets a
    list of items and returns one result for each, in their order; an element that is an exception
    fails its item only. Coroutines of any event loop `await process(item)`; threads call
    `submit(item).result()`. The batcher may be made before any loop exists. The two backends,
    `ThreadingBatcher` and `AsyncioBatcher`, keep the same promises:

    1. Every accepted item gets exactly one outcome: its result, an error, or its own cancellation.
       Nothing hangs, whatever is cancelled, fails, stops or dies.
    2. A result goes to the caller of its own item, also with several batches in flight.
    3. Items of one group and priority enter batches in the order in which they were accepted.
    4. A batch is never empty, never larger than `max_batch_size`, never above `max_batch_cost`, never
       of two groups. It is closed only when a slot is free to run it.
    5. Cancelling a caller removes a queued item for good and never disturbs its neighbours.
    6. A failing batch fails its own items only; the next batch runs. `on_error="bisect"` finds the
       items that fail and serves the rest. Callers get their own copy of the exception, of its own type,
       with the original as cause. What is no `Exception` (SystemExit, KeyboardInterrupt,
       CancelledError, GeneratorExit), and StopIteration, reach them as `BatchFunctionError`.
    7. Wrong results (too few, too many, None, dict, set, str, bytes, generator, scalar) are a
       `BatchResultError`, never somebody else's answer.
    8. The queue is bounded: at the bound a call fails at once with `QueueFullError`, which carries
       `retry_after`. A call that has no answer when its timeout is over fails with
       `DeadlineExceededError`, by its own timer; if its item is still queued, it never runs.
    9. `stop()` serves all that was accepted; `stop(force=True)` fails what is queued at once;
       `stop(timeout=...)` returns in time. Afterwards calls raise `BatcherStoppedError`. No thread, task,
       timer or descriptor is left.
    10. `cost` and `group_by` run in the caller; the collector runs no user code but `process_batch`. After
        a fork the child starts with an empty queue (with an `executor`: refuses all calls), never hangs.
    11. Idle costs nothing: no wake-up while the queue is empty.
    12. Cost per item does not grow with the queue; memory returns after a burst.

    A batcher starts by itself at the first call. `process_batch` sees no context variables of its callers.
    A batcher that nobody refers to any more serves what it accepted and then ends by itself.
    """

    __slots__ = ()

    def __init__(
        self,
        process_batch: BatchFunction[T, S] | None = None,
        /,
        *,
        max_batch_size: int = 256,
        max_queue_time: float | None = None,
        policy: Policy | None = None,
        concurrency: Concurrency = 1,
        max_queue_size: int = 1024,
        timeout: float | None = None,
        batch_timeout: float | None = None,
        group_by: Callable[[T], Hashable] | None = None,
        cost: Callable[[T], float] | None = None,
        max_batch_cost: float | None = None,
        on_error: OnError = "fail",
        executor: Executor | None = None,
        name: str | None = None,
    ) -> None:
        """Take the batch function and the options; `Options` says what each one means.

        Raises OptionError for a value that is out of range or options that contradict each other.
        """
        overridden = type(self).process_batch is not Batcher.process_batch
        if (process_batch is not None) == overridden:
            msg = "pass a function of a list of items, or override process_batch: one of the two"
            raise OptionError(msg)
        if not (overridden or callable(process_batch)):
            msg = f"process_batch must be a function of a list of items, not {process_batch!r}"
            raise OptionError(msg)
        self._options = Options(
            max_batch_size=max_batch_size,
            max_queue_time=max_queue_time,
            policy=policy,
            concurrency=concurrency,
            max_queue_size=max_queue_size,
            timeout=timeout,
            batch_timeout=batch_timeout,
            group_by=group_by,
            cost=cost,
            max_batch_cost=max_batch_cost,
            on_error=on_error,
            executor=executor,
            name=name,
        )
        self._function = process_batch
        self._is_async = calls.is_async(process_batch or self.process_batch)
        if self._is_async and executor is not None:
            msg = "an async process_batch runs on an event loop: give no executor, or a sync function"
            raise OptionError(msg)
        self._begin()
        lifetime.watch(self)

    def process_batch(self, batch: list[T], /) -> Sequence[S] | Awaitable[Sequence[S]]:
        """Return one result for each item of `batch`, in its order. Override it, or pass a function.

        An override may be sync or async. The list is the callee's to keep or change.
        """
        if self._function is None:
            msg = "no process_batch: pass a function or override it"
            raise OptionError(msg)
        return self._function(batch)

    async def process(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Return the result of `item`; wait until its batch has run.

        `timeout`: seconds from now to the answer; None: the batcher's own. `priority`: a whole number;
        higher ones enter batches first. Cancelling the call withdraws the item.

        Raises QueueFullError, BatcherStoppedError, DeadlineExceededError, ReentrantCallError,
        ItemCostError, what `group_by` or `cost` raised, or what the batch made of the item (promises 6
        and 7).
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[S] = loop.create_future()
        ticket = self._ticket(item, timeout, priority, future, loop)
        self._admit((ticket,), loop)
        try:
            return await future
        except asyncio.CancelledError:
            self._leave(ticket, loop)
            raise
        except GeneratorExit:
            # The garbage collector closes this coroutine, in any thread and at any moment.
            self._withdraw_anywhere(ticket)
            raise
        finally:
            del future, ticket  # they hold the error whose traceback holds this frame

    async def process_many(
        self, items: Iterable[T], *, timeout: float | None = None, priority: int = 0
    ) -> list[S]:
        """Return the results of `items`, in their order. All are admitted together, or none is.

        They may run in several batches, and with other callers' items. When one fails, the others are
        withdrawn and its error is raised. Raises what `process` raises.
        """
        loop = asyncio.get_running_loop()
        group = Group(loop)
        tickets = [self._ticket(item, timeout, priority, group.share(), loop) for item in items]
        self._admit(tickets, loop)
        if not tickets:
            return []
        try:
            return await group.future
        except GeneratorExit:
            for ticket in tickets:
                self._withdraw_anywhere(ticket)  # as in process
            raise
        except BaseException:
            for ticket in tickets:
                self._withdraw(ticket, loop)
            raise
        finally:
            del group, tickets

    def submit(self, item: T, *, timeout: float | None = None, priority: int = 0) -> concurrent.futures.Future[S]:
        """Hand in `item` from any thread and return the future of its result, without waiting.

        `future.cancel()` withdraws the item. Arguments and errors as for `process`; those that
        `process_batch` causes are raised by `future.result()`, refusals by this call. Waiting for the
        result in an event loop's thread blocks that loop: use `process` there. Callbacks of the future run in
        the batcher's own threads, and while one runs, its thread serves nobody: keep them short.
        """
        future: concurrent.futures.Future[S] = concurrent.futures.Future()
        ticket = self._ticket(item, timeout, priority, future, None)
        withdrawal = Withdrawal(self, ticket)
        future.add_done_callback(withdrawal)
        try:
            # As from a thread, whatever runs here: the future may outlive the loop in which this is called.
            self._admit((ticket,), None)
        except BaseException:
            withdrawal.forget()
            raise
        return future

    def call(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Return the result of `item`; block this thread until its batch has run.

        What `submit(item).result()` does, in less time, without a future that others could share. Arguments and
        errors as for `process`; Ctrl-C withdraws the item.
        Raises BatcherError where it would wait for itself: in a thread that runs an event loop (use `process`
        there), and in a callback of a future, which runs in a thread of the batcher.
        """
        if calls.running_loop() is not None:
            msg = "call() would block the running event loop: await process() there"
            raise BatcherError(msg)
        if calls.in_own_thread() and any(thread.is_current for thread in self._threads(busy=True)):
            msg = "call() would wait for the thread that calls it, which is the batcher's own: use submit()"
            raise BatcherError(msg)
        waiter = Waiter()
        ticket = self._ticket(item, timeout, priority, waiter, None)
        self._admit((ticket,), None)
        try:
            waiter.wait()
            return cast("S", waiter.result())
        except BaseException:
            self._withdraw(ticket, None)  # does nothing when it was its outcome
            raise
        finally:
            del waiter, ticket  # they hold the error whose traceback holds this frame

    async def stop(self, force: bool = False, timeout: float | None = None) -> None:
        """Accept nothing more, serve all that was accepted, and return when everything has ended.

        With `force`, items that wait fail with BatcherStoppedError at once; running batches still
        answer. After `timeout` seconds (0 or more) all that is left, running items too, fails in that way, a
        warning is logged, and the call returns, within the second that cancelled coroutines have to clean up;
        a batch function that hangs in a thread is left behind. May be called again, by several callers, and
        with `force` after a stop without.
        Raises ReentrantCallError inside `process_batch`.
        """
        end = self._end_of(timeout)
        loop = asyncio.get_running_loop()
        self._close(loop, force=force)
        await asyncio.wait((asyncio.wrap_future(self._stopped),), timeout=self._seconds_to(end))
        abandoned = self._abandon(loop, timeout) or self._core.stalled > 0
        threads = [thread for thread in self._threads(busy=not abandoned) if not thread.is_current]
        leftovers = {asyncio.wrap_future(thread.ended) for thread in threads} | self._leftovers(loop)
        if leftovers:
            await asyncio.wait(leftovers, timeout=self._seconds_to_end_threads(end, abandoned=abandoned))
        for thread in threads:
            thread.join()

    def close(self, force: bool = False, timeout: float | None = None) -> None:
        """Do the same as `stop`, for callers without an event loop: block until all has ended.

        Raises BatcherError where it would wait for itself: on the event loop that runs the batches, and in a
        callback of a future, which runs in a thread of the batcher.
        """
        calls.refuse_reentrant(self._mark, "close")
        end = self._end_of(timeout)
        loop = calls.running_loop()
        if loop is not None and not self._stopped.done() and (loop is self._home or self._leftovers(loop)):
            msg = "close() would block the event loop that runs the batches: await stop() instead"
            raise BatcherError(msg)
        if any(thread.is_current for thread in self._threads(busy=True)):
            msg = "close() would wait for the thread that calls it, which is the batcher's own: use another one"
            raise BatcherError(msg)
        self._close(loop, force=force)
        concurrent.futures.wait((self._stopped,), self._seconds_to(end))
        abandoned = self._abandon(loop, timeout) or self._core.stalled > 0
        threads = self._threads(busy=not abandoned)
        if threads:
            ends = [thread.ended for thread in threads]
            concurrent.futures.wait(ends, self._seconds_to_end_threads(end, abandoned=abandoned))
        for thread in threads:
            thread.join()

    def _end_of(self, timeout: float | None) -> float:
        """Return the time at which a timeout is over; inf: never."""
        if timeout is None:
            return inf
        if not timeout >= 0:
            msg = f"timeout must be a number of seconds, 0 or more, or None, not {timeout!r}"
            raise OptionError(msg)
        return self._clock() + timeout if timeout < threading.TIMEOUT_MAX else inf

    def _seconds_to(self, end: float) -> float | None:
        return None if end == inf else max(end - self._clock(), 0.0)

    def _seconds_to_end_threads(self, end: float, *, abandoned: bool) -> float | None:
        """Return what is left of the timeout, or time to clean up if that is longer; None: no limit."""
        if end == inf:
            return calls.GRACE if abandoned else None
        return max(end - self._clock(), calls.GRACE)

    async def is_running(self) -> bool:
        """Return whether an item was ever accepted and the batcher has not ended since."""
        return self._core.accepted > 0 and not self._stopped.done()

    def stats(self) -> BatcherStats:
        """Return the counters of one consistent moment.

        As all calls but `future.cancel()`, from any thread, but not in a signal handler or `__del__`: they may
        have interrupted a call of their own thread that holds the lock.
        """
        with self._lock:
            self._tidy()
            return self._core.stats()

    def decisions(self) -> list[Dispatch]:
        """Return the last 256 starts of batches, oldest first, each with its reason. From any thread."""
        with self._lock:
            self._tidy()
            return self._core.dispatches()

    def dump(self) -> str:
        """Return what runs now, for how long and where, with stacks; and what was given up and hangs.

        From any thread. A batch that an executor runs has no stack here.
        """
        with self._lock:
            self._tidy()
            now = self._clock()
            in_flight, stalled = self._core.running_batches
        lines = [repr(self)]
        for batches, state in ((in_flight, "runs"), (stalled, "was given up and hangs")):
            for batch in batches:
                where, stack = calls.stack_of(batch)
                count = len(batch.tickets)
                items = f"{count} item{'s' * (count != 1)}"
                lines += [f"a batch of {items} {state}, for {now - batch.started:.3f} s, {where}", *stack]
        return "\n".join(line.rstrip("\n") for line in lines)

    @property
    def healthy(self) -> bool:
        """Whether batches can run: False while so many hang, after `batch_timeout`, that no other is begun."""
        return self._core.stalled < STALLED_LIMIT

    @property
    def name(self) -> str:
        """The name given, or that of the class."""
        return self._options.name or type(self).__name__

    def __repr__(self) -> str:
        """Show the state, without waiting for it to stand still."""
        core = self._core
        if self._stopped.done():
            state = "stopped"
        elif core.closed:
            state = "stopping"
        else:
            state = "running" if core.accepted else "new"
        kind = type(self).__name__
        title = kind if self.name == kind else f"{kind} {self.name!r}"
        return (
            f"<{title} {state}: {core.queued} queued, {core.running} running, {core.in_flight} batches in flight>"
        )

    def __enter__(self) -> Self:
        """Return the batcher itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Serve what was accepted, then stop."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the batcher itself; leaving the block stops it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Serve what was accepted, then stop."""
        await self.stop()

    def _after_fork(self) -> None:
        """Start afresh in the child: the threads, and the accepted items, are the parent's."""
        was_closed = self._core.closed
        for finalizer in self._finalizers:
            finalizer.detach()  # what they would end is the parent's
        self._begin()
        if was_closed:
            self._close(None, force=True)
        self._orphaned = self._options.executor is not None

    def _at_exit(self) -> concurrent.futures.Future[None] | None:
        """Begin to serve what was accepted before the interpreter takes the threads away; return the end of it."""
        if not self._threads(busy=True):
            return None  # it lives on somebody else's loop, or not at all
        self._close(None, force=False)
        return self._stopped

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what a subclass added, and nothing of the machinery: enough for `process_batch` elsewhere.

        So a subclass works with a ProcessPoolExecutor. The copy cannot serve calls.
        """
        return dict(getattr(self, "__dict__", {}))
