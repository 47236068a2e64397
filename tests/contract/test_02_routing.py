"""Promise 2: a result goes to the caller of its own item, also with several batches in flight."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from batchers.errors import index_of
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, until


async def test_batches_that_finish_in_any_order(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Three in flight, let go one after the other; nobody gets the answer of another."""
    gate.answer = lambda item: item * item
    batcher = make(gate.function(flavour), max_batch_size=4, concurrency=3)
    tasks = [asyncio.create_task(batcher.process(n)) for n in range(40)]
    await until(lambda: gate.waiting == 3)
    random.seed(3)
    while not all(task.done() for task in tasks):
        if gate.waiting:
            gate.let_waiting(random.randrange(gate.waiting))
        await asyncio.sleep(0)

    assert await asyncio.gather(*tasks) == [n * n for n in range(40)]


async def test_many_loops_and_threads_at_once(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Four loops in four threads, four threads without one, and this loop share one batcher."""
    gate.answer = lambda item: -item
    gate.open()
    batcher = make(gate.function(flavour), max_batch_size=8, concurrency=2)
    batcher.start()  # on this loop, because batches fail with the loop that runs them
    found: dict[int, int] = {}

    async def from_a_loop(start: int) -> None:
        results = await asyncio.gather(*(batcher.process(n) for n in range(start, start + 20)))
        found.update(zip(range(start, start + 20), results, strict=True))

    def from_a_thread(start: int) -> None:
        futures = [batcher.submit(n) for n in range(start, start + 20)]
        found.update((n, future.result()) for n, future in zip(range(start, start + 20), futures, strict=True))

    threads = [
        *(threading.Thread(target=asyncio.run, args=(from_a_loop(100 * n),)) for n in range(1, 5)),
        *(threading.Thread(target=from_a_thread, args=(100 * n,)) for n in range(5, 9)),
    ]
    for thread in threads:
        thread.start()
    await from_a_loop(0)
    await until(lambda: not any(thread.is_alive() for thread in threads))

    assert len(found) == 180
    assert all(result == -n for n, result in found.items())


async def test_process_many_keeps_the_order_of_its_items(make: Make, gate: Gate, flavour: Flavour) -> None:
    """Also when they are spread over batches and mixed with other callers."""
    gate.open()
    batcher = make(gate.function(flavour), max_batch_size=3, concurrency=2)

    first, second, empty = await asyncio.gather(
        batcher.process_many(range(10)), batcher.process_many("abcdefg"), batcher.process_many([])
    )

    assert first == list(range(10))
    assert second == list("abcdefg")
    assert empty == []


async def test_process_many_says_which_item_has_failed(make: Make, flavour: Flavour) -> None:
    """In a note of the error, which the serving layer reads; some classes of users take no notes."""

    @dataclass(frozen=True)
    class FrozenError(Exception):
        code: int

    def answer(items: list[int]) -> list[Any]:
        errors = {2: ValueError("two"), 3: FrozenError(3)}
        return [errors.get(item, item) for item in items]

    async def answer_later(items: list[int]) -> list[Any]:
        return answer(items)

    def checked(item: int) -> int:
        if item < 0:
            raise ValueError(item)
        return item

    batcher = make(answer if flavour == "sync" else answer_later, convert=checked)
    with pytest.raises(ValueError, match="two") as caught:
        await batcher.process_many([0, 1, 2])
    assert index_of(caught.value) == 2
    with pytest.raises(ValueError, match="-1") as caught:
        await batcher.process_many([0, -1])
    assert index_of(caught.value) == 1
    with pytest.raises(FrozenError) as frozen:
        await batcher.process_many([3])
    assert index_of(frozen.value) is None
    with pytest.raises(ValueError, match="two") as caught:
        await batcher.process(2)
    assert index_of(caught.value) is None


async def test_futures_of_threads_can_be_waited_for(make: Make, gate: Gate, flavour: Flavour) -> None:
    """`concurrent.futures.wait` hears of results and of cancellations."""
    batcher = make(gate.function(flavour), max_batch_size=1)
    futures: list[concurrent.futures.Future[Any]] = [batcher.submit(n) for n in range(3)]
    await until(lambda: gate.started == 1)
    waiting = asyncio.create_task(asyncio.to_thread(concurrent.futures.wait, futures))

    assert futures[2].cancel()
    gate.open()
    done, pending = await waiting

    assert done == set(futures)
    assert not pending
    assert [future.result() for future in futures[:2]] == [0, 1]
    assert gate.items == [0, 1]
