"""`ThreadingDriver`: worker threads and Conditions.

Theory of operation
===================

The workers are leader and followers. A worker asks the core; if the answer is Run, it runs that batch itself,
so a lone call costs one switch of threads there and one back. At most one idle worker, the leader, waits for
the time that the core has named, or for an event; the other idle ones, the followers, wait without a timer.
Before a worker releases the lock to run a batch, it wakes another one if there is something to watch: more
items and a free slot, or a deadline. Otherwise nobody is woken until the worker has finished; then it asks
again itself. So with one batch in flight and no deadlines there is one thread, and calls to a busy batcher
wake nobody.

Workers refer to the driver, and the driver refers to its batcher weakly while nothing is to be done. When
nobody refers to the batcher any more, the workers are woken, and end.
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
    """Worker threads that ask the core, run batches and deliver."""

    __slots__ = (
        *("_lead", "_follow", "_has_leader", "_followers"),
        *("_workers", "_busy", "_retired", "_loop_thread"),
    )

    condition: ClassVar[type[threading.Condition]] = threading.Condition
    """Subclasses of tests have Conditions of their own."""

    def _set_up(self) -> None:
        self._lead = self.condition(self.lock)
        self._follow = self.condition(self.lock)
        self._has_leader = False
        self._followers = 0
        self._workers: set[threads.DaemonThread] = set()
        self._busy: set[threads.DaemonThread] = set()  # those that run a batch or deliver
        self._retired: set[threads.DaemonThread] = set()  # those that there were when all were to end
        self._loop_thread: LoopThread | None = None
        self._finally(self._batcher_is_gone)

    # Waiting

    def _wake(self, here: Loop | None) -> None:  # noqa: ARG002 - a worker is woken in the same way from everywhere
        if self._has_leader:
            self._lead.notify_all()  # there is but one; an interrupted notify may have left a waiter that is gone
        elif self._followers:
            self._follow.notify()
        elif len(self._workers) <= self.core.in_flight + self.core.stalled:  # else one comes back, and will ask
            try:
                if self.is_async:
                    self._own_loop()  # now, because at the end of a program no thread starts any more
                self._workers.add(threads.DaemonThread(self._work, f"{self.name}-worker-{len(self._workers) + 1}"))
            except (RuntimeError, OSError):
                if not self._workers:
                    raise
                self._next_wakeup = inf  # those that run will ask when they have finished

    def _retire(self) -> None:
        self._retired = set(self._workers)
        self._lead.notify_all()
        self._follow.notify_all()
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()

    def _batcher_is_gone(self) -> None:
        """Let the workers end, by a thread of its own: the collector may run this in one that holds the lock."""
        if self._workers or self._loop_thread is not None:
            with contextlib.suppress(RuntimeError):  # at the end of the interpreter no thread starts any more
                threads.DaemonThread(self._wake_all, f"{self.name}-end")

    def _wake_all(self, _: threads.DaemonThread) -> None:
        with self.lock:
            self._lead.notify_all()
            self._follow.notify_all()
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()

    def own_threads(self, *, busy: bool) -> list[threads.DaemonThread]:
        """Return the workers, and the thread of the loop."""
        with self.lock:
            found = list((self._workers | self._retired) - (set() if busy else self._busy))
            if self._loop_thread is not None:
                found.append(self._loop_thread.thread)
        return found

    def _work(self, me: threads.DaemonThread) -> None:
        """Do what a worker does, until nobody needs it any more."""
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
            del decision  # it holds the items
            with self.lock:
                self._busy.discard(me)

    def _next_decision(self) -> Run[T] | Expire[T, S] | None:
        """Wait until there is something to do. Lock held. None: nobody needs this worker any more."""
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
                self._update_wakeup(None)  # before this worker is busy: does anything need a watch?
                return decision
            seconds = None
            if self._has_leader:
                self._update_wakeup(None)  # the leader may wake too late by now
            else:
                self._next_wakeup = decision.until
                if decision.until < inf:
                    seconds = min(decision.until - self.clock(), LONGEST_WAIT)
            if not self._drop_batcher():
                self._wait(seconds)

    def _drop_batcher(self) -> bool:
        """Release the lock to drop the batcher, if nothing is left to do; return whether that was so. Lock held.

        What is collected with a batcher is the user's, and must not meet the lock.
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
        """Wait: as the leader, for so many seconds, if there is none; else as a follower. Lock held.

        Where there is no memory for the lock that a wait needs, wait without: others come in meanwhile.
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
        """Run a batch in this thread and deliver its outcomes. Lock not held."""
        verdict: Verdict[Any]
        try:
            verdict = judge(self._evaluate(batch), len(batch.requests))
        except BaseException as error:  # noqa: BLE001 - promise 6: whatever it is, it goes to the callers
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
        """Run an async batch function, or what a sync one has left to await, on the batcher's own loop."""
        with self.lock:
            if self.stopped.done():
                getattr(work, "close", bool)()  # an awaitable that nobody waits for
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
                    raise  # the loop is gone, and this coroutine is collected
                return None, error
            finally:
                scope.active = False

        result, error = result_of(loop_thread.run(run()))
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # it holds this frame

    def _own_loop(self) -> LoopThread:
        """Return the loop for async batch functions. Lock held."""
        if self._loop_thread is None:
            self._loop_thread = LoopThread(f"{self.name}-loop")
        return self._loop_thread
