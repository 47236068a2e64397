"""What broke in real programs: log handlers, recursion, exceptions from outside, leaving programs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import gc
import inspect
import linecache
import logging
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any, Self

import pytest

import batchers
from batchers import Batcher, BatcherError, BatchFunctionError, ReentrantCallError, create_batcher
from batchers.drivers.asyncio_driver import AsyncioDriver
from batchers.drivers.threading_driver import ThreadingDriver
from tests.conftest import Make
from tests.support.children import PATIENCE, run
from tests.support.gate import Flavour, Gate, outcomes, until
from tests.support.inside import driver_of

FOLDER = batchers.__path__[0]

STRIKES = 10_000
"""Signals that strike each kind of batcher, so 20 000 for each backend."""


def function(flavour: Flavour) -> Callable[[list[Any]], Any]:
    """Return a batch function that is right."""

    def sync(items: list[Any]) -> list[Any]:
        return list(items)

    async def soon(items: list[Any]) -> list[Any]:
        return list(items)

    return sync if flavour == "sync" else soon


@pytest.fixture
def batcher(backend: str, flavour: Flavour) -> Iterator[Batcher[Any, Any]]:
    """Give one of each kind."""
    with create_batcher(backend, function(flavour), max_queue_size=-1) as made:
        yield made


class Shipper(logging.Handler):
    """A log handler that ships lines through a batcher, and asks for its counters."""

    def __init__(self, backend: str, flavour: Flavour) -> None:
        super().__init__(logging.DEBUG)
        self.batcher = create_batcher(backend, function(flavour), max_queue_size=-1)
        self.futures: list[concurrent.futures.Future[Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.batcher.stats()
        self.futures.append(self.batcher.submit(record.getMessage()))


# What comes back to the batcher in a thread that is inside of it


def test_a_log_handler_that_ships_lines(backend: str, flavour: Flavour) -> None:
    """Also those that the library, and asyncio, write while they start."""
    shipper = Shipper(backend, flavour)
    root = logging.getLogger()
    level = root.level
    root.addHandler(shipper)
    root.setLevel(logging.DEBUG)
    try:
        assert shipper.batcher.submit("x").result(PATIENCE) == "x"
        logging.getLogger("program").info("a line")
    finally:
        root.removeHandler(shipper)
        root.setLevel(level)
    assert [future.result(PATIENCE) for future in shipper.futures][-1] == "a line"
    shipper.batcher.close()


def test_a_log_handler_that_waits_while_the_batcher_starts(backend: str) -> None:
    """It would wait for itself: it gets an error instead, which logging shows."""
    errors: list[BaseException] = []

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                made.call(record.getMessage())
            except BatcherError as error:
                errors.append(error)

    made = create_batcher(backend, function("async"))
    handler = Waiting(logging.DEBUG)
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        assert made.call("x") == "x"
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert errors
    assert "use submit()" in str(errors[0])
    made.close()


def test_finalizers_that_log_through_the_batcher(batcher: Batcher[Any, Any]) -> None:
    """With a collector that runs all the time, in every thread and at every place."""
    futures: list[concurrent.futures.Future[Any]] = []
    refused: list[BatcherError] = []

    class Finalized:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            try:
                futures.append(batcher.submit("gone"))
            except BatcherError as error:
                refused.append(error)

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(500):
            Finalized()
            assert batcher.call(number) == number
    finally:
        gc.set_threshold(*thresholds)
    while len(futures) + len(refused) < 500:
        gc.collect()  # does nothing while another thread collects
    assert {future.result(PATIENCE) for future in futures} == {"gone"}
    for error in refused:  # in a call, or in the batch function
        assert isinstance(error, ReentrantCallError) or "from inside of the batcher" in str(error)


class Tracer:
    """A trace function that does something at every line of the library that runs with the lock held.

    Not at the exit of a `with` and at a `try`, where CPython runs no signal handler.
    """

    def __init__(
        self, made: Batcher[Any, Any], deed: Callable[[], object], at: int | None = None, *, anywhere: bool = False
    ) -> None:
        self._inside: Callable[[], bool] = (lambda: True) if anywhere else driver_of(made).is_inside
        self._deed = deed
        self._at = at
        self.lines = 0
        self._busy = False

    def __enter__(self) -> Self:
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _is_out_of_reach(self, frame: FrameType) -> bool:
        """Return True at the exit of a `with`, and at a `try`: no signal handler runs there."""
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
        return line.startswith(("with ", "try:"))

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        """Be the trace function."""
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line" and not self._busy and self._inside() and not self._is_out_of_reach(frame):
            self.lines += 1
            if self._at is None or self._at == self.lines:
                self._busy = True
                try:
                    self._deed()
                finally:
                    self._busy = False
        return self.trace


def test_a_trace_function_that_calls(batcher: Batcher[Any, Any]) -> None:
    """At every line: it is answered, or refused at once."""
    counts = {"submit": 0, "stats": 0, "refused": 0}
    refusals: set[str] = set()
    left = [batcher.submit(n) for n in range(3)]

    def deed() -> None:
        for future in left:
            future.cancel()
        for name in ("stats", "submit", "call", "close", "decisions", "dump"):
            try:
                getattr(batcher, name)(*((1,) if name in {"submit", "call"} else ()))
            except BatcherError as error:
                refusals.add(str(error))
                counts["refused"] += 1
            else:
                counts[name] = counts.get(name, 0) + 1
        repr(batcher)
        assert batcher.healthy

    with Tracer(batcher, deed) as tracer:
        futures = [batcher.submit(number) for number in range(3)]
        batcher.submit(4).cancel()
        batcher.stats()
    assert [future.result(PATIENCE) for future in futures] == [0, 1, 2]
    assert batcher.call(5) == 5
    assert tracer.lines > 20
    assert counts["refused"] > tracer.lines
    assert all("from inside of the batcher" in text for text in refusals)
    assert counts["stats"] > 0
    assert counts["submit"] == 0


class Struck(Exception):
    """What a time limit raises."""


@pytest.mark.parametrize("event", ["submit", "many", "cancel", "stats"])
def test_an_exception_at_every_line(backend: str, flavour: Flavour, event: str) -> None:
    """It is the caller's; the batcher lives, and others are answered."""

    def strike() -> None:
        raise Struck

    for line in range(1, 400):
        gate = Gate()
        made = create_batcher(backend, gate.function(flavour), max_batch_size=2, timeout=1000.0)
        first, leaving = made.submit("first"), made.submit("leaving")
        others = [made.submit(number) for number in range(3)]
        mine: list[concurrent.futures.Future[Any]] = []

        def act(made: Any = made, leaving: Any = leaving, mine: Any = mine) -> None:
            if event == "submit":
                mine.append(made.submit("mine"))
            elif event == "many":
                with asyncio.Runner() as runner:
                    many = made.process_many(["a", "b"])
                    runner.run(asyncio.wait_for(many, 0.001))
            elif event == "cancel":
                leaving.cancel()
            else:
                made.stats()

        tracer = Tracer(made, strike, at=line)
        try:
            with tracer:
                act()
        except (Struck, TimeoutError):
            pass
        gate.open()
        assert first.result(PATIENCE) == "first"
        assert [future.result(PATIENCE) for future in others] == [0, 1, 2]
        assert made.submit("later").result(PATIENCE) == "later"
        assert made.healthy
        made.close()
        stats = made.stats()
        assert stats.queued == stats.running == 0
        if tracer.lines < line:
            break
    assert line > 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in finalizers of earlier ones
@pytest.mark.parametrize("call", ["submit", "start"])
def test_an_exception_at_every_line_of_the_first_call(backend: str, flavour: Flavour, call: str) -> None:
    """It starts the threads and loops: the next call is answered, whether or not they have started."""

    def strike() -> None:
        raise Struck

    for line in range(1, 1000):
        made = create_batcher(backend, function(flavour), timeout=1000.0)
        tracer = Tracer(made, strike, at=line, anywhere=True)
        with contextlib.suppress(Struck), tracer:
            made.submit("first") if call == "submit" else made.start()
        assert made.submit("later").result(PATIENCE) == "later"
        assert made.healthy
        made.close()
        if tracer.lines < line:
            break
    assert line > 50


def test_signals_that_raise(backend: str, flavour: Flavour) -> None:
    """Thousands of strikes of a timer, at any place: the caller fails alone."""
    strikes = [0]

    def strike(_: int, __: object) -> None:
        strikes[0] += 1
        raise Struck

    made = create_batcher(backend, function(flavour), max_queue_size=-1)
    made.start()  # an interrupt of `asyncio.new_event_loop` leaks its descriptors
    assert made.call(1) == 1
    before = signal.signal(signal.SIGALRM, strike)
    served = 0
    try:
        while strikes[0] < STRIKES:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00005)
                for number in range(50):
                    assert made.call(number) == number
                    served += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Struck:
                continue
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert made.healthy
    assert made.submit("after").result(PATIENCE) == "after"
    made.close()
    stats = made.stats()
    assert stats.queued == stats.running == 0


@pytest.mark.parametrize("limit", [150, 250])
def test_a_recursion_without_an_end(backend: str, flavour: Flavour, limit: int) -> None:
    """Its caller gets RecursionError; the batcher lives, whatever call it strikes."""
    made = create_batcher(backend, function(flavour))

    def walk(deep: int) -> None:
        made.call(deep)
        walk(deep + 1)

    def strike() -> None:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(limit)
        try:
            for pad in range(12):

                def padded(left: int) -> None:
                    if left:
                        padded(left - 1)
                    else:
                        walk(0)

                with pytest.raises(RecursionError):
                    padded(pad)
        finally:
            sys.setrecursionlimit(before)

    strike()
    assert made.submit("after").result(PATIENCE) == "after"
    assert made.healthy
    made.close()


async def test_callers_at_the_end_of_the_stack(
    make: Make, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call meets the limit of recursion: no error is left that nobody retrieves."""
    monkeypatch.setattr(sys, "unraisablehook", [].append)  # pytest's needs frames, which a finalizer has not here

    def fail(_: list[Any]) -> list[Any]:
        raise ValueError

    async def fail_soon(items: list[Any]) -> list[Any]:
        return fail(items)

    unread: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unread.append(context["message"]))
    made = make(fail if flavour == "sync" else fail_soon)

    async def deep(frames: int, call: Callable[[], Any]) -> Any:
        return await (deep(frames - 1, call) if frames > 0 else call())

    kinds: set[type[BaseException]] = set()
    for many in (False, True):
        for left in range(100):
            call = partial(made.process_many, [1, 2]) if many else partial(made.process, 1)
            task = asyncio.create_task(deep(sys.getrecursionlimit() - len(inspect.stack(0)) - left, call))
            (error,) = await outcomes(task)
            kinds.add(type(error))
            del error, task
    await made.stop()
    gc.collect()
    assert kinds == {RecursionError, ValueError}
    assert set(unread) <= {"Task was destroyed but it is pending!"}  # by asyncio, if `create_task` meets the limit


# What dies


def raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise an exception in another thread, as time limits and debuggers do."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))


def workers_of(made: Batcher[Any, Any]) -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(f"{made.name}-")]


def idle_threads(made: Batcher[Any, Any]) -> list[threading.Thread]:
    """Return the workers that wait for work."""
    driver = driver_of(made)
    if isinstance(driver, ThreadingDriver):
        waiting = {id(driver._leader), *map(id, driver._followers)}
        return [each._thread for each in list(driver._workers) if id(each) in waiting]
    assert isinstance(driver, AsyncioDriver)
    free = [] if driver._workers is None else list(driver._workers._free)
    return [each.thread._thread for each in free if each.thread is not None]


async def test_idle_threads_that_are_struck(make: Make, backend: str, flavour: Flavour) -> None:
    """Another one takes over, and no caller notices."""
    made = make(function(flavour), name="struck")
    struck: set[threading.Thread] = set()
    has_workers = (backend, flavour) != ("asyncio", "async")
    for number in range(20):
        assert await asyncio.wrap_future(made.submit(number)) == number
        if has_workers:
            await until(lambda: set(idle_threads(made)) - struck)
            for thread in set(idle_threads(made)) - struck:
                struck.add(thread)
                raise_in(thread, Struck)
    assert made.healthy
    assert await made.process("after") == "after"
    assert len(struck) == (20 if has_workers else 0)


async def test_a_busy_thread_that_is_struck(make: Make, gate: Gate) -> None:
    """Its batch fails, by name, and the next one runs."""
    made = make(gate.function("sync"), name="struck", max_batch_size=1)
    running = asyncio.create_task(made.process(1))
    await until(lambda: gate.started == 1)
    waiting = asyncio.create_task(made.process(2))
    await until(lambda: made.stats().queued == 1)
    for thread in workers_of(made):
        if "worker" in thread.name:
            raise_in(thread, Struck)
    gate.open()
    results = await outcomes(running, waiting)
    assert isinstance(results[0], (Struck, BatchFunctionError)) or results[0] == 1
    assert results[1] == 2
    assert made.healthy


# Failed batches


class Item:
    """Something that can be followed."""


async def test_a_failed_batch_is_logged_once(
    make: Make, gate: Gate, flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback, also if its callers have left; and counted."""

    def fail(_: list[Any]) -> None:
        msg = "the model is broken"
        raise ValueError(msg)

    gate.result = fail
    made = make(gate.function(flavour), name="model")
    callers = [asyncio.create_task(made.process(number)) for number in range(3)]
    await until(lambda: gate.started >= 1)
    for caller in callers:
        caller.cancel()
    await outcomes(*callers)
    gate.open()
    await until(lambda: made.stats().failed_batches >= 1)
    await until(lambda: [record for record in caplog.records if record.name == "batchers"])
    for number in range(5):
        await outcomes(made.process(number))
    records = [record for record in caplog.records if record.name == "batchers"]
    assert made.stats().failed_batches >= 6
    assert records[0].levelname == "ERROR"
    assert "of model failed" in records[0].getMessage()
    assert records[0].exc_info is not None
    assert "the model is broken" in str(records[0].exc_info[1])
    assert len(records) < 6


async def test_bisect_logs_what_stays_failed(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Not the batches that are divided."""

    def fail(items: list[Any]) -> list[Any]:
        if 3 in items:
            raise ValueError
        return items

    gate.result = fail
    made = make(gate.function(flavour), on_error="bisect", max_batch_size=8)
    callers = [asyncio.create_task(made.process(number)) for number in range(8)]
    gate.open()
    await outcomes(*callers)
    assert made.stats().failed_batches == 1


async def test_no_caller_holds_the_items_of_others(make: Make, gate: Gate, flavour: Flavour) -> None:
    """An error reporter sends the local variables of all frames of an exception."""

    def fail(items: list[Any]) -> None:
        local = list(items)
        raise ValueError(len(local))

    made = make(gate.function(flavour))
    gate.result = lambda items: fail(items) if 0 not in items else items
    mine, other = Item(), Item()
    gone = weakref.ref(other)
    callers = [asyncio.create_task(made.process(0))]
    await until(lambda: gate.started == 1)
    callers += [asyncio.create_task(made.process(item)) for item in (mine, other)]
    await until(lambda: made.stats().queued == 2)
    gate.open()
    error, theirs = (await outcomes(*callers))[1:]
    gate.seen.clear()
    del callers, other, theirs
    await made.stop()
    gc.collect()
    assert isinstance(error, ValueError)
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is not None
    assert gone() is None


# The end of the program

AT_THE_END = """
import asyncio, sys
from batchers import create_batcher

async def soon(items): return items
def sync(items): return items

class Holder:
    def __init__(self):
        self.batcher = create_batcher({backend!r}, {name})
        assert self.batcher.call(1) == 1
    def __del__(self):
        self.batcher.close(force={force})

holder = Holder()
holder.me = holder
print("served")
"""


@pytest.mark.parametrize("force", [False, True])
def test_a_finalizer_that_closes_at_the_end(backend: str, flavour: Flavour, force: bool) -> None:
    """The program ends."""
    name = "sync" if flavour == "sync" else "soon"
    ended = run([sys.executable, "-c", AT_THE_END.format(backend=backend, name=name, force=force)])
    assert (ended.returncode, ended.stdout) == (0, "served\n"), ended.stderr


# Starting beforehand


async def test_start(backend: str, flavour: Flavour) -> None:
    """The threads are there, and so is the loop of an async function."""
    made = create_batcher(backend, function(flavour))
    assert not await made.is_running()
    made.start()
    assert await made.is_running()
    before = set(threading.enumerate())
    assert await made.process(1) == 1
    assert set(threading.enumerate()) == before
    await made.stop()
    assert not await made.is_running()
    made.start()
    assert not await made.is_running()


async def test_entering_starts(backend: str, flavour: Flavour) -> None:
    """With both kinds of `with`."""
    async with create_batcher(backend, function(flavour)) as made:
        assert await made.is_running()
    with create_batcher(backend, function(flavour)) as other:
        assert await other.is_running()
        await other.stop()
