"""`Batcher`: the public interface, and the promises of both backends."""

from __future__ import annotations

import asyncio
import concurrent.futures
from abc import ABC
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar, Unpack, cast

from .copying import NotCopied
from .core.decisions import Dispatch
from .drivers import shutdown
from .drivers.delivery import CancelCallback, GatheredResults, Waiter
from .drivers.driver import Driver
from .drivers.futures import SharedFuture
from .drivers.interface import AnyDriver
from .drivers.invocation import check_batch_function
from .drivers.loops import running_loop
from .drivers.no_driver import NoDriver
from .drivers.threads import in_daemon_thread
from .drivers.worlds import no_asyncio_loop, refuse_green_threads, running_asyncio_loop
from .errors import BatcherError, OptionError
from .options import Changes, Concurrency, OnError, Options
from .policies.base import Policy
from .rows import Rows
from .stats import BatcherStats

T = TypeVar("T")
S = TypeVar("S")

BatchFunction: TypeAlias = Callable[[list[T]], Rows[S] | Awaitable[Rows[S]]]


class Batcher(NotCopied, ABC, Generic[T, S]):
    """Collects concurrent calls into one call of `process_batch`, and returns its own result to each caller.

    Pass the function to the constructor or override `process_batch`; it may be sync or async. It gets a list of
    items and returns one result for each, in the same order. An element that is an exception fails its item
    only. Coroutines of any event loop `await process(item)`. Threads use `call(item)`, or `submit(item)` for a
    future. The batcher may be made before any loop exists. The two backends, `ThreadingBatcher` and
    `AsyncioBatcher`, keep the same promises:

    1. Every accepted item gets exactly one outcome: its result, an error, or its own cancellation, even if a part
       of the system is cancelled, fails, stops or dies. An accepted call without a `timeout` waits for ever only
       if the batch function never returns, or if items of a higher priority never stop coming.
    2. A result goes to the caller of its own item, also with several batches in flight.
    3. Items of one group and priority enter batches in the order in which they were accepted. With `length`,
       items may overtake each other. Of each group, only the item of the highest priority that has waited longest
       is certain to be in its next batch.
    4. A batch is never empty, never larger than `max_batch_size`, never above `max_batch_cost`, and never of
       two groups. It is formed only when a slot is free to run it.
    5. The cancellation of a call permanently removes a queued item, and never affects other items.
    6. A failing batch fails its own items only, and the next batch runs. `on_error="bisect"` finds the items
       that fail and serves the rest. Each caller gets its own copy of the exception, of the same type, with the
       original as cause. The frames of the original are cleared, so that no caller holds the item of another one;
       file, line and text stay. Failed batches are logged, at most one record a second, also if nobody waits.
       Callers get `BatchFunctionError` for StopIteration and for exceptions that are no `Exception` (SystemExit,
       KeyboardInterrupt, CancelledError, GeneratorExit).
    7. Wrong results raise `BatchResultError` at every batch size: too few, too many, None, text, scalars,
       generators, mappings, sets, and whatever holds columns instead of rows (a tuple, a named tuple, a data
       frame). `process_batch` lists them all. No caller ever gets the result of another item.
    8. The queue is bounded. At the bound a call fails at once with `QueueFullError`, which carries
       `retry_after`. A call without an answer at the end of its timeout fails with `DeadlineExceededError`, by
       its own timer. An item that is still queued then never runs.
    9. `stop()` serves all accepted items, `stop(force=True)` fails the queued ones at once, and
       `stop(timeout=...)` returns in time. Afterwards calls raise `BatcherStoppedError`. No timer or
       descriptor is left, and no task or thread but those in which a batch function still runs, or which wait for
       a pool to end.
    10. `convert`, `cost`, `group_by` and `length` run in the caller. The library does not hold its lock while it
        logs or drops items. CPython may run other code in a thread that holds the lock (the garbage collector,
        signal handlers, trace functions, `__hash__` and `__eq__` of groups). If that code calls the batcher, a
        cancellation is noted, reports are answered, and other calls raise BatcherError. After a fork, the batcher
        of the child has an empty queue. It refuses all calls if its `executor` is an object and not a function.
        The child never hangs.
    11. An idle batcher costs nothing: there is no wake-up while the queue is empty.
    12. No step takes longer in a longer queue, except for Python's garbage collector, which also looks at the
        items that wait. Memory is released after a burst.
    13. A subclass may use any names for its methods, fields, properties and slots. Only the public names of
        this class are reserved. `name` and `healthy` may be set.
    14. What dies is replaced. A worker or loop that ends fails its batch, and the next one takes over. `healthy`
        is False only if a restart of the process helps. Errors name the true cause.

    A batcher starts automatically at the first call. `process_batch` sees no context variables of its callers.
    A batcher without references serves the accepted items and then ends automatically.
    """

    # The only private attributes. No class of a user has these names by chance, even if it is called Batcher.
    __batchers_driver: AnyDriver[T, S] = cast("AnyDriver[T, S]", NoDriver())
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
        convert: Callable[[Any], T] | None = None,
        group_by: Callable[[T], Hashable] | None = None,
        cost: Callable[[T], float] | None = None,
        max_batch_cost: float | None = None,
        length: Callable[[T], float] | None = None,
        batch_sizes: Sequence[int] | None = None,
        on_error: OnError = "fail",
        cancel_abandoned: bool = False,
        executor: Executor | Callable[[], Executor] | None = None,
        name: str | None = None,
    ) -> None:
        """Initialise the batcher; `Options` documents the options. Raises OptionError for invalid ones."""
        overridden = type(self).process_batch is not Batcher.process_batch
        runs_on_a_loop = check_batch_function(process_batch, self.process_batch, executor, overridden=overridden)
        driver_type = self.__batchers_driver_type
        if driver_type is None:
            msg = f"{type(self).__name__} has no way to wait: derive it from ThreadingBatcher or AsyncioBatcher"
            raise TypeError(msg)
        options = Options.of(
            process_batch or type(self).process_batch,
            max_batch_size=max_batch_size,
            max_queue_time=max_queue_time,
            policy=policy,
            concurrency=concurrency,
            max_queue_size=max_queue_size,
            timeout=timeout,
            batch_timeout=batch_timeout,
            convert=convert,
            group_by=group_by,
            cost=cost,
            max_batch_cost=max_batch_cost,
            length=length,
            batch_sizes=batch_sizes,
            on_error=on_error,
            cancel_abandoned=cancel_abandoned,
            executor=executor,
            name=name,
        )
        refuse_green_threads(needs_loop=runs_on_a_loop or driver_type.needs_loop)
        super().__init__()
        driver: Driver[T, S] = driver_type(self, process_batch, options, is_async=runs_on_a_loop)
        object.__setattr__(self, "_Batcher__batchers_driver", driver)  # another base may override `__setattr__`

    def process_batch(self, batch: list[T], /) -> Rows[S] | Awaitable[Rows[S]]:
        """Return one result for each item of `batch`, in the same order.

        Override this method, sync or async, or pass a function. The function may keep or change the list.

        The elements of the returned value are its rows: element n is the result of item n. These values are valid:

        - a list, and any other sequence but a tuple or text: deque, range, array.array;
        - an array with one dimension or more, of numpy, torch, TensorFlow or JAX: its first axis is the items;
        - a Series of pandas or polars, an array of pyarrow.

        These values hold columns, one value for all items, or no order. They fail the batch with BatchResultError
        at every batch size:

        - a tuple, a named tuple, a return type of torch (`torch.max(x, dim=1)`): return `list(zip(means, stds))`;
        - a data frame or table: return its rows;
        - a mapping, a view of one, a set;
        - str, bytes, bytearray, memoryview;
        - a generator or other iterator, a scalar, an array without dimensions, None;
        - more or fewer elements than items.

        An element that is an exception fails its item only. So does an exception class, or a coroutine, with
        BatchResultError.
        """
        function = self.__batchers_driver.function
        if function is None:
            msg = "no process_batch: pass a function or override it"
            raise OptionError(msg)
        return function(batch)

    async def process(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Return the result of `item`; wait until its batch has run.

        `timeout`: seconds from now to the answer; None: the batcher's default. `priority`: an int; items with a
        higher priority enter batches first. The cancellation of the call withdraws the item.

        Raises QueueFullError, BatcherStoppedError, DeadlineExceededError, BatchTimeoutError, ReentrantCallError,
        ItemCostError, OptionError, the errors of callbacks (promise 10) and of the batch (promises 6 and 7).
        """
        driver = self.__batchers_driver
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise no_asyncio_loop() from error
        future: asyncio.Future[S] = loop.create_future()
        try:
            request = driver.accept(item, timeout, priority, future, loop)
        except BaseException:
            future.cancel()  # no outcome may come unread, if an error has struck after the acceptance
            raise
        try:
            return await future
        except GeneratorExit:
            driver.cancel(request)  # the garbage collector may close this coroutine in any thread, at any time
            raise
        except BaseException:  # the outcome, a cancellation, or a RecursionError of this task
            if not future.cancel() and not future.cancelled():  # first, because it needs no frame
                future.exception()  # the outcome was too late; this marks its error as retrieved
            driver.cancel(request, loop)
            raise
        finally:
            del future, request  # breaks a cycle: they refer to the error, and its traceback to this frame

    async def process_many(
        self, items: Iterable[T], *, timeout: float | None = None, priority: int = 0
    ) -> list[S]:
        """Return the results of `items`, in the same order; accept all items together, or none.

        The items may run in several batches, and with items of other callers. If one item fails, its error is
        raised, with a note that has its index (`errors.index_of`), and the others are withdrawn. Raises the same
        errors as `process`.
        """
        driver = self.__batchers_driver
        loop = running_asyncio_loop()
        gathered = GatheredResults(loop)
        requests = driver.requests.make_all(items, timeout, priority, gathered, loop)
        try:
            driver.admit(requests, loop)
        except BaseException:
            gathered.future.cancel()  # as in `process`
            raise
        try:
            return (await gathered.future) if requests else []
        except GeneratorExit:
            for request in requests:
                driver.cancel(request)  # for the same reason as in `process`
            raise
        except BaseException:
            gathered.future.cancel()  # first, as in `process`
            for request in requests:
                driver.cancel(request, loop)
            raise
        finally:
            del gathered, requests

    def submit(self, item: T, *, timeout: float | None = None, priority: int = 0) -> concurrent.futures.Future[S]:
        """Submit `item` from any thread, and return the future of its result without waiting.

        `future.cancel()` withdraws the item. The arguments and errors are the same as for `process`. This call
        raises the errors of a refusal; `future.result()` raises the errors after the acceptance. In the thread of
        an event loop, waiting for the result blocks that loop: use `process` there. Callbacks of the future run
        in threads of the batcher. A thread runs no batch during a callback, so callbacks must be short.
        """
        driver = self.__batchers_driver
        future: SharedFuture[S] = SharedFuture()
        request = driver.requests.make(item, timeout, priority, future, None)
        cancel = CancelCallback(driver.cancel, request)
        future.add_done_callback(cancel)
        try:
            # None even if a loop runs in this thread: the future may outlive that loop.
            driver.admit((request,), None)
        except BaseException:
            cancel.forget()
            raise
        return future

    def call(self, item: T, *, timeout: float | None = None, priority: int = 0) -> S:
        """Return the result of `item`; block this thread until its batch has run.

        The call is equivalent to `submit(item).result()`, but takes less time and creates no future to share. The
        arguments and errors are the same as for `process`. Ctrl-C withdraws the item. Raises BatcherError if the
        thread would wait for itself: in a thread that runs an event loop (use `process` there), and in a callback
        of a future, which runs in a thread of the batcher.
        """
        driver = self.__batchers_driver
        if running_loop() is not None:
            msg = "call() would block the running event loop: await process() there, or use the future of submit()"
            raise BatcherError(msg)
        driver.refuse_wait("call()", "use submit()")
        if in_daemon_thread() and any(thread.is_current for thread in driver.own_threads(busy=True)):
            msg = "call() would wait for the thread that calls it, which is the batcher's own: use submit()"
            raise BatcherError(msg)
        waiter = Waiter()
        request = driver.accept(item, timeout, priority, waiter, None)
        try:
            waiter.wait()
            return cast("S", waiter.result())
        except BaseException:
            driver.cancel(request)  # no effect if the exception is the outcome of the request
            raise
        finally:
            del waiter, request  # breaks a cycle: they refer to the error, and its traceback to this frame

    async def stop(self, force: bool = False, timeout: float | None = None) -> None:
        """Accept no more items, serve all accepted items, and return when everything has ended.

        With `force`, the waiting items fail with BatcherStoppedError at once; running batches still return
        results. After `timeout` seconds (0 or more; None: no limit), all remaining items fail with the same error,
        running items too, and a warning is logged. The call then returns within 1 second, in which cancelled
        coroutines can clean up. A batch function that hangs in a thread continues to run. Several callers may call
        this method, again and also with `force` after a call without it.
        Raises ReentrantCallError inside `process_batch`, and OptionError for a negative or NaN timeout.
        """
        await shutdown.stop(self.__batchers_driver, force=force, timeout=timeout)

    def close(self, force: bool = False, timeout: float | None = None) -> None:
        """Do the same as `stop` for callers without an event loop: block until everything has ended.

        Raises BatcherError if the thread would wait for itself: on the event loop that runs the batches, and in a
        callback of a future, which runs in a thread of the batcher.
        """
        shutdown.close(self.__batchers_driver, force=force, timeout=timeout)

    def start(self) -> None:
        """Start the threads of the batcher, and choose the loop of an async function, before the first call.

        `with` and `async with` do this. Without it, the first call does. In the thread of an event loop, that loop
        is the one on which an async function of an `AsyncioBatcher` runs. After a stop the call has no effect.
        Raises BatcherError if no thread can start.
        """
        self.__batchers_driver.start(running_loop())

    def reconfigure(self, **changes: Unpack[Changes]) -> None:
        """Change options while the batcher runs: `reconfigure(concurrency=4, max_batch_size=64)`.

        `max_batch_size`, `max_queue_time` or `policy`, `concurrency`, `max_queue_size`, `timeout` and
        `batch_timeout` can change; `Options` documents them. They are checked as a whole: after an OptionError all
        are as before. Items that wait keep their order. Running batches go on, also if there are more of them now
        than `concurrency`. A shorter queue drops no item. `timeout` counts for new calls. A policy that changes
        begins to learn anew. Any thread may call this method.
        """
        self.__batchers_driver.reconfigure(changes)

    async def is_running(self) -> bool:
        """Return True if the batcher was started, by `start` or by its first item, and has not ended since."""
        return self.__batchers_driver.running

    def stats(self) -> BatcherStats:
        """Return the counters of one consistent moment.

        Any thread may call this method. A signal handler or `__del__` method that has interrupted a call of this
        batcher in its own thread may get BatcherError.
        """
        return self.__batchers_driver.stats()

    def decisions(self) -> list[Dispatch]:
        """Return the last 256 starts of batches, oldest first, each with its reason; any thread may call this."""
        return self.__batchers_driver.dispatches()

    def dump(self) -> str:
        """Return a report of the batches that run, or hang after they were given up: seconds, location and stack.

        Any thread may call this method. The report has no stack for a batch that an executor runs.
        """
        return self.__batchers_driver.dump()

    @property
    def healthy(self) -> bool:
        """True if batches can start; False if only a restart helps.

        It is False while 4 batches are stalled after their `batch_timeout`, if an `executor` that is an object is
        broken, and after an internal error. A subclass may set or redefine this property.
        """
        found: bool = self.__dict__.get("healthy", self.__batchers_driver.healthy)
        return found

    @healthy.setter
    def healthy(self, value: bool) -> None:
        vars(self)["healthy"] = value

    @property
    def name(self) -> str:
        """The option `name`, or the name of the class; a new value does not change the names of threads."""
        found: str = self.__dict__.get("name", self.__batchers_driver.name)
        return found

    @name.setter
    def name(self, value: str) -> None:
        vars(self)["name"] = value

    def __repr__(self) -> str:
        """Return a description of the state, without the lock: its numbers may be of different moments."""
        driver = self.__batchers_driver
        return f"<{type(self).__name__} without a driver>" if isinstance(driver, NoDriver) else driver.describe()

    def __enter__(self) -> Self:
        """Start the batcher, and return it; leaving the block closes it."""
        self.__batchers_driver.start(running_loop())
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Serve the accepted items, then close the batcher."""
        self.close()

    async def __aenter__(self) -> Self:
        """Start the batcher, and return it; leaving the block stops it."""
        self.__batchers_driver.start(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Serve the accepted items, then stop the batcher."""
        await self.stop()
