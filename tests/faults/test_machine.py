"""A machine without descriptors, memory or processor time, and with a clock that jumps."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from benchmarks.faults.client import ROW, Answer, Client, LostError, post, request
from tests.faults.whole import faulty, whole
from tests.support.children import PATIENCE, child
from tests.support.gate import until

pytestmark = pytest.mark.anyio


async def test_no_descriptors_left(backend: str) -> None:
    """Those who are connected are served; the others are when there are descriptors again, or were cut off.

    The log has no line for each of them.
    """
    with faulty(backend) as server:
        before = await whole(server)
        client = Client(server.port)
        assert await client.ask(request()) is not None
        process = psutil.Process(server.process.pid)
        most = process.num_fds() + 5
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (most, hard))
        lines = len(server.log)
        others = [Client(server.port) for _ in range(50)]
        tasks = [asyncio.create_task(other.ask(request())) for other in others]
        await until(lambda: process.num_fds() >= most)
        for _ in range(20):
            answer = await client.ask(request())
            assert answer is not None
            assert answer.status == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        served = [each for each in answers if isinstance(each, Answer)]
        assert len(served) >= 4
        assert {each.status for each in served} == {200}
        assert all(each is None or isinstance(each, Answer | LostError) for each in answers)
        fresh = Client(server.port)
        answer = await fresh.ask(request())
        assert answer is not None
        assert answer.status == 200
        assert sum("out of system resource" in line for line in server.log[lines:]) < 5
        for each in (*others, client, fresh):
            each.close()
        await before.check()


@contextmanager
def every_core_busy() -> Iterator[None]:
    """Let a process spin for each core that there is."""
    with ExitStack() as busy:
        for _ in os.sched_getaffinity(0):
            busy.enter_context(child([sys.executable, "-c", "while True: pass"]))
        yield


async def test_hardly_any_processor_time(backend: str) -> None:
    """With every core busy and the lowest priority, answers are late, but right; no watchdog bites."""
    settings = {"BATCHER_BATCH_TIMEOUT": "60", "BATCHER_TIMEOUT": "150"}
    with faulty(backend, **settings) as server:
        before = await whole(server)
        for thread in psutil.Process(server.process.pid).threads():
            psutil.Process(thread.id).nice(19)
        with every_core_busy():

            async def ask(number: int) -> None:
                client = Client(server.port)
                for place in range(5):
                    row = [float(number), float(place), *ROW[2:]]
                    answer = await client.ask(request(row))
                    assert answer is not None
                    assert (answer.status, float(answer.body)) == (200, sum(row))
                client.close()

            await asyncio.gather(*(ask(number) for number in range(20)))
        stats = await server.stats()
        assert (stats["stalled"], stats["expired"], stats["failed"]) == (0, 0, 0)
        await before.check()


async def test_a_clock_that_jumps(backend: str) -> None:
    """The wall clock goes back and forth by days at every look: no request has less time, or more, for that."""
    settings = {"BATCHER_TIMEOUT": "150", "BATCHER_BATCH_TIMEOUT": "150", "BATCHER_MAX_QUEUE_TIME": "0.01"}
    with faulty(backend, "clock", **settings) as server:
        before = await whole(server)
        days: set[str] = set()

        async def ask() -> None:
            client = Client(server.port)
            for _ in range(10):
                answer = await client.ask(request())
                assert answer is not None
                assert answer.status == 200
                days.add(answer.headers["date"].partition(" 202")[0])
            client.close()

        await asyncio.gather(*(ask() for _ in range(20)))
        asked = time.monotonic()
        while len(days) < 2:  # uvicorn looks at the clock once a second
            await ask()
            assert time.monotonic() - asked < PATIENCE, days
        hurried = Client(server.port)
        answer = await hurried.ask(request([13.0, *ROW[1:]], headers="X-Request-Timeout: 0.001\r\n"))
        assert answer is not None
        assert answer.status == 504
        hurried.close()
        stats = await server.stats()
        assert (stats["expired"], stats["stalled"]) == (1, 0)
        await before.check()


async def test_no_memory_left(backend: str) -> None:
    """Large bodies when nothing more can be had: they are refused or cut off, and the server goes on."""
    with faulty(backend, BATCHER_MAX_BODY_SIZE=str(10**9)) as server:
        before = await whole(server)
        process = psutil.Process(server.process.pid)
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
        little = process.memory_info().vms + 10_000_000
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (little, limits[1]))
        body = b"[" + b" " * 40_000_000 + b"]"

        async def ask() -> int:
            client = Client(server.port)
            try:
                answer = await client.ask(post(body, path="/optimized_predict"))
            except LostError:
                answer = None
            client.close()
            return answer.status if answer is not None else 0

        statuses = await asyncio.gather(*(ask() for _ in range(4)))
        assert set(statuses) <= {0, 400, 408, 503}, "no room for 40 MB, but one was read"
        # The log may say nothing of it: where the loop has no memory to read, it only closes the connection.
        assert server.process.poll() is None
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, limits)
        await before.check()
