"""`AsyncioDriver`: one event loop, one timer, and a task or a worker thread for each batch in flight.

Theory of operation
===================

The driver runs on a home loop; `home_loop` says which one, and when it changes.

The driver processes new items on the home loop, once for all items that arrive in one iteration of the loop.
Therefore a batch contains all items that have already arrived. The code that asks the core executes its decisions
until the decision is Wait, and then leaves at most one timer. This code depends on the batch function:

- For an async function, it is a task. The task runs the first batch itself, after it has arranged that another
  task or a timer asks for the next one.
- For a sync function, it is a callback, which passes the batches to worker threads. A worker that has finished a
  batch asks for the next one itself, so that it does not wait for a busy loop.

The lock protects the core from callers in other threads, from the workers and from `stats`. No thread waits for
anything but memory while it holds the lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from inspect import isawaitable
from math import inf
from typing import Any, TypeVar

from batchers.core.decisions import Batch, Done, Expire, Run, Wait
from batchers.core.outcomes import Failed, Verdict, judge
from batchers.core.refusals import STALLED_LIMIT

from . import threads
from .delivery import deliver
from .home_loop import HomeLoopDriver
from .invocation import enter_scope, interrupt_batch, invoke_here, result_of, send, without_this_frame
from .loops import Loop, call_soon_threadsafe, running_loop

T = TypeVar("T")
S = TypeVar("S")


class AsyncioDriver(HomeLoopDriver[T, S]):
    """Driver whose loop callbacks, tasks and worker threads ask the core, run batches and deliver outcomes."""

    __slots__ = ("_task_name", "_workers")

    def _set_up(self) -> None:
        super()._set_up()
        self._task_name = f"{self.name}-batch"
        self._workers: threads.WorkerThreads | None = None

    # Waiting

    def _wake(self, here: Loop | None) -> None:
        if self.home is None:
            self._move(here)
        home = self.home
        if self.is_async and home is not None and home is here and home.get_task_factory() is None:
            self._begin_task(home)  # now, because `_advance` would take one more iteration of the loop
            return
        if self._workers is None and not self.is_async and self.options.executor is None:
            self._own_workers().prepare()  # now, because no thread can start during the exit of the interpreter
        self._on_home(here, self._advance)

    def _advance(self) -> None:
        """Execute the decisions of the core until the decision is Wait."""
        home = asyncio.get_running_loop()
        if self.is_async:
            with self.lock:
                self._next_wakeup = -inf  # the new task asks the core soon
            try:
                self._begin_task(home)
            except Exception as error:  # noqa: BLE001 - from a task factory: no batch can run
                failed = Failed(without_this_frame(error))
                while (batch := self._next_batch(home)) is not None:
                    self._complete(batch, failed, home)
            return
        while (batch := self._next_batch(home)) is not None:
            self._start(batch, home)

    def _next_batch(self, home: Loop, task: asyncio.Task[None] | None = None) -> Batch[T] | None:
        """Execute the decisions of the core up to the next Run, and return its batch.

        Return None if the decision is Wait or Done, or if the driver has moved to another home loop. `task` is the
        task that will run the batch. If the task does not run it, `_ended` completes the batch.
        """
        kept = None
        while True:
            with self.lock:
                if self.home is not home:
                    return None  # the new home loop asks the core
                decision = self._decide()
                if isinstance(decision, Wait):
                    self._next_wakeup = decision.until
                    self._set_timer(home, decision.until)
                    kept = self._stop_keeping()  # noqa: F841 - dropped without the lock
                    return None
                if isinstance(decision, Done):
                    self._end()
                    return None
                if isinstance(decision, Run):
                    if task is not None:  # None: a task factory has created another kind of object
                        self._tasks[task] = decision.batch
                    if self.is_async:
                        self._ask_next(home)
                    return decision.batch
            interrupt_batch(decision.batch)
            deliver(decision.settled, home)

    def _ask_next(self, home: Loop) -> None:
        """Arrange that another task or the timer asks the core while this task runs its batch.

        The caller holds the lock.
        """
        due = self.core.due
        if due == -inf:
            self._next_wakeup = -inf
            self._wake(home)
        else:
            self._next_wakeup = due
            self._set_timer(home, due)

    # Tasks: for async batch functions, and for awaitables that a sync one returned

    def _begin_task(self, home: Loop) -> None:
        """Create a task that asks the core and runs a batch.

        The caller may hold the lock only if the loop has no task factory.
        """
        work = self._work(home)
        try:
            task = self._create_task(home, work)
        except BaseException:
            work.close()
            raise
        if task.done():  # an eager task factory has run it already
            self._tasks.pop(task, None)
        else:
            self._tasks.setdefault(task, None)
            task.add_done_callback(self._ended, context=Context())

    def _create_task(self, home: Loop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Create a task with an empty context; older task factories do not accept the argument `context`."""
        if home.get_task_factory() is None:
            return home.create_task(work, name=self._task_name, context=Context())
        return Context().run(home.create_task, work, name=self._task_name)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Complete the batch of a task that was cancelled before its start or interrupted; ask the core again."""
        batch = self._tasks.pop(task, None)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return
        if batch is not None:
            self._complete(batch, Failed(error), task.get_loop())
        self._on_home(task.get_loop(), self._advance)

    async def _work(
        self, home: Loop, batch: Batch[T] | None = None, awaitable: Awaitable[Any] | None = None
    ) -> None:
        """Ask the core for a batch and await the batch function, or await the awaitable of a sync function."""
        verdict: Verdict[Any]
        task = asyncio.current_task()
        if batch is None:
            batch = self._next_batch(home, task)
            if batch is None:
                self._forget(task)
                return
        scope = enter_scope(self.batcher_id)
        batch.where = task
        try:
            work: Any = self.process_batch(batch.items) if awaitable is None else awaitable
            verdict = judge(await work, len(batch.requests))
        except BaseException as error:
            if isinstance(error, GeneratorExit) and running_loop() is not home:
                raise  # not from the batch: the loop has ended, and the garbage collector closes this coroutine
            verdict = Failed(without_this_frame(error))
        scope.active = False
        self._complete(batch, verdict, home)
        self._forget(task)

    def _forget(self, task: asyncio.Task[Any] | None) -> None:
        """Remove a task that needs no further work, which costs less than a call of `_ended` by the loop."""
        if task is not None and task in self._tasks:
            del self._tasks[task]
            task.remove_done_callback(self._ended)

    def _hand_over(self, batch: Batch[T], awaitable: Any) -> None:  # noqa: ANN401 - usually a coroutine
        """Pass the awaitable that a sync batch function returned to the home loop; close it after the end."""
        with self.lock:
            if self.stopped.done():
                getattr(awaitable, "close", bool)()  # no caller waits for its result
                return
            self._leave_dead_home()
            if self.home is not None:
                self._awaitables[batch] = (self.home, awaitable)
            self._on_home(None, self._start_awaitable, batch)

    def _start_awaitable(self, batch: Batch[T]) -> None:
        with self.lock:
            _, awaitable = self._awaitables.pop(batch, (None, None))
        if awaitable is None:
            return  # another loop has taken it
        home = asyncio.get_running_loop()
        work = self._work(home, batch, awaitable)
        try:
            task = self._create_task(home, work)
        except BaseException as error:  # noqa: BLE001 - from a task factory: it fails this batch only
            work.close()
            self._complete(batch, Failed(without_this_frame(error)), home)
            return
        if not task.done():  # an eager task factory may have run it already
            with self.lock:
                self._tasks[task] = batch
                if self.stopped.done():
                    task.cancel()  # the batch was given up after the decision
            task.add_done_callback(self._ended, context=Context())

    # Worker threads or an executor: for sync batch functions

    def _start(self, batch: Batch[T], home: Loop) -> None:
        executor = self.options.executor
        try:
            if executor is None:
                with self.lock:
                    if not self.stopped.done():  # otherwise the batch was given up after the decision
                        self._own_workers().run(partial(self._serve, [batch]))
            else:
                running = send(executor, self.batcher_id, self.process_batch, batch.items)
                running.add_done_callback(lambda done: self._take(batch, partial(result_of, done)))
        except BaseException as error:  # noqa: BLE001 - an error at the start fails this batch only
            self._complete(batch, Failed(without_this_frame(error)), home)

    def _serve(self, batches: list[Batch[T]]) -> None:
        """Run a batch, and then the batches that are due at its end.

        The batch is passed in a list, so that no reference to it remains after its end.
        """
        batch: Batch[T] | None = batches.pop()
        while batch is not None:
            verdict = self._evaluate(batch, partial(self._invoke, batch))
            more = verdict is None or self._finish(batch, verdict, None)
            batch = self._next_in_worker() if more else None

    def _invoke(self, batch: Batch[T]) -> object:
        return invoke_here(self.batcher_id, self.process_batch, batch)

    def _next_in_worker(self) -> Batch[T] | None:
        """Return the next batch for this worker thread, or None if none is due now."""
        kept = None
        while True:
            with self.lock:
                if not self.core.idle:
                    self._leave_dead_home()
                decision = self._decide()
                if isinstance(decision, Done):
                    self._end()
                    return None
                if not isinstance(decision, Expire):
                    self._update_wakeup(None)  # the timer may be too late, or another slot may be free
                    kept = self._stop_keeping()  # noqa: F841 - dropped without the lock
                    return decision.batch if isinstance(decision, Run) else None
            interrupt_batch(decision.batch)
            deliver(decision.settled, None)

    def _take(self, batch: Batch[T], result_of_batch: Callable[[], object]) -> None:
        """Complete a batch with its result from an executor; a thread of the executor calls this method."""
        verdict = self._evaluate(batch, result_of_batch)
        if verdict is not None:
            self._complete(batch, verdict, running_loop())

    def _evaluate(self, batch: Batch[T], call: Callable[[], object]) -> Verdict[Any] | None:
        """Return the verdict on a call of a sync function, or None if the home loop must await its result."""
        try:
            result = call()
            if isawaitable(result):
                self._hand_over(batch, result)
                return None
            return judge(result, len(batch.requests))
        except BaseException as error:  # noqa: BLE001 - promise 6: every exception goes to the callers
            return Failed(without_this_frame(error))

    def _complete(self, batch: Batch[T], verdict: Verdict[Any], here: Loop | None) -> None:
        """Report the end of a batch, and arrange that the core is asked for the next one."""
        if self._finish(batch, verdict, here):
            with self.lock:
                if here is None and self.core.queued:
                    self._leave_dead_home()
                self._update_wakeup(here)

    def _own_workers(self) -> threads.WorkerThreads:
        """Return the worker threads for sync functions; the caller holds the lock."""
        if self._workers is None:
            self._workers = threads.WorkerThreads(self.options.most_slots + STALLED_LIMIT, f"{self.name}-worker")
            self._finally(self._workers.stop_soon)
        return self._workers

    def _retire(self) -> None:
        if self._timer is not None and self.home is not None and not self.home.is_closed():
            self._on_home(running_loop(), self._timer.cancel)
        self._timer = None
        for task, batch in list(self._tasks.items()):
            loop = task.get_loop()
            if batch is not None and loop.is_running():
                call_soon_threadsafe(loop, task.cancel)
        if self._workers is not None:
            self._workers.stop_soon()
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()

    def own_threads(self, *, busy: bool) -> list[threads.DaemonThread]:
        """Return the workers, and the thread of the loop; if `busy` is false, leave out the busy workers."""
        found = [] if self._loop_thread is None else [self._loop_thread.thread]
        if self._workers is not None:
            found += self._workers.threads - (set() if busy else self._workers.busy)
        return found
