"""Calls from where nobody expects them: the collector, callbacks, signals, forks, leftovers of a batch."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from batchers import (
    Batcher,
    BatcherError,
    BatcherStoppedError,
    QueueFullError,
    ThreadingBatcher,
    batched,
    create_batcher,
)
from batchers.core.group_queue import GroupQueue
from batchers.core.machine import Core
from batchers.drivers import loops, shutdown
from tests.conftest import Make
from tests.support.children import PATIENCE, in_fork
from tests.support.gate import Flavour, Gate, outcomes, until
from tests.support.inside import driver_of


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave cancelled coroutines no whole second to clean up: these tests wait for its end."""
    monkeypatch.setattr(shutdown, "CLEANUP_SECONDS", 0.05)
    monkeypatch.setattr(loops, "CLEANUP_SECONDS", 0.05)


class Pause:
    """Something to await that nobody ends."""

    def __await__(self) -> Any:
        yield


def test_futures_that_the_collector_cancels(backend: str, flavour: Flavour) -> None:
    """It may strike while this thread is inside the batcher."""
    gate = Gate()
    gate.open()
    batcher = create_batcher(
        backend, gate.function(flavour), max_batch_size=-1, max_queue_time=60.0, max_queue_size=-1
    )

    async def handler(request: dict[str, Any]) -> None:
        future = batcher.submit(len(request))
        try:
            await Pause()
        finally:
            future.cancel()

    thresholds = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for _ in range(3000):
            request: dict[str, Any] = {}
            request["task"] = handler(request)  # only the collector ends it
            request["task"].send(None)
        del request
    finally:
        gc.set_threshold(*thresholds)
    # `gc.collect` does nothing while another thread collects, which may be about to cancel the last ones.
    end = time.monotonic() + PATIENCE
    while batcher.stats().cancelled != 3000:
        gc.collect()
        assert time.monotonic() < end
    batcher.close()


async def test_callers_that_the_collector_ended_leave_their_places(make: Make, gate: Gate) -> None:
    """Their items do not fill the queue."""
    batcher = make(gate.function("sync"), max_queue_size=2, max_queue_time=60.0)
    callers = [batcher.process(n) for n in range(2)]
    for caller in callers:
        caller.send(None)
    assert batcher.stats().queued == 2
    del caller, callers
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(3)]
    await asyncio.sleep(0)
    assert batcher.stats().queued == 2
    for task in tasks:
        task.cancel()
    results = await outcomes(*tasks)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2 + [QueueFullError]


def test_statistics_in_a_signal_handler(backend: str, flavour: Flavour) -> None:
    """Not while the main thread is in the batcher itself: then they wait for ever. So they are left to threads."""
    gate = Gate()
    gate.open()
    found = []
    with create_batcher(backend, gate.function(flavour)) as batcher:

        def in_a_thread(*_: object) -> None:
            threading.Thread(target=lambda: found.append(batcher.stats())).start()

        before = signal.signal(signal.SIGUSR1, in_a_thread)
        try:
            for n in range(20):
                future = batcher.submit(n)
                os.kill(os.getpid(), signal.SIGUSR1)
                assert future.result() == n
        finally:
            signal.signal(signal.SIGUSR1, before)
        while len(found) < 20:
            pass


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_cleans_up(backend: str, flavour: Flavour) -> None:
    """Cancelling what it inherited does not touch what it hands in itself."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    futures = [batcher.submit(n) for n in range(3)]
    while gate.started < 1 or batcher.stats().queued < 2:
        pass

    def child() -> None:
        gate.open()
        for future in futures:
            future.cancel()
        assert [batcher.submit(n).result() for n in (7, 8, 9)] == [7, 8, 9]
        stats = batcher.stats()
        assert (stats.submitted, stats.completed, stats.queued, stats.running) == (3, 3, 0, 0)
        batcher.close()

    status = in_fork(child)
    gate.open()
    assert status == 0
    assert [future.result() for future in futures] == [0, 1, 2]
    batcher.close()


class Equal(ThreadingBatcher[int, int]):
    """All of them are equal."""

    def process_batch(self, batch: list[int]) -> list[int]:
        return batch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batchers_that_are_equal() -> None:
    """The child of a fork starts every one of them afresh."""
    batchers = [Equal(), Equal()]
    assert [batcher.submit(1).result() for batcher in batchers] == [1, 1]

    def child() -> None:
        assert [batcher.submit(2).result() for batcher in batchers] == [2, 2]

    assert in_fork(child) == 0
    for batcher in batchers:
        batcher.close()


async def test_close_in_a_callback_of_a_future(make: Make, gate: Gate, flavour: Flavour) -> None:
    """It would wait for its own thread: it is told so."""
    found: list[BaseException] = []

    def callback(_: object) -> None:
        try:
            batcher.close()
        except BatcherError as error:
            found.append(error)

    batcher = make(gate.function(flavour))
    future = batcher.submit(1)
    future.add_done_callback(callback)
    gate.open()
    await until(lambda: found)
    assert "close()" in str(found[0])
    assert await batcher.process(2) == 2


async def test_submit_in_a_callback_of_a_future(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The batch is over: no call is reentrant any more."""
    found: list[concurrent.futures.Future[Any]] = []
    batcher = make(gate.function(flavour))
    batcher.submit(1).add_done_callback(lambda _: found.append(batcher.submit(2)))
    gate.open()
    await until(lambda: found)
    assert await asyncio.wrap_future(found[0]) == 2


async def test_a_slow_callback_and_a_stop_out_of_time(
    make: Make, gate: Gate, flavour: Flavour, impatient: None
) -> None:
    """The stop returns in time, whatever holds a thread of the batcher."""
    go = threading.Event()
    called = threading.Event()
    batcher = make(gate.function(flavour))

    def callback(_: object) -> None:
        called.set()
        go.wait()

    batcher.submit(1).add_done_callback(callback)
    gate.open()
    await asyncio.to_thread(called.wait)
    waiting = batcher.submit(2)
    await asyncio.wait_for(asyncio.to_thread(batcher.close, timeout=0.0), PATIENCE)
    go.set()
    (error,) = await outcomes(asyncio.wrap_future(waiting))
    assert error == 2 or isinstance(error, BatcherStoppedError)


async def test_a_task_that_outlives_its_batch(make: Make) -> None:
    """It may call the batcher; while the batch runs it may not."""
    task: list[asyncio.Task[Any]] = []
    go = threading.Event()

    async def background() -> Any:
        while not go.is_set():
            await asyncio.sleep(0)
        return await batcher.process(2)

    async def work(items: list[Any]) -> list[Any]:
        if not task:
            task.append(asyncio.create_task(background()))
        return items

    batcher = make(work)
    assert await batcher.process(1) == 1
    go.set()
    await until(task[0].done)
    assert task[0].result() == 2


def inconsistent(*_: object) -> None:
    """Serve as something inside that fails."""
    msg = "inconsistent"
    raise IndexError(msg)


async def test_a_core_that_fails(
    make: Make, gate: Gate, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect that stays ends the batcher: all callers hear of it, nobody hangs, and later ones hear why."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    running = asyncio.create_task(batcher.process(0))
    await until(lambda: gate.started == 1)
    waiting = [asyncio.create_task(batcher.process(n)) for n in (1, 2)]
    await until(lambda: batcher.stats().queued == 2)
    monkeypatch.setattr(Core, "decide", inconsistent)
    gate.open()

    results = await outcomes(running, *waiting)

    assert results[0] == 0
    assert [type(result) for result in results[1:]] == [BatcherError] * 2
    assert "inconsistent" in str(results[1])
    assert not batcher.healthy
    with pytest.raises(BatcherError, match="inconsistent"):
        await batcher.process(3)
    stats = batcher.stats()
    assert (stats.submitted, stats.completed, stats.stopped, stats.rejected) == (4, 1, 2, 1)


async def test_a_wake_up_that_fails(
    make: Make, gate: Gate, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call wakes in its place."""
    gate.open()
    batcher = make(gate.function(flavour))
    with monkeypatch.context() as patch:
        patch.setattr(type(driver_of(batcher)), "_wake", inconsistent)
        with pytest.raises(IndexError):
            await batcher.process(1)

    assert await batcher.process(2) == 2


class Key:
    """A group that cannot be compared with others, or is told to change its hash."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __hash__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return self.value == other.value  # type: ignore[attr-defined,no-any-return]


async def test_groups_that_cannot_be_compared(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The caller hears of it, and of all that it handed in nothing is accepted."""
    batcher = make(gate.function(flavour), group_by=lambda item: Key(1) if item else 1, max_batch_size=1)
    running = asyncio.create_task(batcher.process(5))
    await until(lambda: gate.started == 1)
    waiting = asyncio.create_task(batcher.process(5))
    await until(lambda: batcher.stats().queued == 1)
    with pytest.raises(AttributeError):
        await batcher.process_many([5, 0])
    assert batcher.stats().queued == 1
    gate.open()
    assert await outcomes(running, waiting, batcher.process(5)) == [5, 5, 5]


async def test_groups_that_change(make: Make, gate: Gate, flavour: Flavour) -> None:
    """A hash that changes while the item waits disturbs nobody."""
    key = Key(1)
    batcher = make(gate.function(flavour), group_by=lambda item: key if item else None, max_batch_size=1)
    running = asyncio.create_task(batcher.process(0))
    await until(lambda: gate.started == 1)
    waiting = [asyncio.create_task(batcher.process(n)) for n in (1, 0)]
    await until(lambda: batcher.stats().queued == 2)
    key.value = 2
    gate.open()
    assert await asyncio.gather(running, *waiting) == [0, 1, 0]


async def test_a_repr_that_asks_the_batcher(gate: Gate, flavour: Flavour) -> None:
    """A subclass may show what it likes in the warning of a stop."""

    class Talking(ThreadingBatcher[Any, Any]):
        def __repr__(self) -> str:
            return f"<{self.stats().running} at work>"

        def process_batch(self, batch: list[Any]) -> Any:
            return gate.function("sync")(batch)

    batcher: Batcher[Any, Any] = Talking()
    future = batcher.submit(1)
    await until(lambda: gate.started == 1)
    await batcher.stop(timeout=0)
    gate.open()
    with pytest.raises(BatcherStoppedError):
        future.result()


class Sized(ThreadPoolExecutor):
    """An executor that is false while it is empty."""

    def __len__(self) -> int:
        return 0


async def test_an_executor_that_is_false(make: Make) -> None:
    """It is used all the same."""
    with Sized(1, thread_name_prefix="mine") as executor:
        batcher = make(lambda items: [threading.current_thread().name for _ in items], executor=executor)
        assert (await batcher.process(1)).startswith("mine")
        await batcher.stop()


async def test_process_many_hears_of_a_failure_at_once(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The items before it still run; those behind it never do."""
    gate.answer = lambda item: ValueError(item) if item == "bad" else item
    batcher = make(gate.function(flavour), max_batch_size=1, concurrency=2)
    many = asyncio.create_task(batcher.process_many(["slow", "bad", "x", "y"]))
    await until(lambda: gate.waiting == 2)
    gate.let_waiting(gate.seen.index(["bad"]))
    with pytest.raises(ValueError, match="bad"):
        await many
    gate.open()
    await batcher.stop()
    assert ["y"] not in gate.seen


async def test_stop_for_ever_or_nearly(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Timeouts beyond what the system can wait are as good as none."""
    gate.open()
    for timeout in (float("inf"), 1e10):
        batcher = make(gate.function(flavour))
        assert await batcher.process(1) == 1
        await batcher.stop(timeout=timeout)
        batcher.close(timeout=timeout)


async def test_a_coroutine_that_does_not_end_when_cancelled(make: Make, impatient: None) -> None:
    """A stop out of time leaves it behind; its threads end when its loop does."""
    before = set(threading.enumerate())
    started = threading.Event()

    async def work(items: list[Any]) -> list[Any]:
        started.set()
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if asyncio.get_running_loop() is here:
                    raise

    here = asyncio.get_running_loop()
    batcher = make(work)
    future = batcher.submit(1)
    await until(started.is_set)
    await asyncio.to_thread(batcher.close, timeout=0)
    assert isinstance(future.exception(), BatcherStoppedError)
    for thread in set(threading.enumerate()) - before:
        if "Batcher" in thread.name:
            await asyncio.to_thread(thread.join)


async def test_a_stop_between_decision_and_start(backend: str, flavour: Flavour) -> None:
    """Hundreds of stops without patience: nothing is started any more, and every one of them returns."""
    gate = Gate()
    gate.open()
    for _ in range(200):
        batcher = create_batcher(backend, gate.function(flavour))
        future = batcher.submit(1)
        await asyncio.to_thread(batcher.close, timeout=0)
        await asyncio.to_thread(batcher.close)
        assert future.done()


def test_an_interrupt_in_the_middle_of_an_event(
    backend: str, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in `submit`: its item never runs, and all others are served."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    running, waiting = batcher.submit(1), batcher.submit(2)
    while gate.started < 1 or batcher.stats().queued < 1:
        pass

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GroupQueue, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            batcher.submit(3)
    later = batcher.submit(4)
    gate.open()
    assert [future.result() for future in (running, waiting, later)] == [1, 2, 4]
    assert batcher.healthy
    batcher.close()
    stats = batcher.stats()
    assert (stats.completed, stats.cancelled, stats.submitted) == (3, 1, 4)
    assert gate.items == [1, 2, 4]


async def test_an_awaitable_of_a_function_that_was_given_up(make: Make, backend: str) -> None:
    """It never runs, and no thread is made for it."""
    before = set(threading.enumerate())
    go, called = threading.Event(), threading.Event()
    ran: list[Any] = []

    async def rest(items: list[Any]) -> list[Any]:
        ran.append(items)
        return items

    def work(items: list[Any]) -> Any:
        called.set()
        go.wait()
        return rest(items)

    batcher = make(work)
    task = asyncio.create_task(batcher.process(1))
    await until(called.is_set)
    await batcher.stop(timeout=0)
    go.set()
    (error,) = await outcomes(task)
    assert isinstance(error, BatcherStoppedError)
    await until(lambda: not [t for t in set(threading.enumerate()) - before if "Batcher" in t.name])
    assert ran == []


async def test_an_awaitable_for_a_loop_that_stops(backend: str) -> None:
    """It was handed over in the last turn of the loop: the next one runs it."""
    go, called = threading.Event(), threading.Event()

    async def rest(items: list[Any]) -> list[Any]:
        return items

    def work(items: list[Any]) -> Any:
        if items == [1]:
            called.set()
            go.wait()
        return rest(items)

    batcher = create_batcher(backend, work, max_batch_size=1)

    def first() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        task = loop.create_task(batcher.process(1))
        loop.run_until_complete(until(called.is_set))

        def last_turn() -> None:
            loop.stop()
            go.set()
            while not (getattr(driver_of(batcher), "_handed_over", None) or batcher.stats().completed):
                pass  # the awaitable is on its way, and the loop will not turn again

        loop.call_soon(last_turn)
        loop.run_forever()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it dies with its loop
        return loop

    loop = await asyncio.to_thread(first)
    assert await batcher.process(2) == 2
    await batcher.stop()
    loop.close()


async def test_close_again_after_giving_up(make: Make, impatient: None) -> None:
    """An async function that blocks its thread is left behind by the second stop too."""
    go, called = threading.Event(), threading.Event()

    async def work(items: list[Any]) -> list[Any]:
        called.set()
        go.wait()
        return items

    batcher = make(work)
    future = batcher.submit(1)
    await asyncio.to_thread(called.wait)
    await asyncio.to_thread(batcher.close, timeout=0)
    await asyncio.to_thread(batcher.close)
    assert isinstance(future.exception(), BatcherStoppedError)
    go.set()


def test_a_cancel_in_the_middle_of_an_event(backend: str, flavour: Flavour) -> None:
    """It is noted, and the item is withdrawn after the event; whoever waits for the future hears of it."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_queue_time=3600.0)
    future = batcher.submit(1)
    with driver_of(batcher).lock:
        assert future.cancel()
    assert batcher.stats().cancelled == 1
    done, _ = concurrent.futures.wait([future], PATIENCE)
    assert done
    batcher.close()
    assert gate.seen == []


def test_no_thread_starts_in_an_emergency(backend: str, flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batcher that fails still tells its callers, and later ones why."""
    gate = Gate()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=1)
    futures = [batcher.submit(n) for n in range(4)]
    while gate.started < 1 or batcher.stats().queued < 3:
        pass

    def refuse(*_: object) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        patch.setattr(Core, "repair", inconsistent)
        driver_of(batcher).core.inconsistent = True
        with pytest.raises(
            BatcherError, match=r"the batcher has failed \(IndexError\('inconsistent'\)\)"
        ) as caught:
            batcher.submit(9)
        assert not isinstance(caught.value, BatcherStoppedError)
        assert isinstance(futures[2].exception(), BatcherError)
        assert not batcher.healthy
    gate.open()
    batcher.close()
    assert all(future.done() for future in futures)


class Each:
    """An object with a batched method."""

    @batched("threading")
    def method(self, items: list[int]) -> list[int]:
        return items


@pytest.mark.race
def test_first_calls_of_a_copy_at_the_same_time(threads_switch_always: None) -> None:
    """One object has one batcher, whoever asks first."""
    for _ in range(100):
        original = Each()
        assert original.method is original.method
        other = copy.copy(original)
        barrier = threading.Barrier(4)
        found: list[Any] = []

        def ask(other: Each = other, barrier: threading.Barrier = barrier, found: list[Any] = found) -> None:
            barrier.wait()
            found.append(other.method)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1
        assert len(other.__dict__) == 1
