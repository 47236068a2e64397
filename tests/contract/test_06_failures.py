"""Promise 6: a failing batch fails its own items only, and each caller gets an error of its own."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest

from batchers import BatchFunctionError
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, outcomes, until


class ModelError(Exception):
    """An exception with a constructor that copying does not know."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def raiser(error: BaseException) -> Any:
    def fail(_: list[Any]) -> None:
        raise error

    return fail


async def test_each_caller_gets_a_copy(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Of the same type, with the same contents, and the original as its cause."""
    original = ModelError(7, "broken")
    gate.result = raiser(original)
    gate.open()
    batcher = make(gate.function(flavour))

    results = await outcomes(*(batcher.process(n) for n in range(50)))

    assert len(set(map(id, results))) == 50
    for result in results:
        assert type(result) is ModelError
        assert (result.code, str(result)) == (7, "broken")
        assert result.__cause__ is original


async def test_tracebacks_do_not_grow(make: Make, gate: Gate, flavour: Flavour) -> None:
    """One exception object raised again and again by the function stays as it is."""
    error = ValueError("always the same object")
    gate.result = raiser(error)
    gate.open()
    batcher = make(gate.function(flavour), max_batch_size=5)
    depths = []
    for _ in range(20):
        results = await outcomes(*(batcher.process(n) for n in range(5)))
        depths += [len(list(traceback.walk_tb(result.__traceback__))) for result in results]

    assert max(depths) <= 5


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()], ids=repr
)
async def test_what_would_harm_a_caller(make: Make, gate: Gate, flavour: Flavour, error: BaseException) -> None:
    """It arrives as BatchFunctionError, with the original as its cause."""
    gate.result = raiser(error)
    gate.open()
    batcher = make(gate.function(flavour))

    with pytest.raises(BatchFunctionError, match=type(error).__name__) as caught:
        await batcher.process(1)

    assert type(caught.value.__cause__) is type(error)


@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration()], ids=repr)
async def test_ends_of_iterations(make: Make, gate: Gate, error: Exception) -> None:
    """They would end a caller's own loop, or hang its future."""
    gate.result = raiser(error)
    gate.open()
    batcher = make(gate.function("sync"))

    results = await outcomes(*(batcher.process(n) for n in range(3)))

    assert all(type(result) is BatchFunctionError and result.__cause__ is error for result in results)


async def test_an_exception_that_cannot_be_shown(make: Make, gate: Gate, flavour: Flavour) -> None:
    """A broken `__str__` does not break the batcher."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise TypeError

    gate.result = raiser(Unspeakable())
    gate.open()
    batcher = make(gate.function(flavour))

    results = await outcomes(*(batcher.process(n) for n in range(3)))

    assert [type(result) for result in results] == [Unspeakable] * 3


async def test_a_returned_exception_fails_its_item_only(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Whatever exception it is."""
    bad: dict[int, BaseException] = {1: ValueError("one"), 3: SystemExit(3), 4: StopIteration(4)}
    gate.answer = lambda item: bad.get(item, item)
    gate.open()
    batcher = make(gate.function(flavour))

    results = await outcomes(*(batcher.process(n) for n in range(6)))

    assert [results[n] for n in (0, 2, 5)] == [0, 2, 5]
    assert type(results[1]) is ValueError
    assert results[1].__cause__ is bad[1]
    assert type(results[3]) is BatchFunctionError
    assert type(results[4]) is BatchFunctionError


async def test_the_next_batch_runs(make: Make, gate: Gate, flavour: Flavour) -> None:
    """A batch that waits behind a failing one is not touched by it."""

    def fail(items: list[Any]) -> list[Any]:
        if "bad" in items:
            msg = "bad"
            raise ValueError(msg)
        return items

    gate.result = fail
    batcher = make(gate.function(flavour), max_batch_size=2)
    tasks = [asyncio.create_task(batcher.process("bad"))]
    await until(lambda: gate.started == 1)
    tasks += [asyncio.create_task(batcher.process(n)) for n in range(2)]
    await until(lambda: batcher.stats().queued == 2)
    gate.open()
    results = await outcomes(*tasks)

    assert isinstance(results[0], ValueError)
    assert results[1:] == [0, 1]


@pytest.mark.parametrize("bad", [{3}, {0, 63}, {1, 2, 3, 40}, set(range(64)), set()], ids=len)
async def test_bisect_finds_the_poison(make: Make, gate: Gate, flavour: Flavour, bad: set[int]) -> None:
    """Exactly the items that fail alone fail; the calls are bounded."""

    def fail(items: list[int]) -> list[int]:
        poison = bad.intersection(items)
        if poison:
            raise ValueError(poison)
        return items

    batcher = make(gate.function(flavour), on_error="bisect", max_batch_size=64, concurrency=1)
    first = asyncio.create_task(batcher.process(1000))
    await until(lambda: gate.started == 1)
    gate.result = fail
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(64)]
    await until(lambda: batcher.stats().queued == 64)
    gate.open()
    results = await outcomes(first, *tasks)

    for n, result in enumerate(results[1:]):
        assert (type(result) is ValueError) if n in bad else (result == n)
    assert gate.started - 1 <= min(2 * 64 - 1, 2 * len(bad) * 6 + 1)


async def test_bisect_stops_at_an_order_to_stop(make: Make, gate: Gate, flavour: Flavour) -> None:
    """A SystemExit is no bad item: it is not tried again."""
    gate.result = raiser(SystemExit(1))
    gate.open()
    batcher = make(gate.function(flavour), on_error="bisect")

    results = await outcomes(*(batcher.process(n) for n in range(8)))

    assert all(type(result) is BatchFunctionError for result in results)
    assert sorted(gate.items) == list(range(8))


async def test_a_task_that_a_batch_left_behind(make: Make, backend: str) -> None:
    """It raises SystemExit on the batcher's own loop: other batches live on."""

    async def leave_behind() -> None:
        raise SystemExit(3)

    left: list[asyncio.Task[None]] = []

    async def work(items: list[Any]) -> list[Any]:
        if "bad" in items:
            left.append(asyncio.create_task(leave_behind()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return items

    batcher = make(work)
    # From a thread, so that the asyncio backend too lives on a loop of its own.
    assert await asyncio.wrap_future(batcher.submit("bad")) == "bad"
    assert await asyncio.wrap_future(batcher.submit("good")) == "good"
    with pytest.raises(SystemExit):
        left[0].result()


async def test_a_callback_of_a_future_that_raises(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Whatever it raises, the other callers get their answers."""

    def leave(_: object) -> None:
        raise SystemExit(3)

    batcher = make(gate.function(flavour), max_batch_size=3)
    futures = [batcher.submit(n) for n in range(6)]
    for future in futures[::2]:
        future.add_done_callback(leave)
    gate.open()
    await until(lambda: all(future.done() for future in futures))

    assert [future.result() for future in futures] == list(range(6))
    assert await batcher.process("next") == "next"
