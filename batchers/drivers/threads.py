"""Threads that batchers start: daemon threads whose end can be awaited, and a pool for sync batch functions."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from batchers.errors import BatcherError

from .futures import SharedFuture

logger = logging.getLogger("batchers")

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
    """The thread of a worker, the work that it was given, and the lock on which it waits for it."""

    __slots__ = ("ready", "thread", "work")

    def __init__(self) -> None:
        self.ready = threading.Lock()
        self.ready.acquire()
        self.work: Callable[[], object] | None = None
        self.thread: DaemonThread | None = None

    def wake(self) -> None:
        """Wake the worker; the caller holds the lock of the pool."""
        if self.ready.locked():
            self.ready.release()


class WorkerThreads:
    """Worker threads for sync batch functions.

    A new thread is started only when no worker is free, and when one was ended by an exception from outside. No
    lock is held while a thread starts, because a program may have replaced `Thread.start`.
    """

    __slots__ = ("_backlog", "_free", "_lock", "_most", "_name", "_number", "_stopping", "_workers", "busy")

    def __init__(self, most: int, name: str) -> None:
        """Initialise a pool of at most `most` workers, without starting any."""
        self._most = most
        self._name = name
        self._number = 0  # of threads, for their names
        self._lock = threading.RLock()
        self._workers: set[_Worker] = set()
        self._free: deque[_Worker] = deque()
        self._backlog: deque[Callable[[], object]] = deque()  # work for which no thread could start
        self._stopping = False
        self.busy: set[DaemonThread] = set()

    @property
    def threads(self) -> set[DaemonThread]:
        """The threads that have not ended."""
        found = {worker.thread for worker in list(self._workers)}
        return {thread for thread in found if thread is not None and not thread.is_dead}

    def prepare(self) -> None:
        """Start the first worker, if there is none.

        Raises StartError if it cannot start.
        """
        if not self._workers:
            self._start(None)

    def run(self, work: Callable[[], object]) -> None:
        """Call `work`, which must not raise, in a worker thread.

        Raises StartError if there is no worker and none can start.
        """
        with self._lock:
            given = self._give(work)
        if not given:
            self._start(work)

    def stop_soon(self) -> None:
        """Let each worker end as soon as it is free; safe in a finalizer."""
        self._stopping = True
        with self._lock:
            while self._free:
                self._free[0].wake()
                self._free.popleft()

    def _give(self, work: Callable[[], object]) -> bool:
        """Let a free worker call `work`; return False if there is none. The caller holds the lock.

        The worker leaves the list last: an exception from outside leaves none that is neither free nor busy.
        """
        while self._free:
            worker = self._free[0]
            dead = worker.thread is not None and worker.thread.is_dead
            if dead:
                self._workers.discard(worker)
            else:
                worker.work = work
                worker.wake()
            self._free.popleft()
            if not dead:
                return True
        return False

    def _start(self, work: Callable[[], object] | None) -> None:
        """Start a worker, which begins with `work`; if none can start, one of the others runs it later."""
        need_frames()
        worker = _Worker()
        worker.work = work
        with self._lock:
            self._workers = {other for other in self._workers if other.thread is None or not other.thread.is_dead}
            if work is not None and len(self._workers) >= self._most:
                self._run_later(work)
                return
            self._workers.add(worker)
            self._number += 1
            name = f"{self._name}-{self._number}"
            if work is None:
                self._free.append(worker)
            else:
                worker.wake()
        try:
            worker.thread = DaemonThread(
                lambda me: self._serve(me, worker), name, at_end=lambda me: self._leave(me, worker)
            )
        except BaseException as error:  # after an interrupt it may have started: then it adds itself
            with self._lock:
                self._workers.discard(worker)
                worker.work = None
                if work is None:
                    self._free.remove(worker)
                elif self._workers and isinstance(error, StartError):
                    self._run_later(work)
                    return
            raise

    def _run_later(self, work: Callable[[], object]) -> None:
        """Give work to the next worker that is free, which may be one now; the caller holds the lock."""
        if not self._give(work):
            self._backlog.append(work)

    def _serve(self, me: DaemonThread, worker: _Worker) -> None:
        worker.thread = me
        with self._lock:
            self._workers.add(worker)
        try:
            while True:
                worker.ready.acquire()
                work = worker.work
                if work is None:
                    return
                self.busy.add(me)
                work()
                with self._lock:
                    if worker.work is work:  # not given more by one that an exception from outside has struck
                        worker.work = None
                    del work
                    self.busy.discard(me)
                    if self._backlog and worker.work is None:
                        worker.work = self._backlog.popleft()
                    if worker.work is not None:
                        worker.wake()
                    elif self._stopping:
                        return
                    elif worker not in self._free:
                        self._free.append(worker)
        except BaseException:
            logger.exception("A worker thread was ended from outside, and is replaced")

    def _leave(self, me: DaemonThread, worker: _Worker) -> None:
        """Remove a worker that has ended, and pass on its work; may be called again."""
        self.busy.discard(me)
        with self._lock:
            self._workers.discard(worker)
            if worker in self._free:
                self._free.remove(worker)
        work = worker.work
        if work is not None:  # an exception from outside may have ended the thread before it could begin
            try:
                self.run(work)
            except StartError:
                work()
            worker.work = None
