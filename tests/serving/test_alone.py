"""Calls for one request each, and what becomes of them when requests expire, leave, or are told of a stop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator

import pytest

from batchers import BatcherStoppedError, DeadlineExceededError
from batchers.serving.alone import Alone
from server.model import NoPredictionError
from tests.support.gate import Gate, outcomes, until

THREADS = 2


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio's loop."""
    return "asyncio"


class Row(list[float]):
    """One that can be followed."""


@pytest.fixture
def gate() -> Gate:
    """Give a model that holds its calls."""
    return Gate(sum)


@pytest.fixture
async def alone(gate: Gate) -> AsyncIterator[Alone]:
    """Give calls of it, with two threads."""
    found = Alone(gate.function("sync"), THREADS)
    yield found
    gate.open()
    found.stop()


def cancel(calls: list[asyncio.Task[float]]) -> None:
    """Let the requests leave."""
    for call in calls:
        call.cancel()


async def test_an_answer(alone: Alone, gate: Gate) -> None:
    """Each gets its own; no more calls run at a time than there are threads."""
    calls = [asyncio.create_task(alone.process([float(number)])) for number in range(5)]
    await until(lambda: gate.waiting == THREADS)
    gate.open()
    assert await asyncio.gather(*calls) == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_errors_are_the_callers() -> None:
    """Also one that looks like a missed limit, and one that is a result."""

    def fail(rows: list[list[float]]) -> list[object]:
        if rows[0][0]:
            raise TimeoutError("the model's own")
        return [NoPredictionError("too large")]

    alone = Alone(fail, THREADS)
    late, refused = await outcomes(alone.process([1.0], timeout=60.0), alone.process([0.0]))
    assert (type(late), str(late)) == (TimeoutError, "the model's own")
    assert (type(refused), str(refused)) == (NoPredictionError, "too large")
    alone.stop()


@pytest.mark.parametrize("leaves", [False, True])
async def test_calls_that_wait_for_nothing(alone: Alone, gate: Gate, leaves: bool) -> None:
    """While the model hangs they cost no thread and are not kept: they never run."""
    running = [asyncio.create_task(alone.process([1.0])) for _ in range(THREADS)]
    await until(lambda: gate.waiting == THREADS)
    rows = [Row([2.0]) for _ in range(100)]
    kept = [weakref.ref(row) for row in rows]
    calls = [asyncio.create_task(alone.process(row, timeout=None if leaves else 0.001)) for row in rows]
    del rows
    if leaves:
        await asyncio.sleep(0)
        cancel(calls)
    found = await outcomes(*calls)
    assert {type(each) for each in found} == {asyncio.CancelledError if leaves else DeadlineExceededError}
    del calls, found
    await asyncio.sleep(0)  # the turn that began with what they have ended with
    gc.collect()
    assert not [row for row in kept if row() is not None]
    gate.open()
    assert await asyncio.gather(*running) == [1.0, 1.0]
    assert await alone.process([3.0]) == 3.0
    assert gate.items == [[1.0], [1.0], [3.0]]


@pytest.mark.parametrize("leaves", [False, True])
async def test_calls_that_hang_still_count(alone: Alone, gate: Gate, leaves: bool) -> None:
    """Their requests are over, but not their threads: others wait until these are free."""
    limit = None if leaves else 0.001
    hanging = [asyncio.create_task(alone.process([1.0], timeout=limit)) for _ in range(THREADS)]
    await until(lambda: gate.waiting == THREADS)
    if leaves:
        cancel(hanging)
    await outcomes(*hanging)
    with pytest.raises(DeadlineExceededError):
        await alone.process([2.0], timeout=0.001)
    assert gate.started == THREADS
    gate.let(1)
    last = asyncio.create_task(alone.process([3.0]))
    await until(lambda: gate.started == THREADS + 1)
    gate.open()
    assert await last == 3.0


async def test_the_usual_time(gate: Gate) -> None:
    """It is for those who say nothing of theirs."""
    alone = Alone(gate.function("sync"), THREADS, longest=0.001)
    with pytest.raises(DeadlineExceededError):
        await alone.process([1.0])
    gate.open()
    assert await alone.process([1.0], timeout=60.0) == 1.0
    alone.stop()


async def test_giving_up(alone: Alone, gate: Gate) -> None:
    """Who runs, who waits and who comes is told that the server stops, whatever limit each has."""
    calls = [asyncio.create_task(alone.process([1.0], timeout=limit)) for limit in (None, 60.0) * THREADS]
    await until(lambda: gate.waiting == THREADS)
    alone.give_up()
    found = await outcomes(*calls, alone.process([1.0]))
    assert {type(each) for each in found} == {BatcherStoppedError}


async def test_giving_up_while_a_limit_rings(alone: Alone, gate: Gate) -> None:
    """Who has just run out of time, and does not know it yet, keeps nobody else from being told."""
    calls = [asyncio.create_task(alone.process([1.0], timeout=limit)) for limit in (None, 0.01, None, 60.0)]
    await until(lambda: gate.waiting == THREADS)
    loop = asyncio.get_running_loop()
    loop.call_later(0.011, alone.give_up)
    threading.Event().wait(0.02)  # both are due in the same turn
    found = await outcomes(*calls)
    assert {type(each) for each in found} == {BatcherStoppedError}


async def test_errors_that_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    """The model fails after its request has expired: that is no matter for the log."""
    gate = Gate()
    gate.result = lambda _: 1 / 0
    alone = Alone(gate.function("sync"), THREADS)
    with pytest.raises(DeadlineExceededError):
        await alone.process([1.0], timeout=0.001)
    gate.open()
    with pytest.raises(ZeroDivisionError):
        await alone.process([1.0])
    alone.stop()
    gc.collect()
    assert not caplog.records


async def test_no_thread_can_start(alone: Alone, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call fails, and takes no place from others."""
    gate.open()

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(THREADS + 1):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await alone.process([1.0])
    assert await alone.process([2.0]) == 2.0
    assert gate.items == [[2.0]], "a call that was refused was made all the same"
