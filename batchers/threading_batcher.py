"""`ThreadingBatcher`: worker threads and a Condition.

Theory of operation
===================

All workers are equal. A worker asks the core; when the answer is Run, it runs that batch itself, so a
lone call costs one switch of threads there and one back. At most one worker, the leader, waits for the
time (and the next event) that the core has named; the other idle ones are spares without an alarm.
Before a worker leaves the lock to run a batch, it makes sure that somebody watches if there is anything to
watch: more items and a free slot, or a deadline. If not, nobody is woken until it has finished: then it
asks again itself. So with one batch in flight and no deadlines there is one thread, and offers to a busy
batcher wake nobody.

Idle workers hold no reference to the batcher. Work in hand does: `_Crew.owner`, from the wake-up on,
then the worker's own frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from inspect import isawaitable
from math import inf
from typing import Any, ClassVar, TypeVar

from . import calls
from .decisions import Batch, Decision, Done, Expire, Run, Wait
from .delivery import deliver
from .errors import BatcherStoppedError
from .interface import Batcher
from .machinery import Loop
from .outcomes import Failed, Verdict, judge

T = TypeVar("T")
S = TypeVar("S")

LONGEST_WAIT = 86_400.0
"""Seconds after which a waiting leader looks again; a Condition takes no endless number."""


class _Crew:
    """What the workers of one batcher share, and may keep while nobody uses the batcher."""

    __slots__ = (
        *("lock", "lead", "spare", "has_leader", "spares", "ref", "owner"),
        *("threads", "away", "told", "loop_thread"),
    )

    def __init__(self, batcher: ThreadingBatcher[Any, Any]) -> None:
        self.lock = batcher._lock  # noqa: SLF001 - the crew is a part of its batcher
        self.lead = batcher._condition(self.lock)  # noqa: SLF001
        self.spare = batcher._condition(self.lock)  # noqa: SLF001
        self.has_leader = False
        self.spares = 0
        self.ref = weakref.ref(batcher)
        self.owner: ThreadingBatcher[Any, Any] | None = None
        self.threads: set[calls.OwnThread] = set()
        self.away: set[calls.OwnThread] = set()  # those that run a batch or deliver
        self.told: set[calls.OwnThread] = set()  # those that there were when all was told to end
        self.loop_thread: calls.LoopThread | None = None

    def rest(self, seconds: float | None) -> None:
        """Wait: as the leader, with an alarm, if there is none; else as a spare. Lock held.

        Where there is no memory for the lock that a wait needs, wait without: others come in meanwhile.
        """
        leads = not self.has_leader
        try:
            if leads:
                self.has_leader = True
                self.lead.wait(seconds)
            else:
                self.spares += 1
                self.spare.wait()
        except (MemoryError, RuntimeError):
            self.lock.release()
            time.sleep(calls.PAUSE)
            self.lock.acquire()
        finally:
            if leads:
                self.has_leader = False
            else:
                self.spares -= 1

    def dismiss(self, _: calls.OwnThread | None = None) -> None:
        """Let all workers look whether they are still needed."""
        with self.lock:
            self.lead.notify_all()
            self.spare.notify_all()
        if self.loop_thread is not None:
            self.loop_thread.stop_soon()

    def dismiss_elsewhere(self) -> None:
        """Do it in a thread of its own: the collector may run this in a worker that holds the lock."""
        if not self.threads and self.loop_thread is None:
            return
        with contextlib.suppress(RuntimeError):  # at the end of the interpreter no thread starts any more
            calls.OwnThread(self.dismiss, "batchers-end")

    def work(self, me: calls.OwnThread) -> None:
        """Do what a worker does, until nobody needs it any more."""
        while True:
            with self.lock:
                batcher, decision = self._next_decision()
                if batcher is None or isinstance(decision, Done):
                    self.threads.discard(me)
                    return
                self.away.add(me)
            if isinstance(decision, Run):
                batcher._run(decision.batch)  # noqa: SLF001 - a worker is a part of its batcher
            elif isinstance(decision, Expire):
                calls.interrupt(decision.batch)
                deliver(decision.settled, None)
            del batcher, decision
            with self.lock:
                self.away.discard(me)

    def _next_decision(self) -> tuple[ThreadingBatcher[Any, Any] | None, Decision[Any, Any] | None]:
        """Wait until there is something to do. Lock held. No batcher: nobody needs this worker any more."""
        while True:
            batcher = self.owner or self.ref()
            if batcher is None:
                return None, None
            decision = batcher._decide()  # noqa: SLF001 - as above
            if not isinstance(decision, Wait):
                if isinstance(decision, Done):
                    batcher._end()  # noqa: SLF001
                elif not self.has_leader:
                    batcher._armed = inf  # noqa: SLF001
                batcher._rearm(None)  # noqa: SLF001 - before this worker is away: does anything need a watch?
                return batcher, decision
            if self.has_leader:
                batcher._rearm(None)  # noqa: SLF001 - the leader's alarm may be too late by now
                seconds = None
            else:
                batcher._armed = decision.until  # noqa: SLF001
                seconds = min(decision.until - batcher._clock(), LONGEST_WAIT)  # noqa: SLF001
                if decision.until == inf:
                    seconds = None
            self.owner = None if batcher._core.idle else batcher  # noqa: SLF001
            del batcher
            self.rest(seconds)


class ThreadingBatcher(Batcher[T, S]):
    """A batcher made of threads and a Condition. `Batcher` says what it promises.

    A sync `process_batch` runs in the batcher's own worker threads (or in `executor`), an async one on an
    event loop in a thread of the batcher's own. The threads are daemons: when the interpreter exits, what
    was accepted is served for up to 5 s.
    """

    __slots__ = ("_crew",)

    _condition: ClassVar[type[threading.Condition]] = threading.Condition
    """Tests put a Condition of their own here."""

    def _settle_in(self) -> None:
        self._crew = _Crew(self)
        self._finally(self._crew.dismiss_elsewhere)

    def _wake(self, here: Loop | None) -> None:  # noqa: ARG002 - a worker is woken in the same way from everywhere
        crew = self._crew
        crew.owner = self
        if crew.has_leader:
            crew.lead.notify_all()  # there is but one; and an interrupted notify may have left a ghost
        elif crew.spares:
            crew.spare.notify()
        elif len(crew.threads) <= self._core.in_flight + self._core.stalled:  # else one comes back, and will ask
            try:
                if self._is_async:
                    self._loop_of_its_own()  # now, because at the end of a program no thread starts any more
                crew.threads.add(calls.OwnThread(crew.work, f"{self.name}-worker-{len(crew.threads) + 1}"))
            except (RuntimeError, OSError):
                if crew.threads:
                    self._armed = inf  # those that run will ask when they have finished
                    return
                crew.owner = None
                raise

    def _retire(self) -> None:
        crew = self._crew
        crew.told = set(crew.threads)
        crew.lead.notify_all()
        crew.spare.notify_all()
        if crew.loop_thread is not None:
            crew.loop_thread.stop_soon()

    def _threads(self, *, busy: bool) -> list[calls.OwnThread]:
        crew = self._crew
        with self._lock:
            threads = list((crew.threads | crew.told) - (set() if busy else crew.away))
            if crew.loop_thread is not None:
                threads.append(crew.loop_thread.thread)
        return threads

    def _run(self, batch: Batch[T]) -> None:
        """Run a batch in this thread and deliver its outcomes. Lock not held."""
        verdict: Verdict[Any]
        try:
            verdict = judge(self._evaluate(batch), len(batch.tickets))
        except BaseException as error:  # noqa: BLE001 - promise 6: whatever it is, it goes to the callers
            verdict = Failed(calls.without_this_frame(error))
        self._finish(batch, verdict, None)

    def _evaluate(self, batch: Batch[T]) -> object:
        function = self._function or self.process_batch
        if self._is_async:
            return self._await(batch, batch.items)
        executor = self._options.executor
        if executor is None:
            result = calls.invoke_here(self._mark, function, batch)
        else:
            result = calls.result_of(calls.send(executor, self._mark, function, batch.items))
        return self._await(batch, result) if isawaitable(result) else result

    def _await(self, batch: Batch[T], work: Any) -> object:  # noqa: ANN401 - items for an async function, or an awaitable
        """Run an async batch function, or what a sync one has left to await, on the batcher's own loop."""
        with self._lock:
            if self._stopped.done():
                getattr(work, "close", bool)()  # an awaitable that nobody waits for
                msg = "the batcher was stopped while the batch ran"
                raise BatcherStoppedError(msg)
            loop_thread = self._loop_of_its_own()
        loop = loop_thread.loop

        async def run() -> tuple[object, BaseException | None]:
            serving = calls.enter(self._mark)
            batch.where = asyncio.current_task()
            try:
                return await (self.process_batch(work) if self._is_async else work), None  # type: ignore[misc]
            except BaseException as error:
                if isinstance(error, GeneratorExit) and calls.running_loop() is not loop:
                    raise  # the loop is gone, and this coroutine is collected
                return None, error
            finally:
                serving.active = False

        result, error = calls.result_of(loop_thread.run(run()))
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # it holds this frame

    def _loop_of_its_own(self) -> calls.LoopThread:
        """Return the loop for async batch functions. Lock held."""
        if self._crew.loop_thread is None:
            self._crew.loop_thread = calls.LoopThread(f"{self.name}-loop")
        return self._crew.loop_thread
