"""A batch function that hangs is given up after `batch_timeout`: its callers are told, and others are served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batchers import Batcher, BatchTimeoutError, create_batcher
from batchers.core.refusals import STALLED_LIMIT
from tests.conftest import Make
from tests.support.gate import Flavour, Gate, until

SHORT = 0.02
"""Seconds after which a batch is given up. It is real time, because threads hang in it.

On a busy machine it may pass before the thread of a batch has even begun. So these tests wait for calls to begin,
and none of them expects that a call that does return is in time.
"""


class Hanging:
    """A batch function whose first calls do not return; the others return at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.hangs = 1
        self.released = threading.Event()

    def function(self, flavour: Flavour) -> Callable[[list[Any]], Any]:
        """Return it, to be called or awaited."""

        def hang(items: list[Any]) -> list[Any]:
            self.calls += 1
            if self.calls <= self.hangs:
                self.released.wait()
            return items

        async def hang_async(items: list[Any]) -> list[Any]:
            self.calls += 1
            if self.calls <= self.hangs:
                await asyncio.get_running_loop().create_future()
            return items

        return hang if flavour == "sync" else hang_async


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """Give one whose first call hangs until the end of the test."""
    found = Hanging()
    yield found
    found.released.set()


async def hang(batcher: Batcher[Any, Any]) -> str:
    """Call, and return what the caller was told."""
    with pytest.raises(BatchTimeoutError) as caught:
        await batcher.process(0)
    return str(caught.value)


async def released(batcher: Batcher[Any, Any], hanging: Hanging) -> None:
    """Let all return, and wait until they have."""
    hanging.released.set()
    await until(lambda: batcher.stats().stalled == 0)


async def test_its_callers_are_told(make: Make, hanging: Hanging, flavour: Flavour) -> None:
    """With the limit and the cure."""
    batcher = make(hanging.function(flavour), batch_timeout=SHORT)
    told = await hang(batcher)
    assert "batch_timeout is 0.02" in told
    assert "batcher.dump()" in told
    assert (batcher.stats().failed, batcher.stats().completed) == (1, 0)
    await released(batcher, hanging)


async def test_others_are_served(make: Make, hanging: Hanging, flavour: Flavour) -> None:
    """The next batch takes the place of the one that hangs, and what that returns is dropped."""
    batcher = make(hanging.function(flavour), batch_timeout=20 * SHORT)
    await hang(batcher)
    late = 0
    while True:
        try:
            assert await batcher.process("next") == "next"
        except BatchTimeoutError:
            late += 1  # on a busy machine; only the first call hangs
        else:
            break
    await released(batcher, hanging)
    assert (batcher.stats().completed, batcher.stats().failed) == (1, 1 + late)


async def test_an_async_function_is_cancelled(make: Make, hanging: Hanging) -> None:
    """So it hangs no more."""
    batcher = make(hanging.function("async"), batch_timeout=SHORT)
    await hang(batcher)
    await until(lambda: batcher.stats().stalled == 0)
    assert batcher.healthy


async def test_threads_are_counted(make: Make, hanging: Hanging) -> None:
    """With so many nothing is begun any more, until one returns."""
    hanging.hangs = STALLED_LIMIT
    batcher = make(hanging.function("sync"), batch_timeout=SHORT)
    for number in range(STALLED_LIMIT):
        assert batcher.healthy
        assert batcher.stats().stalled == number
        await hang(batcher)
    assert not batcher.healthy
    assert "no other is begun until one returns" in await hang(batcher)
    await until(lambda: hanging.calls == STALLED_LIMIT)
    await released(batcher, hanging)
    assert batcher.healthy


async def test_where_it_runs(make: Make, gate: Gate, flavour: Flavour) -> None:
    """`dump` shows the batch, for how long it runs, and the line on which it waits."""
    batcher = make(gate.function(flavour))
    task = asyncio.create_task(batcher.process(1))
    await until(lambda: gate.started == 1)
    shown = batcher.dump()
    assert "a batch of 1 item runs, for " in shown
    assert ("in thread" if flavour == "sync" else "in task") in shown
    assert "gate.py" in shown
    gate.open()
    await task
    await until(lambda: batcher.dump() == repr(batcher))


async def test_what_was_given_up_is_shown(make: Make, hanging: Hanging) -> None:
    """Until it returns."""
    batcher = make(hanging.function("sync"), batch_timeout=SHORT)
    await hang(batcher)
    assert "a batch of 1 item was given up and hangs, for " in batcher.dump()
    await until(lambda: "released.wait()" in batcher.dump())
    await released(batcher, hanging)
    assert batcher.dump() == repr(batcher)


async def test_a_stop_ends(make: Make, hanging: Hanging) -> None:
    """It does not wait for a thread that hangs."""
    batcher = make(hanging.function("sync"), batch_timeout=SHORT)
    await hang(batcher)
    await batcher.stop()
    assert not await batcher.is_running()
    hanging.released.set()


def test_calls_of_threads(backend: str, hanging: Hanging) -> None:
    """They are told as coroutines are."""
    hanging.hangs = 2
    with create_batcher(backend, hanging.function("sync"), batch_timeout=SHORT) as batcher:
        with pytest.raises(BatchTimeoutError):
            batcher.call(1)
        with pytest.raises(BatchTimeoutError):
            batcher.submit(2).result()
        hanging.released.set()
