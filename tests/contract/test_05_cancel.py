"""Promise 5: cancelling a caller removes its queued item for good and disturbs nobody."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence

import pytest

from batchers import QueueFullError
from batchers.drivers import delivery
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, outcomes, until


async def test_a_queued_item_never_runs(make: Make, gate: Gate, flavour: Flavour) -> None:
    """And the others do."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    tasks = [asyncio.create_task(batcher.process(name)) for name in "abc"]
    await until(lambda: gate.started == 1)
    await until(lambda: batcher.stats().queued == 2)
    tasks[1].cancel()
    await until(lambda: batcher.stats().queued == 1)
    gate.open()
    results = await outcomes(*tasks)

    assert results[0] == "a"
    assert isinstance(results[1], asyncio.CancelledError)
    assert results[2] == "c"
    assert gate.items == ["a", "c"]


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_neighbours_in_a_running_batch(make: Make, gate: Gate, flavour: Flavour, leaver: int) -> None:
    """One of three leaves while the batch runs; the other two get their answers."""
    batcher = make(gate.function(flavour), max_batch_size=3)
    first = asyncio.create_task(batcher.process("first"))
    await until(lambda: gate.started == 1)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(3)]
    await until(lambda: batcher.stats().queued == 3)
    gate.let(1)
    await until(lambda: gate.started == 2)
    tasks[leaver].cancel()
    await outcomes(tasks[leaver])
    gate.open()
    results = await outcomes(*tasks)

    assert await first == "first"
    assert [result for n, result in enumerate(results) if n != leaver] == [n for n in range(3) if n != leaver]
    assert isinstance(results[leaver], asyncio.CancelledError)


async def test_all_of_a_running_batch_leave(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The slot comes back."""
    batcher = make(gate.function(flavour))
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    task.cancel()
    await outcomes(task)
    gate.open()

    assert await batcher.process(2) == 2
    assert batcher.stats().cancelled == 1


async def test_a_cancel_frees_the_queue_at_once(make: Make, gate: Gate, flavour: Flavour) -> None:
    """The place of a caller that has left can be taken."""
    batcher = make(gate.function(flavour), max_queue_size=1, max_batch_size=1)
    running = asyncio.create_task(batcher.process("running"))
    await until(lambda: gate.started == 1)
    waiting = asyncio.create_task(batcher.process("waiting"))
    await until(lambda: batcher.stats().queued == 1)
    with pytest.raises(QueueFullError):
        await batcher.process("refused")
    waiting.cancel()
    await outcomes(waiting)
    last = asyncio.create_task(batcher.process("accepted"))
    await until(lambda: batcher.stats().queued == 1)
    gate.open()

    assert [await running, await last] == ["running", "accepted"]


async def test_cancel_wins_over_a_result_that_is_there(
    make: Make, gate: Gate, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resolved and cancelled in one turn of the loop: the task ends cancelled, the cancel is not lost."""
    batcher = make(gate.function(flavour))
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    deliver = delivery._resolve

    def resolve_and_cancel(pairs: Sequence[delivery.Pair]) -> None:
        deliver(pairs)
        if pairs:
            task.cancel()

    monkeypatch.setattr(delivery, "_resolve", resolve_and_cancel)
    gate.open()
    (result,) = await outcomes(task)

    assert isinstance(result, asyncio.CancelledError)
    assert task.cancelling() == 1


async def test_a_caller_that_cannot_take_its_outcome(
    make: Make, gate: Gate, flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a RecursionError while it waits: an outcome that comes later makes no noise."""
    batcher = make(gate.function(flavour))
    gate.result = lambda _: [ValueError("too late")]
    call = batcher.process(1)
    call.send(None)
    await until(lambda: gate.started == 1)
    with pytest.raises(RecursionError):
        call.throw(RecursionError)
    del call
    gate.open()
    await until(lambda: not batcher.stats().batches_in_flight)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
    assert batcher.stats().cancelled == 1


async def test_asyncio_timeout_works(make: Make, gate: Gate, flavour: Flavour) -> None:
    """`asyncio.timeout` turns the cancel into its own error, and nothing swallows it."""
    batcher = make(gate.function(flavour))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await batcher.process(1)

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_for_a_caller_that_left_makes_no_noise(
    make: Make, gate: Gate, flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    """No "exception was never retrieved"."""

    def fail(items: list[object]) -> None:
        raise ValueError(items)

    gate.result = fail
    batcher = make(gate.function(flavour))
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(3)]
    many = asyncio.create_task(batcher.process_many(range(3)))
    await until(lambda: gate.started >= 1)
    tasks[0].cancel()
    gate.open()
    results = await outcomes(*tasks, many)
    await batcher.stop()
    del tasks, many
    gc.collect()

    assert all(isinstance(result, (ValueError, asyncio.CancelledError)) for result in results)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in errors] == ["batchers"]  # of the failed batch


async def test_process_many_withdraws_together(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Cancelled, or failed in one item: what is left of it does not run."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    gate.answer = lambda item: ValueError(item) if item == 1 else item
    tasks = [asyncio.create_task(batcher.process_many([0, 1, 2, 3]))]
    await until(lambda: gate.started == 1)
    tasks.append(asyncio.create_task(batcher.process_many([10, 11])))
    await until(lambda: batcher.stats().queued == 5)
    tasks[1].cancel()
    await until(lambda: batcher.stats().queued == 3)
    gate.let(2)
    results = await outcomes(*tasks)
    gate.open()

    assert isinstance(results[0], ValueError)
    assert isinstance(results[1], asyncio.CancelledError)
    await batcher.stop()
    assert gate.items in ([0, 1], [0, 1, 2])


async def test_a_thread_withdraws_by_its_future(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Queued: it never runs. Running: its result is dropped."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    running, waiting, last = (batcher.submit(n) for n in range(3))
    await until(lambda: gate.started == 1)

    assert waiting.cancel()
    assert running.cancel()
    gate.open()

    assert await asyncio.wrap_future(last) == 2
    assert gate.items == [0, 2]
    assert batcher.stats().cancelled == 2
