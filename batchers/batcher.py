"""`Batcher`: what both backends promise, and the calls that a user makes."""

from __future__ import annotations

import asyncio
import concurrent.futures
from abc import ABC
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from concurrent.futures import Executor
from types import TracebackType
from typing import Any, ClassVar, Generic, NoReturn, Self, TypeAlias, TypeVar, cast

from .core.decisions import Dispatch
from .drivers import shutdown
from .drivers.asyncio_driver import AsyncioDriver
from .drivers.delivery import CancelCallback, GatheredResults, Waiter
from .drivers.driver import Driver
from .drivers.invocation import is_async
from .drivers.loops import running_loop
from .drivers.threading_driver import ThreadingDriver
from .drivers.threads import in_daemon_thread
from .errors import BatcherError, OptionError
from .options import Concurrency, OnError, Options
from .policies.base import Policy
from .stats import BatcherStats

T = TypeVar("T")
S = TypeVar("S")

BatchFunction: TypeAlias = Callable[[list[T]], Sequence[S] | Awaitable[Sequence[S]]]


class _NoDriver:
    """In place of the driver of an object whose `__init__` was not Batcher's: every use says so."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        msg = (
            "this batcher was never set up: call super().__init__() in its __init__, and let the batcher be the "
            "first base class; a pickled batcher serves no calls, so make a new one"
        )
        raise BatcherError(msg)


class Batcher(ABC, Generic[T, S]):
    """Collects concurrent calls into one call of `process_batch`, and gives each caller its own answer.

    Pass the function to the constructor or override `process_batch`; it may be sync or async. It gets a list of
    items and returns one result for each, in the same order. An element that is an exception fails its item
    only. Coroutines of any event loop `await process(item)`. Threads use `call(item)`, or `submit(item)` for a
    future. The batcher may be made before any loop exists. The two backends, `ThreadingBatcher` and
    `AsyncioBatcher`, keep the same promises:

    1. Every accepted item gets exactly one outcome: its result, an error, or its own cancellation. Nothing
       hangs, whatever is cancelled, fails, stops or dies.
    2. A result goes to the caller of its own item, also with several batches in flight.
    3. Items of one group and priority enter batches in the order in which they were accepted.
    4. A batch is never empty, never larger than `max_batch_size`, never above `max_batch_cost`, and never of
       two groups. It is formed only when a slot is free to run it.
    5. Cancelling a call removes a queued item for good and never disturbs its neighbours.
    6. A failing batch fails its own items only, and the next batch runs. `on_error="bisect"` finds the items
       that fail and serves the rest. Callers get their own copy of the exception, of its own type, with the
       original as cause. StopIteration and what is no `Exception` (SystemExit, KeyboardInterrupt,
       CancelledError, GeneratorExit) reach them as `BatchFunctionError`.
    7. Wrong results (too few, too many, None, dict, set, str, bytes, generator, scalar) are a
       `BatchResultError`, never somebody else's answer.
    8. The queue is bounded. At the bound a call fails at once with `QueueFullError`, which carries
       `retry_after`. A call without an answer at the end of its timeout fails with `DeadlineExceededError`, by
       its own timer. An item that is still queued then never runs.
    9. `stop()` serves all accepted items, `stop(force=True)` fails the queued ones at once, and
       `stop(timeout=...)` returns in time. Afterwards calls raise `BatcherStoppedError`. No thread, task, timer
       or descriptor is left.
    10. `cost` and `group_by` run in the caller. The garbage collector runs no user code but `process_batch`.
        After a fork the child starts with an empty queue; with an `executor` it refuses all calls. It never
        hangs.
    11. Idle costs nothing: there is no wake-up while the queue is empty.
    12. The cost of an item does not grow with the queue, and memory returns after a burst.
    13. The names of a subclass are its own. Its methods, fields, properties and slots meet nothing of this
        class but the public names. `name` and `healthy` may be set.

    A batcher starts by itself at the first call. `process_batch` sees no context variables of its callers. A
    batcher that nobody refers to any more serves the accepted items and then ends by itself.
    """

    # One private attribute. No user's class has its name by chance, even if that class is called Batcher.
    __batchers_driver: Driver[T, S] = cast("Driver[T, S]", _NoDriver())
    __batchers_driver_type: ClassVar[type[Driver[Any, Any]] | None] = None

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
            msg = "No batch function: pass one to the constructor or override process_batch (not both)"
            raise OptionError(msg)
        if not (overridden or callable(process_batch)):
            msg = f"process_batch must be a function of a list of items, not {process_batch!r}"
            raise OptionError(msg)
        driver_type = self.__batchers_driver_type
        if driver_type is None:
            msg = f"{type(self).__name__} has no way to wait: derive it from ThreadingBatcher or AsyncioBatcher"
            raise TypeError(msg)
        options = Options(
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
        runs_on_a_loop = is_async(process_batch or self.process_batch)
        if runs_on_a_loop and executor is not None:
            msg = "an async process_batch runs on an event loop: give no executor, or a sync function"
            raise OptionError(msg)
        super().__init__()
        driver: Driver[T, S] = driver_type(self, process_batch, options, is_async=runs_on_a_loop)
        object.__setattr__(self, "_Batcher__batchers_driver", driver)  # a base may have a `__setattr__` of its own

    def process_batch(self, batch: list[T], /) -> Sequence[S] | Awaitable[Sequence[S]]:
        """Return one result for each item of `batch`, in its order. Override it, or pass a function.

        An override may be sync or async. The list is the callee's to keep or change.
        """
        function = self.__batchers_driver.function
        if function is None:
            msg = "no process_batch: pass a function or override it"
            raise OptionError(msg)
        return function(batch)

    async def process(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Return the result of `item`; wait until its batch has run.

        `timeout`: seconds from now to the answer; None: the batcher's own. `priority`: a whole number;
        higher ones enter batches first. Cancelling the call withdraws the item.

        Raises QueueFullError, BatcherStoppedError, DeadlineExceededError, ReentrantCallError,
        ItemCostError, what `group_by` or `cost` raised, or what the batch made of the item (promises 6
        and 7).
        """
        driver = self.__batchers_driver
        loop = asyncio.get_running_loop()
        future: asyncio.Future[S] = loop.create_future()
        request = driver.accept(item, timeout, priority, future, loop)
        try:
            return await future
        except asyncio.CancelledError:
            driver.cancel(request, loop)
            if not future.cancel() and not future.cancelled():
                future.exception()  # it came too late; nobody will look at it any more
            raise
        except GeneratorExit:
            # The garbage collector closes this coroutine, in any thread and at any moment.
            driver.cancel_anywhere(request)
            raise
        finally:
            del future, request  # they hold the error whose traceback holds this frame

    async def process_many(
        self, items: Iterable[T], *, timeout: float | None = None, priority: int = 0
    ) -> list[S]:
        """Return the results of `items`, in their order. All are admitted together, or none is.

        They may run in several batches, and with other callers' items. When one fails, the others are
        withdrawn and its error is raised. Raises what `process` raises.
        """
        driver = self.__batchers_driver
        loop = asyncio.get_running_loop()
        gathered = GatheredResults(loop)
        requests = [driver.requests.make(item, timeout, priority, gathered.slot(), loop) for item in items]
        driver.admit(requests, loop)
        if not requests:
            return []
        try:
            return await gathered.future
        except GeneratorExit:
            for request in requests:
                driver.cancel_anywhere(request)  # as in process
            raise
        except BaseException:
            for request in requests:
                driver.cancel(request, loop)
            raise
        finally:
            del gathered, requests

    def submit(self, item: T, *, timeout: float | None = None, priority: int = 0) -> concurrent.futures.Future[S]:
        """Hand in `item` from any thread and return the future of its result, without waiting.

        `future.cancel()` withdraws the item. Arguments and errors as for `process`; those that
        `process_batch` causes are raised by `future.result()`, refusals by this call. Waiting for the
        result in an event loop's thread blocks that loop: use `process` there. Callbacks of the future run in
        the batcher's own threads, and while one runs, its thread serves nobody: keep them short.
        """
        driver = self.__batchers_driver
        future: concurrent.futures.Future[S] = concurrent.futures.Future()
        request = driver.requests.make(item, timeout, priority, future, None)
        cancel = CancelCallback(driver.cancel_anywhere, request)
        future.add_done_callback(cancel)
        try:
            # As from a thread, whatever runs here: the future may outlive the loop in which this is called.
            driver.admit((request,), None)
        except BaseException:
            cancel.forget()
            raise
        return future

    def call(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Return the result of `item`; block this thread until its batch has run.

        What `submit(item).result()` does, in less time, without a future that others could share. Arguments and
        errors as for `process`; Ctrl-C withdraws the item.
        Raises BatcherError where it would wait for itself: in a thread that runs an event loop (use `process`
        there), and in a callback of a future, which runs in a thread of the batcher.
        """
        driver = self.__batchers_driver
        if running_loop() is not None:
            msg = "call() would block the running event loop: await process() there"
            raise BatcherError(msg)
        if in_daemon_thread() and any(thread.is_current for thread in driver.own_threads(busy=True)):
            msg = "call() would wait for the thread that calls it, which is the batcher's own: use submit()"
            raise BatcherError(msg)
        waiter = Waiter()
        request = driver.accept(item, timeout, priority, waiter, None)
        try:
            waiter.wait()
            return cast("S", waiter.result())
        except BaseException:
            driver.cancel(request, None)  # does nothing when it was its outcome
            raise
        finally:
            del waiter, request  # they hold the error whose traceback holds this frame

    async def stop(self, force: bool = False, timeout: float | None = None) -> None:
        """Accept nothing more, serve all that was accepted, and return when everything has ended.

        With `force`, items that wait fail with BatcherStoppedError at once; running batches still
        answer. After `timeout` seconds (0 or more) all that is left, running items too, fails in that way, a
        warning is logged, and the call returns, within the second that cancelled coroutines have to clean up;
        a batch function that hangs in a thread is left behind. May be called again, by several callers, and
        with `force` after a stop without.
        Raises ReentrantCallError inside `process_batch`.
        """
        await shutdown.stop(self.__batchers_driver, force=force, timeout=timeout)

    def close(self, force: bool = False, timeout: float | None = None) -> None:
        """Do the same as `stop`, for callers without an event loop: block until all has ended.

        Raises BatcherError where it would wait for itself: on the event loop that runs the batches, and in a
        callback of a future, which runs in a thread of the batcher.
        """
        shutdown.close(self.__batchers_driver, force=force, timeout=timeout)

    async def is_running(self) -> bool:
        """Return whether an item was ever accepted and the batcher has not ended since."""
        driver = self.__batchers_driver
        return driver.core.accepted > 0 and not driver.stopped.done()

    def stats(self) -> BatcherStats:
        """Return the counters of one consistent moment.

        As all calls but `future.cancel()`, from any thread, but not in a signal handler or `__del__`: they may
        have interrupted a call of their own thread that holds the lock.
        """
        return self.__batchers_driver.stats()

    def decisions(self) -> list[Dispatch]:
        """Return the last 256 starts of batches, oldest first, each with its reason. From any thread."""
        return self.__batchers_driver.dispatches()

    def dump(self) -> str:
        """Return what runs now, for how long and where, with stacks; and what was given up and hangs.

        From any thread. A batch that an executor runs has no stack here.
        """
        return self.__batchers_driver.dump()

    @property
    def healthy(self) -> bool:
        """Whether batches can run: False while so many hang, after `batch_timeout`, that no other is begun.

        A subclass may set it, or define another one; the batcher itself does not look at it.
        """
        found: bool = self.__dict__.get("healthy", self.__batchers_driver.healthy)
        return found

    @healthy.setter
    def healthy(self, value: bool) -> None:
        vars(self)["healthy"] = value

    @property
    def name(self) -> str:
        """The name given, or that of the class. It may be set, which changes no name of a thread."""
        found: str = self.__dict__.get("name", self.__batchers_driver.name)
        return found

    @name.setter
    def name(self, value: str) -> None:
        vars(self)["name"] = value

    def __repr__(self) -> str:
        """Show the state, without waiting for it to stand still."""
        driver = self.__batchers_driver
        return f"<{type(self).__name__} without a driver>" if isinstance(driver, _NoDriver) else driver.describe()

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

    def __copy__(self) -> NoReturn:
        """Refuse: two batchers cannot share a queue. Raises BatcherError."""
        msg = f"a batcher cannot be copied: make a new {type(self).__name__} with the same arguments"
        raise BatcherError(msg)

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Refuse, as `copy`."""
        self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what a subclass added, and not the driver: enough for `process_batch` in another process.

        So a subclass works with a ProcessPoolExecutor. The copy there serves no calls: they raise BatcherError.
        """
        state = dict(self.__dict__)
        state.pop("_Batcher__batchers_driver", None)
        return state


class ThreadingBatcher(Batcher[T, S]):
    """A batcher made of threads and a Condition. `Batcher` says what it promises.

    A sync `process_batch` runs in the batcher's own worker threads (or in `executor`), an async one on an event
    loop in a thread of the batcher's own. The threads are daemons: when the interpreter exits, accepted items are
    served for up to 5 s.
    """

    _Batcher__batchers_driver_type: ClassVar[type[Driver[Any, Any]] | None] = ThreadingDriver


class AsyncioBatcher(Batcher[T, S]):
    """A batcher made of callbacks and tasks of an event loop. `Batcher` says what it promises.

    An async `process_batch` runs on the loop of its callers; when they are of several loops, or threads, on a loop
    in a thread of the batcher's own. A sync one runs in up to `concurrency` threads of the batcher's own, or in
    `executor`. The threads are daemons: when the interpreter exits, accepted items are served for up to 5 s.
    """

    _Batcher__batchers_driver_type: ClassVar[type[Driver[Any, Any]] | None] = AsyncioDriver
