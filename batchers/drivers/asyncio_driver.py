"""`AsyncioDriver`: one event loop, one timer, and a task or a worker thread for each batch in flight.

Theory of operation
===================

The driver runs on a home loop; `home_loop` says which one, and when it changes. An async function runs on the
function's loop, which is the home loop unless the driver has moved.

The driver processes new items on the home loop, once for all items that arrive in one iteration of the loop.
Therefore a batch contains all items that have already arrived. The code that asks the core executes its decisions
until the decision is Wait, and then leaves at most one timer. This code depends on the batch function:

- For an async function on the home loop, it is a task. The task runs the first batch itself, after it has arranged
  that another task or a timer asks for the next one.
- For a sync function, it is a callback, which passes the batches to worker threads. A worker that has finished a
  batch asks for the next one itself, so that it does not wait for a busy loop.

The lock protects the core from callers in other threads, from the workers and from `stats`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from inspect import isawaitable
from math import inf
from typing import Any, TypeVar

from batchers.core.decisions import Batch, Done, Expire, Run, Wait
from batchers.core.outcomes import Failed, Verdict, judge
from batchers.core.refusals import STALLED_LIMIT

from . import report, threads
from .home_loop import HomeLoopDriver
from .invocation import (
    BatchCancelledError,
    cancel_task,
    ended_by,
    enter_scope,
    invoke_here,
    without_own_frames,
)
from .loops import Loop, call_soon_threadsafe, running_loop

T = TypeVar("T")
S = TypeVar("S")


class AsyncioDriver(HomeLoopDriver[T, S]):
    """Driver whose loop callbacks, tasks and worker threads ask the core, run batches and deliver outcomes."""

    __slots__ = ("_task_name", "_unstarted", "_workers")

    def _set_up(self) -> None:
        super()._set_up()
        self._task_name = f"{self.name}-batch"
        self._workers: threads.WorkerThreads | None = None
        self._unstarted: Batch[T] | None = None  # a batch that no thread has got yet

    # Waiting

    def _start_threads(self) -> None:
        if not self.is_async and self.options.executor is None:
            self._own_workers().prepare()

    def _wake(self, here: Loop | None) -> bool:
        home = self.home
        if home is None:
            self._settle(here)
            home = self.home
            if home is None:
                return False
        if self.is_async and home is here and home is self.function_loop and home.get_task_factory() is None:
            self._begin_task(home)  # now, because `_advance` would take one more iteration of the loop
            return True
        if self._workers is None:
            self._start_threads()  # now, because no thread can start during the exit of the interpreter
        self._on_home(here, self._advance)
        return True

    def _advance(self) -> None:
        """Execute the decisions of the core until the decision is Wait."""
        home = asyncio.get_running_loop()
        try:
            if self.is_async and home is self.function_loop:
                with self.lock:
                    self._next_wakeup = -inf  # the new task asks the core soon
                try:
                    self._begin_task(home)
                except Exception as error:  # noqa: BLE001 - from a task factory: no batch can run
                    failed = Failed(without_own_frames(error))
                    while (batch := self._next_batch(home)) is not None:
                        self._complete(batch, failed, home)
                return
            while (batch := self._next_batch(home)) is not None:
                self._start(batch, home)
        except BaseException:
            self._interrupted(home)
            raise

    def _interrupted(self, home: Loop) -> None:
        """See to an exception of a signal handler in the middle of a callback: ask the core again."""
        self.core.inconsistent = True  # first, because this may be interrupted too
        if self._unstarted is not None:
            self._unstarted.begun = False  # nobody has it: its requests wait again
            self._unstarted = None
        home.call_soon(self._advance, context=Context())

    def _next_batch(  # noqa: C901, PLR0912 - what is planned under the lock is done in the same place
        self, home: Loop, task: asyncio.Task[None] | None = None
    ) -> Batch[T] | None:
        """Execute the decisions of the core up to the next Run, and return its batch.

        Return None if the decision is Wait or Done, or if the driver has moved to another home loop. `task` is the
        task that will run the batch. If the task does not run it, `_ended` completes the batch.
        """
        kept = None
        while True:
            until = -inf
            with self.lock:
                if self.home is not home:
                    return None  # the new home loop asks the core
                decision = self._decide()
                if type(decision) is Run:
                    if task is not None:
                        self._tasks[task] = decision.batch
                    else:  # a sync function, or a task factory has created another kind of object
                        self._unstarted = decision.batch
                    decision.batch.begun = True
                    if self.is_async:
                        # Another task asks the core while this task runs its batch, or the timer does.
                        self._next_wakeup = until = self.core.due
                        if until == -inf:
                            self._planned += 1
                elif type(decision) is Wait:
                    self._next_wakeup = until = decision.until
                    kept = self._stop_keeping()  # noqa: F841 - dropped without the lock
                elif type(decision) is Done:
                    self._planned += 1
            if until > -inf and (self._timer is not None or until < inf):
                self._set_timer(home, until)
            if self._performed != self._planned:
                self._perform(home)
            if type(decision) is Run:
                return decision.batch
            if type(decision) is not Expire:
                return None
            report.interrupt_batch(decision.batch)
            self._deliver(decision.settled, home)

    # Tasks: for async batch functions, and for awaitables that a sync one returned

    def _begin_task(self, home: Loop) -> None:
        """Create a task that asks the core and runs a batch; the caller does not hold the lock."""
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
        batch = self._tasks.get(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self.core.inconsistent = True  # the task may have had a decision that it did not execute
            if batch is not None:
                self._complete(batch, Failed(error), task.get_loop())
            self._on_home(task.get_loop(), self._advance)
        self._tasks.pop(task, None)  # last, so that `_go_on` repeats what was interrupted

    def _go_on(self) -> None:
        for task in list(self._tasks):
            if task.done():
                self._ended(task)
        self._advance()

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
        if batch.interrupted:
            cancel_task(batch)
        work: Any = None
        try:
            work = self.process_batch(batch.items) if awaitable is None else awaitable
            verdict = judge(await work, len(batch.requests))
        except BaseException as error:
            if isinstance(error, GeneratorExit) and running_loop() is not home:
                raise  # not from the batch: the loop has ended, and the garbage collector closes this coroutine
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                msg = "the task that ran the batch was cancelled, as `asyncio.run` does at the end of its loop"
                cancelled = BatchCancelledError(msg)
                cancelled.__cause__ = error
                verdict = Failed(cancelled)
            else:
                verdict = Failed(without_own_frames(error))
        scope.active = False
        self._complete(batch, verdict, home)
        self._forget(task)
        del batch, verdict, awaitable, work  # the frames of an exception refer to this one, by `f_back`

    def _forget(self, task: asyncio.Task[Any] | None) -> None:
        """Remove a task that needs no further work, which costs less than a call of `_ended` by the loop."""
        if task is not None and task in self._tasks:
            del self._tasks[task]
            task.remove_done_callback(self._ended)

    def _start_task(self, batch: Batch[T]) -> None:
        handed_over = self._handed_over.pop(batch, None)
        if handed_over is None:
            return  # another loop has taken it
        loop = asyncio.get_running_loop()
        work = self._work(loop, batch, handed_over[1])
        try:
            task = self._create_task(loop, work)
        except BaseException as error:  # noqa: BLE001 - from a task factory: it fails this batch only
            work.close()
            self._complete(batch, Failed(without_own_frames(error)), loop)
            return
        if not task.done():  # an eager task factory may have run it already
            self._tasks[task] = batch
            if self.core.done:
                task.cancel()  # the batch was given up after the decision
            task.add_done_callback(self._ended, context=Context())

    # Worker threads or an executor: for sync batch functions

    def _start(self, batch: Batch[T], home: Loop) -> None:
        try:
            self._unstarted = None  # from here on, an exception fails the batch
            if self.is_async:
                self._hand_over(batch, None)
            elif self.pool is not None:
                running = self.pool.send(self.batcher_id, self.process_batch, batch.items)
                running.future.add_done_callback(partial(self._take, [(batch, running)]))
            elif not self.core.done:  # otherwise the batch was given up after the decision
                self._own_workers().run(partial(self._serve, [batch]))
        except BaseException as error:  # noqa: BLE001 - an error at the start fails this batch only
            self._complete(batch, Failed(without_own_frames(error)), home)

    def _serve(self, batches: list[Batch[T]]) -> None:
        """Run a batch, and then the batches that are due at its end.

        The batch is passed in a list, so that no reference to it remains after its end.
        """
        batch: Batch[T] | None = None
        try:
            if not batches or not batches[0].begun or batches[0].where is not None:
                self._bury(batches, None)  # another thread had this work, and was ended from outside
            while batches:
                batch = batches[0]
                verdict = self._evaluate(batch, partial(self._invoke, batch))
                more = verdict is None or self._finish(batch, verdict, None)
                batches.clear()
                batch = verdict = None  # also because the frames of an exception refer to this one, by `f_back`
                if more:
                    self._next_in_worker(batches)
        except BaseException as error:  # noqa: BLE001 - from another thread, or from a lack of memory
            del batch
            self._bury(batches, error)

    def _bury(self, batches: list[Batch[T]], error: BaseException | None) -> None:
        """Fail the batch of a worker that an exception from outside has struck, and ask the core again.

        Another such exception may interrupt this. Then another worker gets the list, and calls this again.
        """
        batch = batches[0] if batches else None
        if batch is not None and batch.where is None:
            batch.begun = False  # it was not run: its requests wait again
        with self.lock:
            self.core.inconsistent = True  # it may have had a decision that it did not execute
            self._catch_up()
        if batch is not None and batch.where is not None:
            self._complete(batch, Failed(ended_by(error)), None)
        batches.clear()
        report.log(logging.ERROR, "A worker of %s was ended from outside, and is replaced", error, self.name)
        self._leave_dead_home()
        self._perform(None)

    def _invoke(self, batch: Batch[T]) -> object:
        return invoke_here(self.batcher_id, self.process_batch, batch)

    def _next_in_worker(self, batches: list[Batch[T]]) -> None:
        """Append the next batch for this worker thread, if one is due now."""
        kept = None
        while True:
            if not self.core.idle:
                self._leave_dead_home()
            with self.lock:
                decision = self._decide()
                if isinstance(decision, Run):
                    batches.append(decision.batch)
                    decision.batch.begun = True
                if isinstance(decision, Done):
                    self._planned += 1
                elif not isinstance(decision, Expire):
                    self._plan_wakeup()  # the timer may be too late, or another slot may be free
                    kept = self._stop_keeping()  # noqa: F841 - dropped without the lock
            if self._performed != self._planned:
                self._perform(None)
            if not isinstance(decision, Expire):
                return
            report.interrupt_batch(decision.batch)
            self._deliver(decision.settled, None)

    def _take(self, sent: list[tuple[Batch[T], Callable[[], object]]], _: object) -> None:
        """Complete a batch with its result from an executor; a thread of the executor calls this method.

        They are passed in a list, which is emptied. The frames of an exception refer to all frames that have
        called them, by `f_back`, and so to the frame that has called this one with its arguments.
        """
        batch, result_of_batch = sent.pop()
        verdict = self._evaluate(batch, result_of_batch)
        if verdict is not None:
            self._complete(batch, verdict, running_loop())
        del batch, result_of_batch, verdict

    def _evaluate(self, batch: Batch[T], call: Callable[[], object]) -> Verdict[Any] | None:
        """Return the verdict on a call of a sync function, or None if a loop must await its result."""
        try:
            result = call()
            if type(result) is not list and isawaitable(result):  # most results are lists; isawaitable is slow
                if self.core.done:
                    getattr(result, "close", bool)()  # no caller waits for its result
                else:
                    self._leave_dead_home()
                    self._hand_over(batch, result)
                return None
            return judge(result, len(batch.requests))
        except BaseException as error:  # noqa: BLE001 - promise 6: every exception goes to the callers
            return Failed(without_own_frames(error))
        finally:
            del batch, call  # the frames of an exception refer to this one, by `f_back`

    def _own_workers(self) -> threads.WorkerThreads:
        """Return the worker threads for sync functions."""
        found = self._workers
        most = self.options.most_slots + STALLED_LIMIT
        if found is None:
            with self.lock:
                found = self._workers
                if found is None:
                    found = threads.WorkerThreads(most, f"{self.name}-worker")
                    self._workers = found
                    self._finally(found.stop_soon)
        found.allow(most)  # more of them after `reconfigure`
        return found

    def _retire(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and self.home is not None and not self.home.is_closed():
            self._on_home(running_loop(), timer.cancel)
        for task, batch in list(self._tasks.items()):
            loop = task.get_loop()
            if batch is not None and loop.is_running():
                call_soon_threadsafe(loop, task.cancel)
        if self._workers is not None:
            self._workers.stop_soon()
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()
        self._retire_pool()

    def own_threads(self, *, busy: bool) -> list[threads.DaemonThread]:
        """Return the workers, and the thread of the loop; if `busy` is false, leave out the busy workers."""
        found = [] if self._loop_thread is None else [self._loop_thread.thread]
        if self._workers is not None:
            found += self._workers.threads - (set() if busy else self._workers.busy)
        if self.pool is not None:
            found += self.pool.threads
        return [thread for thread in found if not thread.is_dead]
