"""`AsyncioBatcher`: one event loop, one timer handle, and a task or a worker thread for each batch in flight.

Theory of operation
===================

The batcher lives on a home loop: the loop of its callers, as long as all come from one. When a caller comes
from elsewhere, it moves to a loop in a thread of its own, which no caller can close. When its home has ended
without it (`asyncio.run` once more), it starts on the next caller's loop.

Only the home loop asks the core, once for all offers of one turn of the loop, so a batch is closed after what
has already arrived. Whoever asks carries out decisions until the core says Wait, then leaves one timer behind,
or none. For an async batch function it is a task: the first batch that the core names, it runs itself, after it
has seen to it that somebody asks for the next one. For a sync function it is a callback, which lets worker
threads run the batches; they report the end themselves.

The lock is there for callers from other threads, for the workers and for `stats`; it is never held while
anything waits, but for memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from inspect import isawaitable
from math import inf
from typing import Any, TypeVar

from . import calls
from .core import STALLED_LIMIT
from .decisions import Batch, Done, Run, Wait
from .delivery import deliver
from .errors import BatchFunctionError
from .interface import Batcher
from .machinery import Loop
from .outcomes import Failed, Verdict, judge

T = TypeVar("T")
S = TypeVar("S")

LONGEST_WAIT = 86_400.0
"""Seconds after which a timer looks again; not every loop takes an endless number."""

STRAY_SECONDS = 1.0
"""How often a batch on a former home is looked after."""


class AsyncioBatcher(Batcher[T, S]):
    """A batcher made of callbacks and tasks of an event loop. `Batcher` says what it promises.

    An async `process_batch` runs on the loop of its callers; when they are of several loops, or threads, on
    a loop in a thread of the batcher's own. A sync one runs in up to `concurrency` threads of the
    batcher's own, or in `executor`. The threads are daemons: when the interpreter exits, what was accepted is
    served for up to 5 s.
    """

    __slots__ = ("_loop_thread", "_rests", "_task_name", "_tasks", "_timer", "_timer_at", "_workers")

    def _settle_in(self) -> None:
        self._task_name = f"{self.name}-batch"
        # Tasks that will ask the core, or have a batch that did not end yet.
        self._tasks: dict[asyncio.Task[None], Batch[T] | None] = {}
        # Awaitables that a sync function has returned, on their way to a loop.
        self._rests: dict[Batch[T], tuple[Loop, Awaitable[Any]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._workers: calls.Workers | None = None
        self._loop_thread: calls.LoopThread | None = None

    # Waiting

    def _wake(self, here: Loop | None) -> None:
        if self._home is None:
            self._move(here)
        home = self._home
        if self._is_async and home is not None and home is here and home.get_task_factory() is None:
            self._begin_task(home)  # now: one turn of the loop less than through `_advance`
            return
        if self._workers is None and not self._is_async and self._options.executor is None:
            self._own_workers().prepare()  # now, because at the end of a program no thread starts any more
        self._on_home(here, self._advance)

    def _on_home(self, here: Loop | None, callback: Callable[..., object], *args: object) -> None:
        """Let the home loop call something soon, in a context of nobody's."""
        home = self._home
        if home is None:
            return
        if here is home:
            home.call_soon(callback, *args, context=Context())
        else:
            calls.tell(home, callback, *args)

    def _advance(self) -> None:
        """Do what the core says, until it says Wait."""
        home = asyncio.get_running_loop()
        if self._is_async:
            with self._lock:
                self._armed = -inf  # somebody is on the way
            try:
                self._begin_task(home)
            except Exception as error:  # noqa: BLE001 - out of a task factory: nothing can run
                failed = Failed(calls.without_this_frame(error))
                while (batch := self._next_batch(home)) is not None:
                    self._complete(batch, failed, home)
            return
        while (batch := self._next_batch(home)) is not None:
            self._start(batch, home)

    def _next_batch(self, home: Loop, task: asyncio.Task[None] | None = None) -> Batch[T] | None:
        """Ask the core for a batch to run, and do what else it says. None: it says Wait, or somebody else asks.

        `task` is the one that will run it: if it does not, `_ended` sees it.
        """
        while True:
            with self._lock:
                if self._home is not home:
                    return None  # moved; the new home asks
                decision = self._decide()
                if isinstance(decision, Wait):
                    self._armed = decision.until
                    self._set_timer(home, decision.until)
                    return None
                if isinstance(decision, Done):
                    self._end()
                    return None
                if isinstance(decision, Run):
                    if task is not None:  # None: a task factory has made something else
                        self._tasks[task] = decision.batch
                    if self._is_async:
                        self._ask_next(home)
                    return decision.batch
            calls.interrupt(decision.batch)
            deliver(decision.settled, home)

    def _ask_next(self, home: Loop) -> None:
        """Let somebody else ask for what is due next, while this task runs its batch. Lock held."""
        due = self._core.due
        if due == -inf:
            self._armed = -inf
            self._wake(home)
        else:
            self._armed = due
            self._set_timer(home, due)

    def _set_timer(self, home: Loop, until: float) -> None:
        if self._timer is not None:
            if self._timer_at <= until < inf:
                return  # when it rings, the core is asked again: cheaper than a new timer for each item
            self._timer.cancel()
            self._timer = None
        if until < inf:
            self._timer_at = until
            seconds = min(max(until - self._clock(), 0.0), LONGEST_WAIT)
            try:
                self._timer = home.call_later(seconds, self._ring, context=Context())
            except MemoryError:
                self._look_again(home)

    def _look_again(self, home: Loop) -> None:
        """Ask in every turn of the loop until there is memory for a timer. Lock held."""
        self._armed = -inf
        try:
            home.call_soon(self._advance, context=Context())
        except MemoryError as error:
            self._collapse(error)  # nobody would ask, so all are told

    def _ring(self) -> None:
        if asyncio.get_running_loop() is self._home:  # else it was set before a move
            self._timer = None
            self._advance()

    # Running batches

    def _begin_task(self, home: Loop) -> None:
        """Make a task that asks the core and runs a batch. The lock may be held where there is no task factory."""
        work = self._work(home)
        try:
            task = Context().run(home.create_task, work, name=self._task_name)
        except BaseException:
            work.close()
            raise
        if task.done():  # an eager task factory has run it already
            self._tasks.pop(task, None)
        else:
            self._tasks.setdefault(task, None)
            task.add_done_callback(self._ended, context=Context())

    def _ended(self, task: asyncio.Task[None]) -> None:
        """See that a task which was cancelled before it began, or interrupted, leaves nothing undone."""
        batch = self._tasks.pop(task, None)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return
        if batch is not None:
            self._complete(batch, Failed(error), task.get_loop())
        self._on_home(task.get_loop(), self._advance)

    async def _work(self, home: Loop) -> None:
        batch = self._next_batch(home, asyncio.current_task())
        if batch is not None:
            await self._run(batch, home, None)

    def _start(self, batch: Batch[T], home: Loop) -> None:
        executor = self._options.executor
        function = self._function or self.process_batch
        try:
            if executor is None:
                invoke = partial(calls.invoke_here, self._mark, function, batch)
                with self._lock:
                    if not self._stopped.done():  # given up since it was decided
                        self._own_workers().run(partial(self._take, batch, invoke))
            else:
                running = calls.send(executor, self._mark, function, batch.items)
                running.add_done_callback(lambda done: self._take(batch, partial(calls.result_of, done)))
        except BaseException as error:  # noqa: BLE001 - whatever keeps it from running, it ends this batch only
            self._complete(batch, Failed(calls.without_this_frame(error)), home)

    def _take(self, batch: Batch[T], result_of: Callable[[], object]) -> None:
        """Take what a sync batch function returns. Runs in the thread that called it, most of the time."""
        try:
            result = result_of()
            if isawaitable(result):
                self._hand_over(batch, result)
                return
            verdict: Verdict[Any] = judge(result, len(batch.tickets))
        except BaseException as error:  # noqa: BLE001 - promise 6: whatever it is, it goes to the callers
            verdict = Failed(calls.without_this_frame(error))
        self._complete(batch, verdict, calls.running_loop())

    def _hand_over(self, batch: Batch[T], rest: Any) -> None:  # noqa: ANN401 - a coroutine, most of the time
        with self._lock:
            if self._stopped.done():
                getattr(rest, "close", bool)()  # nobody waits for it
                return
            self._leave_dead_home()
            if self._home is not None:
                self._rests[batch] = (self._home, rest)
            self._on_home(None, self._start_rest, batch)

    def _start_rest(self, batch: Batch[T]) -> None:
        with self._lock:
            _, rest = self._rests.pop(batch, (None, None))
        if rest is not None:  # else another loop has it
            self._start_task(batch, asyncio.get_running_loop(), rest)

    def _start_task(self, batch: Batch[T], home: Loop, rest: Awaitable[Any]) -> None:
        work = self._run(batch, home, rest)
        try:
            task = Context().run(home.create_task, work, name=self._task_name)
        except BaseException as error:  # noqa: BLE001 - out of a task factory: it ends this batch only
            work.close()
            self._complete(batch, Failed(calls.without_this_frame(error)), home)
            return
        if not task.done():  # an eager task factory may have run it already
            with self._lock:
                self._tasks[task] = batch
                if self._stopped.done():
                    task.cancel()  # given up since it was decided
            task.add_done_callback(self._ended, context=Context())

    async def _run(self, batch: Batch[T], home: Loop, rest: Awaitable[Any] | None) -> None:
        """Await the batch function, or the rest of it when a sync function has returned an awaitable."""
        verdict: Verdict[Any]
        serving = calls.enter(self._mark)
        batch.where = asyncio.current_task()
        try:
            work: Any = self.process_batch(batch.items) if rest is None else rest
            verdict = judge(await work, len(batch.tickets))
        except BaseException as error:
            if isinstance(error, GeneratorExit) and calls.running_loop() is not home:
                raise  # the batch did not raise it: the loop is gone, and this coroutine is collected
            verdict = Failed(calls.without_this_frame(error))
        serving.active = False
        self._complete(batch, verdict, home)
        task = asyncio.current_task()
        if task is not None and task in self._tasks:
            self._tasks[task] = None

    def _complete(self, batch: Batch[T], verdict: Verdict[Any], here: Loop | None) -> None:
        if self._finish(batch, verdict, here):
            with self._lock:
                if here is None and self._core.queued:
                    self._leave_dead_home()
                self._rearm(here)

    def _own_workers(self) -> calls.Workers:
        """Return the threads for sync functions. Lock held."""
        if self._workers is None:
            self._workers = calls.Workers(self._options.most_slots + STALLED_LIMIT, f"{self.name}-worker")
            self._finally(self._workers.stop_soon)
        return self._workers

    # Living and moving

    def _move(self, here: Loop | None) -> None:
        home = self._find_home(here)
        if home is not self._home:
            if self._home is not None and self._timer is not None:
                calls.tell(self._home, self._timer.cancel)
            self._home = home
            self._timer = None
            self._armed = inf
            if self._tasks or self._rests:
                calls.tell(home, self._look_after_strays)
            if not self._core.idle:
                self._armed = -inf
                calls.tell(home, self._advance)

    def _find_home(self, here: Loop | None) -> Loop:
        alive = self._home is not None and self._home.is_running()
        if here is not None and not alive:
            return here
        # Callers from two places, or from none: a home that none of them can close.
        if self._loop_thread is None:
            self._loop_thread = calls.LoopThread(f"{self.name}-loop")
            self._finally(self._loop_thread.stop_soon)
        return self._loop_thread.loop

    def _leave_dead_home(self) -> None:
        """In a thread of the batcher's own: move if the home has ended under those who still wait. Lock held."""
        if self._home is None or not self._home.is_running():
            self._move(None)

    def _look_after_strays(self) -> None:
        """See, at once and from time to time, whether batches on a loop that is home no more can still end.

        Those whose loop runs no more may never end, and their slots are needed.
        """
        home = asyncio.get_running_loop()
        settled: list[Any] = []
        try:
            with self._lock:
                for task, batch in list(self._tasks.items()):
                    if batch is not None and not task.get_loop().is_running():
                        self._tasks.pop(task, None)
                        msg = "the event loop that ran the batch has stopped: stop the batcher before its loop"
                        settled += self._core.finish(batch, Failed(BatchFunctionError(msg)), self._clock())
                for batch, (loop, rest) in list(self._rests.items()):
                    if not loop.is_running():
                        self._rests[batch] = (home, rest)
                        home.call_soon(self._start_rest, batch, context=Context())
                self._rearm(home)
                elsewhere = [task.get_loop() for task, batch in list(self._tasks.items()) if batch is not None]
                elsewhere += [loop for loop, _ in self._rests.values()]
                if any(loop is not home for loop in elsewhere):
                    home.call_later(STRAY_SECONDS, self._look_after_strays)
        finally:
            # Their callers are of a loop that is gone, or of one that may run again, or threads.
            deliver(settled, home)

    def _retire(self) -> None:
        here = calls.running_loop()
        home = self._home
        if home is not None and not home.is_closed() and self._timer is not None:
            self._on_home(here, self._timer.cancel)
        self._timer = None
        for task, batch in list(self._tasks.items()):
            loop = task.get_loop()
            if batch is not None and loop.is_running():
                calls.tell(loop, task.cancel)
        if self._workers is not None:
            self._workers.stop_soon()
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()

    def _threads(self, *, busy: bool) -> list[calls.OwnThread]:
        threads = []
        if self._loop_thread is not None:
            threads.append(self._loop_thread.thread)
        if self._workers is not None:
            threads += self._workers.threads - (set() if busy else self._workers.busy)
        return threads

    def _leftovers(self, here: Loop | None) -> set[asyncio.Task[None]]:
        return {task for task in list(self._tasks) if task.get_loop() is here}
