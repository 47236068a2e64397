"""Promise 1: every accepted item gets exactly one outcome; nothing hangs."""

from __future__ import annotations

import asyncio
import errno
import random
import threading
from typing import Any

import pytest

from batchers import BatcherError, BatcherStoppedError, QueueFullError, create_batcher
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, outcomes, until

FAILURES = [
    ValueError("no"),
    StopIteration(1),
    StopAsyncIteration(),
    GeneratorExit(),
    asyncio.CancelledError(),
    SystemExit(3),
    KeyboardInterrupt(),
    MemoryError(),
    RecursionError(),
    ExceptionGroup("several", [ValueError("one"), TypeError("two")]),
]


class Unequal:
    """An item that cannot be compared or hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise TypeError

    def __repr__(self) -> str:
        return "Unequal()"  # an address would differ between the processes that run the tests


async def test_everybody_is_answered(make: Make, gate: Gate, flavour: Flavour) -> None:
    """A thousand callers at once, three batches in flight."""
    gate.open()
    batcher = make(gate.function(flavour), max_batch_size=7, concurrency=3)

    assert await asyncio.gather(*(batcher.process(n) for n in range(1000))) == list(range(1000))
    assert sorted(gate.items) == list(range(1000))


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_whatever_the_function_raises(
    make: Make, gate: Gate, flavour: Flavour, error: BaseException
) -> None:
    """All callers of the batch hear of it, and the next batch runs."""

    def fail(items: list[Any]) -> Any:
        if items != ["good"]:
            raise error
        return items

    gate.result = fail
    gate.open()
    batcher = make(gate.function(flavour))

    results = await outcomes(*(batcher.process(n) for n in range(5)))

    assert all(isinstance(result, Exception) for result in results)
    assert not any(isinstance(result, asyncio.CancelledError) for result in results)
    assert await batcher.process("good") == "good"


@pytest.mark.parametrize("item", [None, float("nan"), [1], {"a": 1}, Unequal(), Ellipsis], ids=repr)
async def test_any_object_is_an_item(make: Make, gate: Gate, flavour: Flavour, item: object) -> None:
    """Items need not be hashable or comparable: what is told apart are calls."""
    gate.open()
    batcher = make(gate.function(flavour))

    results = await asyncio.gather(*(batcher.process(item) for _ in range(5)))

    assert all(result is item for result in results)


async def test_refused_items_never_run(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Neither at a full queue nor after a stop."""
    batcher = make(gate.function(flavour), max_batch_size=1, max_queue_size=1)
    first = asyncio.create_task(batcher.process("runs"))
    await until(lambda: gate.started == 1)
    second = asyncio.create_task(batcher.process("waits"))
    await until(lambda: batcher.stats().queued == 1)

    (refused,) = await outcomes(batcher.process("too many"))
    gate.open()
    await asyncio.gather(first, second)
    await batcher.stop()
    (stopped,) = await outcomes(batcher.process("too late"))

    assert isinstance(refused, QueueFullError)
    assert isinstance(stopped, BatcherStoppedError)
    assert gate.items == ["runs", "waits"]


async def test_cancel_storm(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Thousands of callers leave in random order; one normal call works."""
    batcher = make(gate.function(flavour), max_batch_size=10, max_queue_size=-1, concurrency=2)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(2000)]
    await until(lambda: gate.started == 2)
    random.Random(1).shuffle(tasks)
    for task in tasks:
        task.cancel()

    results = await outcomes(*tasks)

    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    gate.open()
    assert await batcher.process("still here") == "still here"
    stats = batcher.stats()
    assert (stats.cancelled, stats.queued, stats.running) == (2000, 0, 0)


async def test_a_thread_that_cannot_start(
    make: Make, gate: Gate, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears of it, and later calls work when threads can start again."""
    gate.open()
    batcher = make(gate.function("sync"))

    def refuse(_: object) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        with pytest.raises(BatcherError, match="start"):
            await batcher.process(1)

    assert await batcher.process(2) == 2
    assert batcher.stats().queued == 0


@pytest.mark.race
async def test_no_wake_up_is_lost(backend: str, flavour: Flavour, threads_switch_always: None) -> None:
    """Eight threads and this loop, with the interpreter switching threads whenever it can."""
    gate = Gate()
    gate.open()
    batcher = create_batcher(backend, gate.function(flavour), max_batch_size=4, concurrency=2)
    found: list[int] = []

    def caller(start: int) -> None:
        found.extend(batcher.submit(n).result() for n in range(start, start + 100))

    threads = [threading.Thread(target=caller, args=(100 * n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    found.extend([await batcher.process(n) for n in range(100)])
    await until(lambda: not any(thread.is_alive() for thread in threads))
    await batcher.stop()

    assert sorted(found) == list(range(900))


async def test_no_descriptors_are_left(make: Make, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop of the batcher's own cannot be made: the caller hears of it, and later calls work."""
    gate.open()
    batcher = make(gate.function("async"))

    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", refuse)
        with pytest.raises(BatcherError, match=r"cannot start.*Too many open files"):
            await asyncio.wrap_future(batcher.submit(1))

    assert await asyncio.wrap_future(batcher.submit(2)) == 2
    stats = batcher.stats()
    assert (stats.completed, stats.queued, stats.running) == (1, 0, 0)
