"""A model that fails, hangs, or answers too little: its own callers are told, all others are served."""

from __future__ import annotations

import asyncio

import httpx
import psutil
import pytest

from benchmarks.faults.client import FAULT_ROW, Client, request
from tests.faults.whole import WARM_UP, faulty, release, tasks_of, whole
from tests.support.children import PATIENCE
from tests.support.gate import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("fault", ["size", "exit"])
async def test_a_model_that_fails(backend: str, fault: str) -> None:
    """The requests of that batch get 500, without a path or a trace; the next ones are served."""
    with faulty(backend, fault) as server:
        before = await whole(server)
        client = Client(server.port)
        answer = await client.ask(request(FAULT_ROW))
        assert answer is not None
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        client.close()
        await before.check()


async def test_a_model_that_fails_now_and_then(backend: str) -> None:
    """Every tenth batch: its requests fail, and no other."""
    with faulty(backend, "tenth", BATCHER_MAX_BATCH_SIZE="4") as server:
        before = await whole(server)
        statuses = []

        async def ask() -> None:
            client = Client(server.port)
            for _ in range(10):
                answer = await client.ask(request(FAULT_ROW))
                assert answer is not None
                statuses.append(answer.status)
            client.close()

        await asyncio.gather(*(ask() for _ in range(20)))
        assert set(statuses) == {200, 500}
        stats = await server.stats()
        assert stats["failed"] == statuses.count(500)
        batches = stats["batches"] - WARM_UP
        assert batches // 10 <= statuses.count(500) <= 4 * (batches // 10)
        await before.check()


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_model_that_hangs_alone(backend: str, leaves: bool) -> None:
    """Requests of `/predict` that expire, or whose clients leave, take no more threads than 40 in all."""
    with faulty(backend, "hold") as server:
        before = await whole(server)
        threads = psutil.Process(server.process.pid).num_threads
        limit = "" if leaves else "X-Request-Timeout: 0.05\r\n"
        alone = request(FAULT_ROW, path="/predict", headers=limit)
        for _ in range(3):
            clients = [Client(server.port) for _ in range(100)]
            tasks = [asyncio.create_task(client.ask(alone)) for client in clients]
            if leaves:
                await until(lambda: tasks_of(server) >= before.tasks + 200)  # with one each that looks
                for client in clients:
                    client.reset()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert leaves or {getattr(answer, "status", answer) for answer in found} == {504}
            await until(lambda: tasks_of(server) <= before.tasks)
            for client in clients:
                client.close()
        assert before.threads < threads() <= before.threads + 40
        for _ in range(40):
            await release(server)
        client = Client(server.port)
        answer = await client.ask(request(path="/predict"))
        assert answer is not None
        assert answer.status == 200
        client.close()


async def test_a_model_that_hangs(backend: str) -> None:
    """Its callers get 504, others are served; when too many hang, both probes turn red and all are told."""
    with faulty(backend, "hang", BATCHER_BATCH_TIMEOUT="0.3") as server:
        client = Client(server.port)
        late = 0
        for number in range(4):
            while (fine := await client.ask(request())) is not None and fine.status != 200:
                assert fine.status == 504
                late += 1  # on a busy machine; only the others hang
            answer = await client.ask(request(FAULT_ROW))
            assert answer is not None
            assert answer.status == 504
            while (await server.stats())["stalled"] != number + 1:
                pass
        refused = await client.ask(request())
        assert refused is not None
        assert refused.status == 504
        async with httpx.AsyncClient(base_url=server.url) as web:
            assert (await web.get("/readyz")).status_code == 503
            assert (await web.get("/healthz")).status_code == 503
        client.close()
        told = [line for line in server.log if "was given up" in line]
        assert len(told) == 4 + late
        assert any("threading.Event().wait()" in line for line in server.log), server.log
        server.terminate()
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0
