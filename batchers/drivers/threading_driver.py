"""`ThreadingDriver`: worker threads and Conditions.

Theory of operation
===================

The workers use the leader/followers pattern. A worker asks the core for a decision. If the decision is Run, the
worker runs that batch itself. Therefore a single call costs two thread switches: one to the worker and one back.

At most one idle worker is the leader. The leader waits for an event, or for the time that the core has returned.
The other idle workers are followers. Followers wait without a timeout.

Before a worker releases the lock to run a batch, it wakes another worker if one is needed for more items with a
free slot, or for a deadline. Otherwise, no worker is woken until this worker has finished its batch and asks the
core again. Therefore, with one batch in flight and no deadlines, there is one thread, and calls to a busy batcher
wake no thread.

The workers refer to the driver. The driver refers to its batcher weakly while no work is left. When nothing refers
to the batcher any more, the workers are woken and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from inspect import isawaitable
from math import inf
from typing import Any, ClassVar, TypeVar

from batchers.core.decisions import Batch, Decision, Done, Expire, Run, Wait
from batchers.core.outcomes import Failed, Verdict, judge
from batchers.errors import BatcherStoppedError

from . import threads
from .delivery import deliver
from .driver import Driver
from .invocation import enter_scope, interrupt_batch, invoke_here, result_of, send, without_this_frame
from .loops import LONGEST_WAIT, RETRY_SECONDS, Loop, LoopThread, running_loop

T = TypeVar("T")
S = TypeVar("S")


class ThreadingDriver(Driver[T, S]):
    """Driver whose worker threads ask the core, run batches and deliver outcomes."""

    __slots__ = (
        *("_lead", "_follow", "_has_leader", "_followers"),
        *("_workers", "_busy", "_retired", "_loop_thread"),
    )

    condition: ClassVar[type[threading.Condition]] = threading.Condition
    """Class of the Conditions. Subclasses in tests replace it."""

    def _set_up(self) -> None:
        self._lead = self.condition(self.lock)
        self._follow = self.condition(self.lock)
        self._has_leader = False
        self._followers = 0
        self._workers: set[threads.DaemonThread] = set()
        self._busy: set[threads.DaemonThread] = set()  # workers that run a batch or deliver outcomes
        self._retired: set[threads.DaemonThread] = set()  # all workers of the time at which the driver ended
        self._loop_thread: LoopThread | None = None
        self._finally(self._batcher_is_gone)

    # Waiting

    def _wake(self, here: Loop | None) -> None:  # noqa: ARG002 - a worker is woken in the same way from every loop
        if self._has_leader:
            self._lead.notify_all()  # at most one waits, but an interrupted notify may have left an old entry
        elif self._followers:
            self._follow.notify()
        elif len(self._workers) <= self.core.in_flight + self.core.stalled:  # otherwise a free worker will ask
            try:
                if self.is_async:
                    self._own_loop()  # now, because no thread can start during the exit of the interpreter
                self._workers.add(threads.DaemonThread(self._work, f"{self.name}-worker-{len(self._workers) + 1}"))
            except (RuntimeError, OSError):
                if not self._workers:
                    raise
                self._next_wakeup = inf  # the existing workers ask after their batches

    def _retire(self) -> None:
        self._retired = set(self._workers)
        self._lead.notify_all()
        self._follow.notify_all()
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()

    def _batcher_is_gone(self) -> None:
        """Wake the workers from a new thread so that they end.

        The garbage collector may call this method in a thread that holds the lock.
        """
        if self._workers or self._loop_thread is not None:
            with contextlib.suppress(RuntimeError):  # no thread can start during the exit of the interpreter
                threads.DaemonThread(self._wake_all, f"{self.name}-end")

    def _wake_all(self, _: threads.DaemonThread) -> None:
        with self.lock:
            self._lead.notify_all()
            self._follow.notify_all()
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()

    def own_threads(self, *, busy: bool) -> list[threads.DaemonThread]:
        """Return the workers, including those of the time of the end, and the thread of the loop.

        If `busy` is false, leave out the workers that run a batch or deliver outcomes.
        """
        with self.lock:
            found = list((self._workers | self._retired) - (set() if busy else self._busy))
            if self._loop_thread is not None:
                found.append(self._loop_thread.thread)
        return found

    def _work(self, me: threads.DaemonThread) -> None:
        """Run batches and deliver outcomes until the worker is not needed any more."""
        while True:
            with self.lock:
                decision = self._next_decision()
                if decision is None:
                    self._workers.discard(me)
                    return
                self._busy.add(me)
            if isinstance(decision, Run):
                self._run(decision.batch)
            else:
                interrupt_batch(decision.batch)
                deliver(decision.settled, None)
            del decision  # it refers to the items
            with self.lock:
                self._busy.discard(me)

    def _next_decision(self) -> Run[T] | Expire[T, S] | None:
        """Wait for a decision that requires work; return None if the worker is not needed any more.

        The caller holds the lock.
        """
        while True:
            if self._kept is None and self._ref() is None:
                return None
            decision: Decision[T, S] = self._decide()
            if isinstance(decision, Done):
                self._end()
                return None
            if not isinstance(decision, Wait):
                if not self._has_leader:
                    self._next_wakeup = inf
                self._update_wakeup(None)  # while this worker is busy, another one may have to watch
                return decision
            seconds = None
            if self._has_leader:
                self._update_wakeup(None)  # the timeout of the leader may be too late now
            else:
                self._next_wakeup = decision.until
                if decision.until < inf:
                    seconds = min(decision.until - self.clock(), LONGEST_WAIT)
            if not self._drop_batcher():
                self._wait(seconds)

    def _drop_batcher(self) -> bool:
        """Drop the strong reference to the batcher if no work is left; return True if it was dropped.

        The caller holds the lock. The lock is released during the drop, because the collection of the batcher may
        collect objects of the user, whose finalizers must not run with the lock held.
        """
        kept = self._stop_keeping()
        if kept is None:
            return False
        self.lock.release()
        try:
            del kept
        finally:
            self.lock.acquire()
        return True

    def _wait(self, seconds: float | None) -> None:
        """Wait as the leader for up to `seconds` (None: no limit), or without a limit as a follower.

        The worker becomes the leader if there is none. The caller holds the lock. If memory is too short for the
        lock that a wait needs, sleep for RETRY_SECONDS instead, with the driver's lock released for other threads.
        """
        leads = not self._has_leader
        try:
            if leads:
                self._has_leader = True
                self._lead.wait(seconds)
            else:
                self._followers += 1
                self._follow.wait()
        except (MemoryError, RuntimeError):
            self.lock.release()
            time.sleep(RETRY_SECONDS)
            self.lock.acquire()
        finally:
            if leads:
                self._has_leader = False
            else:
                self._followers -= 1

    # Running batches

    def _run(self, batch: Batch[T]) -> None:
        """Run a batch in this thread, and deliver its outcomes; the caller does not hold the lock."""
        verdict: Verdict[Any]
        try:
            verdict = judge(self._evaluate(batch), len(batch.requests))
        except BaseException as error:  # noqa: BLE001 - promise 6: every exception goes to the callers
            verdict = Failed(without_this_frame(error))
        self._finish(batch, verdict, None)

    def _evaluate(self, batch: Batch[T]) -> object:
        if self.is_async:
            return self._await(batch, batch.items)
        executor = self.options.executor
        if executor is None:
            result = invoke_here(self.batcher_id, self.process_batch, batch)
        else:
            result = result_of(send(executor, self.batcher_id, self.process_batch, batch.items))
        return self._await(batch, result) if isawaitable(result) else result

    def _await(self, batch: Batch[T], work: Any) -> object:  # noqa: ANN401 - items for an async function, or an awaitable
        """Run an async batch function, or the awaitable that a sync one returned, on the batcher's loop thread.

        Raises BatcherStoppedError if the driver has ended since the batch started.
        """
        with self.lock:
            if self.stopped.done():
                getattr(work, "close", bool)()  # an awaitable that will not be awaited
                msg = "the batcher was stopped while the batch ran"
                raise BatcherStoppedError(msg)
            loop_thread = self._own_loop()
        loop = loop_thread.loop

        async def run() -> tuple[object, BaseException | None]:
            scope = enter_scope(self.batcher_id)
            batch.where = asyncio.current_task()
            try:
                return await (self.process_batch(work) if self.is_async else work), None
            except BaseException as error:
                if isinstance(error, GeneratorExit) and running_loop() is not loop:
                    raise  # the loop has ended, and the garbage collector closes this coroutine
                return None, error
            finally:
                scope.active = False

        result, error = result_of(loop_thread.run(run()))
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # breaks a cycle: the traceback of the error refers to this frame

    def _own_loop(self) -> LoopThread:
        """Return the thread with the loop for async batch functions; start it if needed.

        The caller holds the lock. Raises RuntimeError or OSError if it cannot start.
        """
        if self._loop_thread is None:
            self._loop_thread = LoopThread(f"{self.name}-loop")
        return self._loop_thread
