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

A worker that an exception from outside ends fails its batch, and plans a wake-up, which starts another worker. A
wake-up finds out, too, if a thread has ended without any chance to do so.

The workers refer to the driver. The driver refers to its batcher weakly while no work is left. When nothing refers
to the batcher any more, the workers are woken and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import weakref
from inspect import isawaitable
from math import inf
from typing import Any, ClassVar, TypeVar

from batchers.core.decisions import Batch, Done, Expire, Run, Wait
from batchers.core.outcomes import Failed, Verdict, judge
from batchers.errors import BatcherStoppedError, BatchFunctionError

from . import report, threads
from .driver import Driver
from .invocation import (
    cancel_task,
    ended_by,
    enter_scope,
    invoke_here,
    result_of,
    without_own_frames,
)
from .loops import LONGEST_WAIT, RETRY_SECONDS, Loop, LoopThread, running_loop

T = TypeVar("T")
S = TypeVar("S")


class ThreadingDriver(Driver[T, S]):
    """Driver whose worker threads ask the core, run batches and deliver outcomes."""

    __slots__ = (
        *("_lead", "_follow", "_leader", "_followers"),
        *("_workers", "_busy", "_dying", "_retired", "_number", "_loop_thread"),
    )

    condition: ClassVar[type[threading.Condition]] = threading.Condition
    """Class of the Conditions. Subclasses in tests replace it."""

    def _set_up(self) -> None:
        self._lead = self.condition(self.lock)
        self._follow = self.condition(self.lock)
        self._leader: threads.DaemonThread | None = None
        self._followers: set[threads.DaemonThread] = set()
        self._workers: set[threads.DaemonThread] = set()
        # The workers that run a batch, or deliver outcomes (None).
        self._busy: dict[threads.DaemonThread, Batch[T] | None] = {}
        self._dying: set[threads.DaemonThread] = set()  # ended from outside, and not buried yet
        self._retired: set[threads.DaemonThread] = set()  # all workers of the time at which the driver ended
        self._number = 0  # of workers that were started, for their names
        self._loop_thread: LoopThread | None = None
        self._finally(self._batcher_is_gone)

    # Waiting

    def _settle(self, here: Loop | None) -> None:  # noqa: ARG002 - the same for every loop
        if self.is_async and (self._loop_thread is None or not self._loop_thread.is_running):
            self._start_loop()  # now, because no thread can start during the exit of the interpreter

    def _start_threads(self) -> None:
        if not self._workers:
            self._start_worker()

    def _wake(self, here: Loop | None) -> bool:  # noqa: ARG002 - a worker is woken in the same way from every loop
        with self.lock:
            if self._notify():
                return True
            self._bury_the_dead()
            if self._followers:
                self._follow.notify()
                return True
            if len(self._workers) > self.core.in_flight + self.core.stalled:
                return True  # a free worker will ask
        try:
            return self._start_worker()
        except threads.StartError:
            with self.lock:
                if not self._workers:
                    raise
                self._next_wakeup = inf  # the existing workers ask after their batches
            return True

    def _notify(self) -> bool:
        leader = self._leader
        if leader is None or leader.is_dead:
            return False
        self._lead.notify_all()  # at most one waits, but an interrupted notify may have left an old entry
        return True

    def _start_worker(self) -> bool:
        """Start a worker; return False if another thread starts something now."""
        with (start := threading.Lock()):
            if mine := self._may_start(start):
                self._number += 1
                name = f"{self.name}-worker-{self._number}"
                worker = threads.DaemonThread(self._work, name, at_end=self._at_end, start=False)
                try:
                    with self.lock:
                        self._workers.add(worker)
                    worker.start()
                except BaseException:  # after an interrupt it may have started: then it adds itself
                    with self.lock:
                        self._workers.discard(worker)
                    raise
        return mine

    def _retire(self) -> None:
        with self.lock:
            self._retired |= self._workers
            self._lead.notify_all()
            self._follow.notify_all()
        if self._loop_thread is not None:
            self._loop_thread.stop_soon()
        self._retire_pool()

    def _batcher_is_gone(self) -> None:
        """Wake the workers from a new thread so that they end.

        The garbage collector may call this method in a thread that holds the lock.
        """
        if self._workers or self._loop_thread is not None:
            with contextlib.suppress(threads.StartError):  # no thread can start during the exit of the interpreter
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
            found = list((self._workers | self._retired) - (set() if busy else self._busy.keys()))
            if self._loop_thread is not None:
                found.append(self._loop_thread.thread)
        if self.pool is not None:
            found += self.pool.threads
        return [thread for thread in found if not thread.is_dead]

    def _work(self, me: threads.DaemonThread) -> None:
        """Run batches and deliver outcomes until the worker is not needed any more."""
        try:
            with self.lock:
                self._workers.add(me)
            while self._serve(me):
                pass
        except BaseException as error:  # noqa: BLE001 - from another thread, or from a lack of memory
            self._bury(me, error)

    def _serve(self, me: threads.DaemonThread) -> bool:
        """Wait for a decision that requires work, and do the work; return False if the worker is not needed."""
        with self.lock:
            self._busy.pop(me, None)
            decision = self._next_decision(me)
        if self._performed != self._planned:
            self._perform(None)
        if decision is None:
            return False
        if isinstance(decision, Run):
            self._run(decision.batch)
        else:
            report.interrupt_batch(decision.batch)
            self._deliver(decision.settled, None)
        del decision  # it refers to the items, and the frames of an exception to this one, by `f_back`
        return True

    def _next_decision(self, me: threads.DaemonThread) -> Run[T] | Expire[T, S] | None:
        """Wait for a decision that requires work; return None if the worker is not needed any more.

        The caller holds the lock.
        """
        while True:
            if self._kept is None and self._ref() is None:
                self._workers.discard(me)
                return None
            decision = self._decide()
            if isinstance(decision, Done):
                self._retired.add(me)
                self._workers.discard(me)
                self._planned += 1
                return None
            if not isinstance(decision, Wait):
                if isinstance(decision, Run):
                    self._busy[me] = decision.batch
                    decision.batch.begun = True  # from here on `_bury` fails it
                else:
                    self._busy[me] = None
                if self._leader is None:
                    self._next_wakeup = inf
                self._plan_wakeup()  # while this worker is busy, another one may have to watch
                return decision
            seconds = None
            if self._leader is not None:
                self._plan_wakeup()  # the timeout of the leader may be too late now
            else:
                self._next_wakeup = decision.until
                if decision.until < inf:
                    seconds = min(decision.until - self.clock(), LONGEST_WAIT)
            if not self._leave_lock():  # a thread that starts another one should act soon
                self._wait(me, seconds if self._performed == self._planned else min(seconds or inf, RETRY_SECONDS))

    def _leave_lock(self) -> bool:
        """Release the lock, if there is something to do without it, and return True if there was.

        This drops the strong reference to the batcher if no work is left: its collection may run finalizers of the
        user, which need the lock. A thread that starts another one acts itself. The caller holds the lock.
        """
        kept = self._stop_keeping()
        starting = self._is_starting()
        if kept is None and (starting or self._performed == self._planned):
            return False
        self.lock.release()
        try:
            del kept
            self._perform(None)
            if self._performed != self._planned and not starting:
                time.sleep(RETRY_SECONDS)
        finally:
            self.lock.acquire()
        return True

    def _wait(self, me: threads.DaemonThread, seconds: float | None) -> None:
        """Wait as the leader for up to `seconds` (None: no limit), or without a limit as a follower.

        The worker leads if nobody does. The caller holds the lock. If memory is too short for the lock that a wait
        needs, release the driver's lock and sleep for RETRY_SECONDS instead.
        """
        leads = self._leader is None
        try:
            if leads:
                self._leader = me
                self._lead.wait(seconds)
            else:
                self._followers.add(me)
                self._follow.wait()
        except (MemoryError, RuntimeError):
            self.lock.release()
            time.sleep(RETRY_SECONDS)
            self.lock.acquire()
        finally:
            if leads:
                self._leader = None
            else:
                self._followers.discard(me)

    # The end of a worker

    def _at_end(self, me: threads.DaemonThread) -> None:
        """Do what `_bury` could not finish; do nothing for a worker that was not needed any more."""
        if me in self._workers or me in self._dying:
            self._bury(me, None)

    def _bury(self, dead: threads.DaemonThread, error: BaseException | None) -> None:
        """Fail the batch of a worker that has ended, log the cause, and have another worker started if needed."""
        self._dying.add(dead)
        with self.lock:
            batch = self._remove(dead)
            self._catch_up()
        if batch is not None:
            self._complete(batch, Failed(ended_by(error)), None)
        self._perform(None)
        self._dying.discard(dead)
        report.log(logging.ERROR, "A worker of %s was ended from outside, and is replaced", error, self.name)

    def _bury_the_dead(self) -> None:
        """Plan what `_bury` does for workers that could not do it themselves; the caller holds the lock."""
        for worker in list(self._workers):
            if worker.is_dead:
                batch = self._remove(worker)
                if batch is not None:
                    settled = self.core.finish(batch, Failed(ended_by(None)), self.clock())
                    self._undelivered[id(settled)] = settled, None
                    self._planned += 1

    def _remove(self, dead: threads.DaemonThread) -> Batch[T] | None:
        """Remove a worker that has ended, and return the batch that it ran; the caller holds the lock."""
        self._workers.discard(dead)
        self._followers.discard(dead)
        if self._leader is dead:
            self._leader = None
        self.core.inconsistent = True  # it may have had a decision that it did not execute
        return self._busy.pop(dead, None)

    # Running batches

    def _run(self, batch: Batch[T]) -> None:
        """Run a batch in this thread, and deliver its outcomes; the caller does not hold the lock."""
        verdict: Verdict[Any]
        try:
            verdict = judge(self._evaluate(batch), len(batch.requests))
        except BaseException as error:  # noqa: BLE001 - promise 6: every exception goes to the callers
            verdict = Failed(without_own_frames(error))
        self._finish(batch, verdict, None)
        del batch, verdict  # the frames of an exception refer to this one, by `f_back`

    def _evaluate(self, batch: Batch[T]) -> object:
        if self.is_async:
            return self._await(batch, batch.items)
        if self.pool is None:
            result = invoke_here(self.batcher_id, self.process_batch, batch)
        else:
            result = self.pool.send(self.batcher_id, self.process_batch, batch.items)()
        if type(result) is not list and isawaitable(result):  # most results are lists, and isawaitable is slow
            return self._await(batch, result)
        return result

    def _await(self, batch: Batch[T], work: Any) -> object:  # noqa: ANN401 - items for an async function, or an awaitable
        """Run an async batch function, or the awaitable that a sync one returned, on the batcher's loop thread.

        Raises BatcherStoppedError if the driver has ended since the batch started.
        """
        if self.core.done:
            getattr(work, "close", bool)()  # an awaitable that will not be awaited
            msg = "the batcher was stopped while the batch ran"
            raise BatcherStoppedError(msg)
        loop_thread = self._own_loop()
        try:
            result, error = result_of(loop_thread.run(self._awaited(batch, work, loop_thread.loop)))
        except asyncio.CancelledError as cancelled:
            if loop_thread.is_running or self.core.done:
                raise
            msg = "the event loop of the batcher ended while it ran the batch; the next batch gets another one"
            raise BatchFunctionError(msg) from cancelled
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # breaks a cycle: the traceback of the error refers to this frame

    async def _awaited(self, batch: Batch[T], work: Any, loop: Loop) -> tuple[object, BaseException | None]:  # noqa: ANN401 - as for `_await`
        """Return the result of an async function or awaitable, or its error; runs on the loop thread.

        This is no function inside of another: its frame would refer to the batch after the end, by its closure.
        """
        scope = enter_scope(self.batcher_id)
        batch.where = asyncio.current_task()
        if batch.interrupted:
            cancel_task(batch)
        try:
            return await (self.process_batch(work) if self.is_async else work), None
        except BaseException as error:
            if isinstance(error, GeneratorExit) and running_loop() is not loop:
                raise  # the loop has ended, and the garbage collector closes this coroutine
            return None, error
        finally:
            scope.active = False
            del batch, work  # the frames of an exception refer to this one, by `f_back`

    def _own_loop(self) -> LoopThread:
        """Return the thread with the loop for async batch functions; start it if needed.

        Only workers call this method. Raises StartError if it cannot start.
        """
        while (found := self._loop_thread) is None or not (found.is_running or self.core.done):
            if not self._start_loop():
                time.sleep(RETRY_SECONDS)  # another thread starts something: a caller, or another worker
        return found

    def _start_loop(self) -> bool:
        """Start the thread with the loop; return False if another thread starts something now."""
        with (start := threading.Lock()):
            mine = self._may_start(start)
            if mine and (self._loop_thread is None or not self._loop_thread.is_running):
                self._loop_thread = LoopThread(f"{self.name}-loop", None, weakref.WeakMethod(self._after_loop))
                if self.core.done:
                    self._loop_thread.stop_soon()
        return mine
