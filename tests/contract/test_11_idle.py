"""Promise 11: idle costs nothing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from batchers import create_batcher
from tests.support.clocks import VirtualTime
from tests.support.gate import Flavour, Gate


@pytest.mark.parametrize("options", [{}, {"max_queue_time": 0.5}, {"timeout": 30.0}], ids=str)
def test_no_wake_up_while_the_queue_is_empty(time: VirtualTime, options: dict[str, Any]) -> None:
    """A thousand idle seconds after some work: nobody asks the core."""

    async def scenario() -> None:
        batcher = time.make(lambda items: items, **options)
        calls = asyncio.gather(*(batcher.process(n) for n in range(10)))
        await time.advance(1.0)
        assert await calls == list(range(10))
        before = time.wake_ups
        await time.advance(1000.0)
        assert time.wake_ups == before
        await batcher.stop()

    time.run(scenario())


def test_idle_threads_sleep(backend: str, flavour: Flavour) -> None:
    """The one test that lets real time pass: a second in which no thread of the batcher runs, not once."""
    gate = Gate()
    gate.open()
    before = set(threading.enumerate())
    with create_batcher(backend, gate.function(flavour), concurrency=2) as batcher:
        assert [batcher.submit(n).result() for n in range(10)] == list(range(10))
        threads = set(threading.enumerate()) - before

        def scheduled() -> list[str]:
            """Nanoseconds on a processor, waiting for one, and times that it got one, of each thread."""
            return [Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text() for thread in threads]

        # The first second may see the end of the work; one that polls is never quiet.
        for _ in range(10):
            at_first = scheduled()
            threading.Event().wait(1.0)
            if scheduled() == at_first:
                break
        else:
            pytest.fail("the threads of an idle batcher wake up")
