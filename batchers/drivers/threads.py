"""Threads that batchers start: daemon threads whose end can be awaited, and a pool for sync batch functions."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from batchers.errors import BatcherError

from .futures import SharedFuture

logger = logging.getLogger("batchers")

Work: TypeAlias = Callable[[], object]

_own = threading.local()


class StartError(BatcherError):
    """No thread or event loop can start, because the process has too many threads or descriptors."""

    def __init__(self, cause: object) -> None:
        """Store the message for a cause, or the message itself."""
        text = str(cause)
        advice = "; free threads or descriptors, and try again"
        super().__init__(text if text.endswith(advice) else f"the batcher cannot start: {text}{advice}")


def in_daemon_thread() -> bool:
    """Return True if any batcher has started the current thread."""
    return getattr(_own, "thread", False)


ATTEMPTS = 10
"""Attempts of a thread to do what has to be done at its end."""


def need_frames(count: int = 50) -> None:
    """Raise RecursionError if fewer frames are left: before the caller begins what it could not undo there."""
    if count:
        need_frames(count - 1)


class DaemonThread:
    """A daemon thread that a batcher starts.

    The future `ended` makes its end awaitable without another thread. `is_dead` is True after its end. It is an
    attribute, because an exception of a signal handler in `threading.Thread.is_alive` marks the thread as ended,
    in CPython 3.11 and 3.12 (bpo-45274), and such an exception in a method of a future may leave its lock held.
    """

    __slots__ = ("_at_end", "_thread", "ended", "is_dead")

    def __init__(
        self,
        function: Callable[[DaemonThread], object],
        name: str,
        *,
        at_end: Callable[[DaemonThread], object] | None = None,
        start: bool = True,
    ) -> None:
        """Initialise the thread, which calls `function` with this object; start it if `start` is true.

        At its end the thread calls `at_end`, again if an exception from outside interrupts that.

        Raises StartError if the thread cannot start.
        """
        self._at_end = at_end
        self.ended: SharedFuture[None] = SharedFuture()
        self.is_dead = False
        self._thread = threading.Thread(target=self._run, args=(function,), name=name, daemon=True)
        if start:
            self.start()

    def start(self) -> None:
        """Start the thread; raise StartError if it cannot start."""
        try:
            self._thread.start()
        except RecursionError:
            raise
        except RuntimeError as error:
            raise StartError(error) from error

    def _run(self, function: Callable[[DaemonThread], object]) -> None:
        try:
            try:
                _own.thread = True
                function(self)
            finally:
                del function
                self._end()
        finally:
            self._end()  # an exception from outside may have come before the first call

    def _end(self) -> None:
        """Call `at_end` and resolve `ended`; may be called again."""
        for attempt in range(ATTEMPTS):  # an exception from outside may come even here
            try:
                if self._at_end is not None and attempt < ATTEMPTS - 1:
                    self._at_end(self)
                self._at_end = None
                self.is_dead = True
                self.ended.resolve(None, -1, again=True)
            except BaseException:  # noqa: BLE001, S112 - the thread ends anyway
                continue
            else:
                break

    @property
    def is_current(self) -> bool:
        """True if the calling thread is this thread."""
        return self._thread is threading.current_thread()

    def join(self) -> None:
        """Wait for the short time that the interpreter needs to remove a thread whose function has ended.

        Return at once if the function is still running.
        """
        if self.ended.done():
            self._thread.join()


class _Worker:
    """The thread of a worker, its work, the lock on which it waits for work, and the thread that starts it."""

    __slots__ = ("ready", "starter", "thread", "work")

    def __init__(self, work: Work | None) -> None:
        self.ready = threading.Lock()
        if work is None:
            self.ready.acquire()
        self.work = work
        self.thread: DaemonThread | None = None
        self.starter = threading.get_ident()

    def wake(self) -> None:
        """Wake the worker; the caller holds the lock of the pool."""
        if self.ready.locked():
            self.ready.release()


class WorkerThreads:
    """Worker threads for sync batch functions.

    A new thread is started only when no worker is free, and when one was ended by an exception from outside. No
    lock is held while a thread starts, because a program may have replaced `Thread.start`.

    Until it has returned, work is `_unfinished`, and one worker has it, or it waits in the backlog. Exceptions
    from outside may strike at any line, and leave work that nobody has. A struck thread ends, and the last thing
    that it does is to place all such work anew.
    """

    __slots__ = (
        *("_backlog", "_free", "_lock", "_most", "_name", "_number", "_stopping", "_unfinished", "_workers"),
        "busy",
    )

    def __init__(self, most: int, name: str) -> None:
        """Initialise a pool of at most `most` workers, without starting any."""
        self._most = most
        self._name = name
        self._number = 0  # of threads, for their names
        self._lock = threading.RLock()
        self._workers: set[_Worker] = set()
        self._free: deque[_Worker] = deque()  # all that wait for work; one that was just given some may be left
        self._unfinished: dict[Work, None] = {}  # in the order in which it came
        self._backlog: deque[Work] = deque()  # for which no thread could start
        self._stopping = False
        self.busy: set[DaemonThread] = set()

    @property
    def threads(self) -> set[DaemonThread]:
        """The threads that have not ended."""
        found = {worker.thread for worker in list(self._workers)}
        return {thread for thread in found if thread is not None and not thread.is_dead}

    def allow(self, most: int) -> None:
        """Set the number of workers that there may be; those that are too many stay until `stop_soon`."""
        self._most = most

    def prepare(self) -> None:
        """Start the first worker, if there is none.

        Raises StartError if it cannot start.
        """
        if not self._workers:
            self._start(None)

    def run(self, work: Work) -> None:
        """Call `work` in a worker thread: once, but again if an exception from outside has ended the call.

        After an exception of this method, `work` is not called. Raises StartError if there is no worker and none
        can start.
        """
        try:
            with self._lock:
                self._unfinished[work] = None
                given = self._give(work)
            if not given:
                self._start(work)
        except BaseException:
            self._unfinished.pop(work, None)
            raise

    def stop_soon(self) -> None:
        """Let each worker end as soon as it is free; safe in a finalizer."""
        self._stopping = True
        with self._lock:
            while self._free:
                self._free[0].wake()
                self._free.popleft()

    def _give(self, work: Work) -> bool:
        """Let a free worker call `work`; return False if there is none. The caller holds the lock.

        The worker is woken first: one without work waits again, but one that sleeps would never look.
        """
        while self._free:
            worker = self._free[0]
            free = worker.work is None and not (worker.thread is not None and worker.thread.is_dead)
            if free:
                worker.wake()
                worker.work = work
            if self._free and self._free[0] is worker:  # else the garbage collector has called `stop_soon` here
                self._free.popleft()
            if free:
                return True
        return False

    def _start(self, work: Work | None) -> None:
        """Start a worker, which begins with `work`; if none can start, one of the others calls it later."""
        need_frames()
        worker = _Worker(work)
        try:
            with self._lock:
                self._workers = {each for each in self._workers if each.thread is None or not each.thread.is_dead}
                if work is not None and (len(self._workers) >= self._most or self._is_placed(work)):
                    self._call_later(work)
                    return
                self._workers.add(worker)
                self._number += 1
                name = f"{self._name}-{self._number}"
                if work is None:
                    self._free.append(worker)
            worker.thread = DaemonThread(
                lambda me: self._serve(me, worker), name, at_end=lambda me: self._leave(me, worker)
            )
        except BaseException as error:
            with self._lock:
                if worker.thread is None:  # otherwise it has begun, and may even have other work by now
                    self._remove(worker)
                if work is not None and self._workers and isinstance(error, StartError):
                    self._call_later(work)
                    return
            raise

    def _is_placed(self, work: Work) -> bool:
        """Return True if a worker has `work`, or will take it from the backlog; the caller holds the lock."""
        if self._workers and work in self._backlog:
            return True
        return any(worker.work is work for worker in self._workers)

    def _call_later(self, work: Work) -> None:
        """Give work to the next worker that is free, which may be one now; the caller holds the lock."""
        if not self._is_placed(work) and not self._give(work):
            self._backlog.append(work)

    def _remove(self, worker: _Worker) -> None:
        """Remove a worker that has ended or could not start; the caller holds the lock."""
        self._workers.discard(worker)
        if worker in self._free:
            self._free.remove(worker)

    def _serve(self, me: DaemonThread, worker: _Worker) -> None:
        with self._lock:
            if worker not in self._workers:
                return  # the thread that started this one was struck, and has placed the work elsewhere
            worker.thread = me
        try:
            while True:
                worker.ready.acquire()
                work = self._begin(me, worker)
                if work is not None:
                    work()
                if not self._end(me, worker, work):
                    return
                del work
        except BaseException:
            logger.exception("A worker thread was ended from outside, and is replaced")

    def _begin(self, me: DaemonThread, worker: _Worker) -> Work | None:
        """Return the work of a worker that was woken; None: there is none, or its giver got an exception."""
        with self._lock:
            if worker.work not in self._unfinished:
                worker.work = None
            if worker.work is not None:
                self.busy.add(me)
            return worker.work

    def _end(self, me: DaemonThread, worker: _Worker, work: Work | None) -> bool:
        """Make a worker free that has called its work, or give it more; return False if it has to end."""
        with self._lock:
            if work is not None:
                self._unfinished.pop(work, None)
            if worker.work is work:  # it has got work since then if it was woken without any
                worker.work = None
            self.busy.discard(me)
            self._take_from_backlog(worker)
            if worker.work is not None:
                worker.wake()
            elif self._stopping:
                return False
            elif worker not in self._free:
                self._free.append(worker)
            return True

    def _take_from_backlog(self, worker: _Worker) -> None:
        """Take the work that waits for the longest time; the caller holds the lock."""
        while self._backlog and worker.work is None:
            work = self._backlog[0]
            if work in self._unfinished and not any(each.work is work for each in self._workers):
                worker.work = work
            self._backlog.popleft()  # after it has a worker, so that it is not lost between the two

    def _leave(self, me: DaemonThread, worker: _Worker) -> None:
        """Remove a worker that has ended, and place the work that nobody has; may be called again."""
        self.busy.discard(me)
        with self._lock:
            self._remove(worker)
        while True:
            with self._lock:
                mine = threading.get_ident()  # workers that this thread was starting when it was struck
                self._workers = {each for each in self._workers if each.thread is not None or each.starter != mine}
                lost = next((work for work in self._unfinished if not self._is_placed(work)), None)
                if lost is None:
                    return
                given = self._give(lost)
            if not given:
                self._start_or_call(lost)

    def _start_or_call(self, work: Work) -> None:
        """Start a worker for `work`; if none can start, call it here."""
        try:
            self._start(work)
        except StartError:
            here = _Worker(work)
            with self._lock:
                self._workers.add(here)  # so that no other thread calls it
            work()
            with self._lock:
                self._unfinished.pop(work, None)
                self._workers.discard(here)
