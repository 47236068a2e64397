"""`AsyncioDriver`: one event loop, one timer, and a task or a worker thread for each batch in flight.

Theory of operation
===================

The driver lives on a home loop: the loop of its callers, as long as all come from one. When a caller comes
from elsewhere, it moves to a loop in a thread of its own, which no caller can close. When its home has ended
without it (`asyncio.run` once more), it starts on the next caller's loop.

New items are looked at on the home loop, once for all that come in one turn of it, so a batch is closed after
what has already arrived. Whoever asks the core carries out decisions until the core says Wait, then leaves
one timer behind, or none. For an async batch function this is a task: it runs the first batch itself, after
it has seen to it that somebody asks for the next one. For a sync function it is a callback, which lets worker
threads run the batches. A worker that has finished a batch asks for the next one itself, so that it need not
wait for a busy loop.

The lock is there for callers from other threads, for the workers and for `stats`. It is never held while
anything waits, but for memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from inspect import isawaitable
from math import inf
from typing import Any, TypeVar

from batchers.core.admission import STALLED_LIMIT
from batchers.core.decisions import Batch, Done, Expire, Run, Wait
from batchers.core.outcomes import Failed, Verdict, judge

from . import threads
from .delivery import deliver
from .home_loop import HomeLoopDriver
from .invocation import enter_scope, interrupt_batch, invoke_here, result_of, send, without_this_frame
from .loops import Loop, call_soon_threadsafe, running_loop

T = TypeVar("T")
S = TypeVar("S")


class AsyncioDriver(HomeLoopDriver[T, S]):
    """Callbacks and tasks of an event loop, and worker threads, that ask the core, run batches and deliver."""

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
            self._begin_task(home)  # now: one turn of the loop less than through `_advance`
            return
        if self._workers is None and not self.is_async and self.options.executor is None:
            self._own_workers().prepare()  # now, because at the end of a program no thread starts any more
        self._on_home(here, self._advance)

    def _advance(self) -> None:
        """Do what the core says, until it says Wait."""
        home = asyncio.get_running_loop()
        if self.is_async:
            with self.lock:
                self._next_wakeup = -inf  # somebody is on the way
            try:
                self._begin_task(home)
            except Exception as error:  # noqa: BLE001 - out of a task factory: nothing can run
                failed = Failed(without_this_frame(error))
                while (batch := self._next_batch(home)) is not None:
                    self._complete(batch, failed, home)
            return
        while (batch := self._next_batch(home)) is not None:
            self._start(batch, home)

    def _next_batch(self, home: Loop, task: asyncio.Task[None] | None = None) -> Batch[T] | None:
        """Ask the core for a batch to run, and do what else it says. None: it says Wait, or somebody else asks.

        `task` is the one that will run it: if it does not, `_ended` sees it.
        """
        kept = None
        while True:
            with self.lock:
                if self.home is not home:
                    return None  # moved; the new home asks
                decision = self._decide()
                if isinstance(decision, Wait):
                    self._next_wakeup = decision.until
                    self._set_timer(home, decision.until)
                    kept = self._stop_keeping()  # noqa: F841 - dropped when the lock is free
                    return None
                if isinstance(decision, Done):
                    self._end()
                    return None
                if isinstance(decision, Run):
                    if task is not None:  # None: a task factory has made something else
                        self._tasks[task] = decision.batch
                    if self.is_async:
                        self._ask_next(home)
                    return decision.batch
            interrupt_batch(decision.batch)
            deliver(decision.settled, home)

    def _ask_next(self, home: Loop) -> None:
        """Let somebody else ask for what is due next, while this task runs its batch. Lock held."""
        due = self.core.due
        if due == -inf:
            self._next_wakeup = -inf
            self._wake(home)
        else:
            self._next_wakeup = due
            self._set_timer(home, due)

    # Async batch functions, and what a sync one has left to await: in tasks

    def _begin_task(self, home: Loop) -> None:
        """Make a task that asks the core and runs a batch. The lock may be held where there is no task factory."""
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
        """Make a task with a context of its own. Task factories of old take no context."""
        if home.get_task_factory() is None:
            return home.create_task(work, name=self._task_name, context=Context())
        return Context().run(home.create_task, work, name=self._task_name)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """See that a task which was cancelled before it began, or interrupted, leaves nothing undone."""
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
        """Ask the core for a batch and await the batch function, or await what a sync one has returned."""
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
                raise  # the batch did not raise it: the loop is gone, and this coroutine is collected
            verdict = Failed(without_this_frame(error))
        scope.active = False
        self._complete(batch, verdict, home)
        self._forget(task)

    def _forget(self, task: asyncio.Task[Any] | None) -> None:
        """Note that a task leaves nothing undone. That costs less than to let the loop call `_ended`."""
        if task is not None and task in self._tasks:
            del self._tasks[task]
            task.remove_done_callback(self._ended)

    def _hand_over(self, batch: Batch[T], awaitable: Any) -> None:  # noqa: ANN401 - a coroutine, most of the time
        """Let the home loop await what a sync batch function has returned."""
        with self.lock:
            if self.stopped.done():
                getattr(awaitable, "close", bool)()  # nobody waits for it
                return
            self._leave_dead_home()
            if self.home is not None:
                self._awaitables[batch] = (self.home, awaitable)
            self._on_home(None, self._start_awaitable, batch)

    def _start_awaitable(self, batch: Batch[T]) -> None:
        with self.lock:
            _, awaitable = self._awaitables.pop(batch, (None, None))
        if awaitable is None:
            return  # another loop has it
        home = asyncio.get_running_loop()
        work = self._work(home, batch, awaitable)
        try:
            task = self._create_task(home, work)
        except BaseException as error:  # noqa: BLE001 - out of a task factory: it ends this batch only
            work.close()
            self._complete(batch, Failed(without_this_frame(error)), home)
            return
        if not task.done():  # an eager task factory may have run it already
            with self.lock:
                self._tasks[task] = batch
                if self.stopped.done():
                    task.cancel()  # given up since it was decided
            task.add_done_callback(self._ended, context=Context())

    # Sync batch functions: in worker threads, or in an executor

    def _start(self, batch: Batch[T], home: Loop) -> None:
        executor = self.options.executor
        try:
            if executor is None:
                with self.lock:
                    if not self.stopped.done():  # given up since it was decided
                        self._own_workers().run(partial(self._serve, [batch]))
            else:
                running = send(executor, self.batcher_id, self.process_batch, batch.items)
                running.add_done_callback(lambda done: self._take(batch, partial(result_of, done)))
        except BaseException as error:  # noqa: BLE001 - whatever keeps it from running, it ends this batch only
            self._complete(batch, Failed(without_this_frame(error)), home)

    def _serve(self, batches: list[Batch[T]]) -> None:
        """Run a batch (in a list, so that nobody refers to it afterwards), and those that are due by then."""
        batch: Batch[T] | None = batches.pop()
        while batch is not None:
            verdict = self._evaluate(batch, partial(self._invoke, batch))
            more = verdict is None or self._finish(batch, verdict, None)
            batch = self._next_in_worker() if more else None

    def _invoke(self, batch: Batch[T]) -> object:
        return invoke_here(self.batcher_id, self.process_batch, batch)

    def _next_in_worker(self) -> Batch[T] | None:
        """Ask the core for the next batch, in a worker thread. None: there is none now."""
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
                    self._update_wakeup(None)  # the timer, or another free slot
                    kept = self._stop_keeping()  # noqa: F841 - dropped when the lock is free
                    return decision.batch if isinstance(decision, Run) else None
            interrupt_batch(decision.batch)
            deliver(decision.settled, None)

    def _take(self, batch: Batch[T], result_of_batch: Callable[[], object]) -> None:
        """Take what an executor has made of a batch, in a thread of the executor."""
        verdict = self._evaluate(batch, result_of_batch)
        if verdict is not None:
            self._complete(batch, verdict, running_loop())

    def _evaluate(self, batch: Batch[T], call: Callable[[], object]) -> Verdict[Any] | None:
        """Return what a call of a sync function means for its items. None: a loop has to await the rest of it."""
        try:
            result = call()
            if isawaitable(result):
                self._hand_over(batch, result)
                return None
            return judge(result, len(batch.requests))
        except BaseException as error:  # noqa: BLE001 - promise 6: whatever it is, it goes to the callers
            return Failed(without_this_frame(error))

    def _complete(self, batch: Batch[T], verdict: Verdict[Any], here: Loop | None) -> None:
        """Report the end of a batch, and see that somebody asks for the next one."""
        if self._finish(batch, verdict, here):
            with self.lock:
                if here is None and self.core.queued:
                    self._leave_dead_home()
                self._update_wakeup(here)

    def _own_workers(self) -> threads.WorkerThreads:
        """Return the threads for sync functions. Lock held."""
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
        """Return the workers, and the thread of the loop."""
        found = [] if self._loop_thread is None else [self._loop_thread.thread]
        if self._workers is not None:
            found += self._workers.threads - (set() if busy else self._workers.busy)
        return found
