"""What breaks, and what must hold then: every accepted request is answered, and the server is whole afterwards.

FAULT_REPEATS in the environment repeats what depends on chance, each time with another seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

import httpx
import psutil
import pytest

from benchmarks.faults.client import ROW, Client, LostError, open_loop, read_answer, request
from tests.faults.network import Trouble, network
from tests.support.gate import until
from tests.support.server import PATIENCE, Server, serve

# The start of a server is no part of a test: it has a limit of its own.
pytestmark = [pytest.mark.fault, pytest.mark.anyio, pytest.mark.timeout(60, func_only=True)]

REPEATS = int(os.environ.get("FAULT_REPEATS", "1"))
SEEDS = range(REPEATS)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio's loop: the loop under test is the server's."""
    return "asyncio"


@dataclass
class Whole:
    """What a server had before the fault."""

    server: Server
    descriptors: int
    threads: int

    async def check(self) -> None:
        """One normal request works, nothing waits or runs, and no descriptor or thread is left."""
        client = Client(self.server.port)
        answer = await client.ask(request())
        assert answer is not None
        assert answer.status == 200, answer
        client.close()
        stats = await self.server.stats()
        assert (stats["queued"], stats["running"]) == (0, 0)
        process = psutil.Process(self.server.process.pid)
        await until(lambda: process.num_fds() <= self.descriptors + 1)
        await until(lambda: process.num_threads() <= self.threads + 1)


async def whole(server: Server) -> Whole:
    """Return what a server has after its first requests."""
    client = Client(server.port)
    for _ in range(3):
        assert await client.ask(request()) is not None
    client.close()
    process = psutil.Process(server.process.pid)
    return Whole(server, process.num_fds(), process.num_threads())


@pytest.fixture
def slow(backend: str) -> Iterator[Server]:
    """Give a server whose model takes 11 ms for one row at a time: requests wait in it."""
    with serve(BATCHER_BACKEND=backend, MODEL_CALL="emulated", BATCHER_MAX_BATCH_SIZE="1") as found:
        yield found


def faulty(backend: str, fault: str, **settings: str) -> object:
    """Start a server with a model that has this fault."""
    app = "benchmarks.faults.faulty:app"
    return serve(app=app, BATCHER_BACKEND=backend, MODEL_CALL="emulated", FAULT=fault, **settings)


# Stopping


@pytest.mark.parametrize("seed", SEEDS)
async def test_sigterm_with_time_to_leave(backend: str, seed: int) -> None:
    """Readiness is off at once, answers close their connections, and who honours that loses nothing."""
    settings = {"MODEL_CALL": "emulated", "BATCHER_MAX_BATCH_SIZE": "8", "BATCHER_DRAIN_DELAY": "1"}
    with serve(BATCHER_BACKEND=backend, **settings) as server:
        statuses: list[int] = []

        async def ask_until_told() -> None:
            client = Client(server.port)
            while True:
                answer = await client.ask(request())
                assert answer is not None, "the listener was closed too early"
                statuses.append(answer.status)
                if answer.closes:
                    return

        tasks = [asyncio.create_task(ask_until_told()) for _ in range(50)]
        moment = random.Random(seed).randrange(50, 400)
        await until(lambda: len(statuses) >= moment)
        server.terminate()
        await asyncio.gather(*tasks)
        async with httpx.AsyncClient(base_url=server.url) as client:
            ready = await client.get("/readyz")
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        assert set(statuses) == {200}
        assert await asyncio.to_thread(server.wait) == 0
        assert all("INFO" in line for line in server.log), server.log


async def test_sigterm_twice(backend: str) -> None:
    """The second one ends the time to leave, and what was accepted is answered all the same."""
    settings = {"MODEL_CALL": "emulated", "BATCHER_MAX_BATCH_SIZE": "1", "BATCHER_DRAIN_DELAY": "30"}
    with serve(BATCHER_BACKEND=backend, **settings) as server:
        clients = [Client(server.port) for _ in range(30)]
        tasks = [asyncio.create_task(client.ask(request())) for client in clients]
        while (await server.stats())["submitted"] < 30:
            pass
        server.terminate()
        await until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        server.terminate()
        answers = await asyncio.gather(*tasks)
        assert {answer and answer.status for answer in answers} == {200}
        assert await asyncio.to_thread(server.wait) == 0
        for client in clients:
            client.close()


async def test_sigterm_during_a_batch_that_hangs(backend: str) -> None:
    """Its callers are told when its time is over, and the server ends."""
    with faulty(backend, "hang", BATCHER_BATCH_TIMEOUT="0.5") as server:  # type: ignore[attr-defined]
        client = Client(server.port)
        task = asyncio.create_task(client.ask(request([13.0] * 10)))
        while not (await server.stats())["running"]:
            pass
        server.terminate()
        answer = await task
        assert answer is not None
        assert answer.status == 504
        assert await asyncio.to_thread(server.wait) == 0
        client.close()


async def test_one_of_two_workers_is_killed(backend: str) -> None:
    """Only its own requests fail; another one takes its place."""
    with serve("--workers", "2", BATCHER_BACKEND=backend, MODEL_CALL="emulated") as server:
        supervisor = psutil.Process(server.process.pid)

        def workers() -> list[psutil.Process]:
            found = []
            for child in supervisor.children():
                with suppress(psutil.NoSuchProcess):  # it has just ended, and the supervisor has not seen it
                    if "resource_tracker" not in " ".join(child.cmdline()):
                        found.append(child)
            return found

        await until(lambda: len(workers()) == 2)
        clients = [Client(server.port) for _ in range(20)]
        for client in clients:
            while await client.ask(request()) is None:
                pass  # the supervisor says that it runs before its children do
        victim = workers()[0]
        its_own = {connection.raddr.port for connection in victim.net_connections() if connection.raddr}
        victim.kill()
        for client in clients:
            port = client.local_port
            try:
                answer = await client.ask(request())
            except LostError:
                assert port in its_own
            else:
                assert answer is None or answer.status == 200
                assert answer is not None or port in its_own
        await until(lambda: len(workers()) == 2 and victim not in workers())
        for client in clients:
            client.close()
            while (fresh := await client.ask(request())) is None:
                pass  # the other one may still start
            assert fresh.status == 200
            client.close()


async def test_a_server_that_is_frozen(slow: Server) -> None:
    """Nothing is lost: requests are answered when it goes on."""
    before = await whole(slow)
    clients = [Client(slow.port) for _ in range(20)]
    tasks = [asyncio.create_task(client.ask(request())) for client in clients]
    slow.process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.wait(tasks, timeout=0.5)
    finally:
        slow.process.send_signal(signal.SIGCONT)
    answers = await asyncio.gather(*tasks)
    assert {answer and answer.status for answer in answers} == {200}
    for client in clients:
        client.close()
    await before.check()


# Clients


async def test_clients_that_leave(slow: Server) -> None:
    """What waits for them never runs; the others are answered."""
    before = await whole(slow)
    first = (await slow.stats())["batches"]
    stay = [Client(slow.port) for _ in range(20)]
    tasks = [asyncio.create_task(client.ask(request())) for client in stay]
    while (await slow.stats())["queued"] < 10:
        pass
    leave = [Client(slow.port) for _ in range(30)]
    gone = [asyncio.create_task(client.ask(request())) for client in leave]
    while (await slow.stats())["submitted"] < first + 50:
        pass
    for number, client in enumerate(leave):
        client.close() if number % 2 else client.reset()
    assert {answer and answer.status for answer in await asyncio.gather(*tasks)} == {200}
    await asyncio.gather(*gone, return_exceptions=True)
    stats = await slow.stats()
    assert stats["cancelled"] + stats["completed"] == stats["submitted"]
    assert stats["cancelled"] >= 20
    assert stats["batches"] <= first + 50 - 20
    for client in stay:
        client.close()
    await before.check()


async def test_slow_clients(backend: str) -> None:
    """Half of a head, or of a body, holds nobody else; bodies that do not come are 408, heads are closed."""
    times = {"BATCHER_BODY_TIMEOUT": "0.3", "BATCHER_HEAD_TIMEOUT": "0.4"}
    with serve(BATCHER_BACKEND=backend, MODEL_CALL="emulated", **times) as server:
        before = await whole(server)
        heads: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        bodies: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for number in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            half = request()[:30] if number % 2 else request()[:-5]
            writer.write(half)
            (heads if number % 2 else bodies).append((reader, writer))
        client = Client(server.port)
        for _ in range(20):
            answer = await client.ask(request())
            assert answer is not None
            assert answer.status == 200
        for reader, _ in bodies:
            slow = await read_answer(reader)
            assert (slow.status, slow.closes) == (408, True)
        silent = await asyncio.open_connection("127.0.0.1", server.port)
        begun = await asyncio.open_connection("127.0.0.1", server.port)
        begun[1].write(request())
        assert (await read_answer(begun[0])).status == 200
        begun[1].write(request()[:30])
        heads += [silent, begun]
        for reader, _ in heads:
            assert await reader.read() == b""
        kept = client.local_port
        again = await client.ask(request())
        assert again is not None
        assert client.local_port == kept, "a connection that only rested was closed"
        client.close()
        for _, writer in heads + bodies:
            writer.close()
        await before.check()


async def test_time_limits_of_requests(slow: Server) -> None:
    """A request that has too little time is told so, and never runs; one that says nonsense is refused."""
    before = await whole(slow)
    clients = [Client(slow.port) for _ in range(30)]
    tasks = [asyncio.create_task(client.ask(request())) for client in clients]
    while (await slow.stats())["queued"] < 20:
        pass
    hurried = Client(slow.port)
    answer = await hurried.ask(request(headers="X-Request-Timeout: 0.02\r\n"))
    assert answer is not None
    assert answer.status == 504
    for text in ("soon", "0", "-1", "nan", "inf", ""):
        wrong = await hurried.ask(request(headers=f"X-Request-Timeout: {text}\r\n"))
        assert wrong is not None
        assert wrong.status == 422
        assert b"x-request-timeout" in wrong.body
    assert {answer and answer.status for answer in await asyncio.gather(*tasks)} == {200}
    stats = await slow.stats()
    assert (stats["expired"], stats["batches"]) == (1, stats["completed"])
    for client in (*clients, hurried):
        client.close()
    await before.check()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(length=10**9), 413),
        (request(headers="Transfer-Encoding: chunked\r\n"), 400),
        (request(headers="Content-Length: 3\r\n"), 400),
        (request(headers="Content-Encoding: gzip\r\n").replace(b"[0.5", b"\x1f\x8b\x08\x00"), 422),
        (b"POST /optimized_predict HTTP/1.1\nHost: x\n\n", None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST /optimized_predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /optimized_predict HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", None),
    ],
    ids=["huge", "both-lengths", "two-lengths", "gzip", "bare-lf", "tls", "version", "negative", "long-header"],
)
async def test_shapes_of_requests(slow: Server, data: bytes, status: int | None) -> None:
    """Each is refused, or answered as what it is, once; never with 500, and the next client is served."""
    before = await whole(slow)
    reader, writer = await asyncio.open_connection("127.0.0.1", slow.port)
    writer.write(data)
    with suppress(ConnectionError):
        await writer.drain()
        writer.write_eof()
    with suppress(ConnectionError):
        found = await reader.read(65536)
        statuses = [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]]
        assert len(statuses) <= 1, found
        if status is not None:
            assert statuses == [status], found
        assert not {code for code in statuses if code >= 500}
    writer.close()
    await before.check()


async def test_a_body_without_end(slow: Server) -> None:
    """It is refused when it is too large, long before there is no memory left."""
    before = await whole(slow)
    reader, writer = await asyncio.open_connection("127.0.0.1", slow.port)
    writer.write(b"POST /optimized_predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        for _ in range(1000):
            writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
            await writer.drain()
            if reader._buffer:  # type: ignore[attr-defined]  # an answer has come
                break
        assert (await read_answer(reader)).status == 413
    writer.close()
    await before.check()


@pytest.mark.parametrize("trouble", get_args(Trouble))
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_bad_network(slow: Server, trouble: Trouble, seed: int) -> None:
    """Whatever happens on the way, who was not cut off is answered, and the server is whole."""
    before = await whole(slow)
    async with network(slow.port, trouble, seed) as port:

        async def ask() -> int:
            client = Client(port)
            try:
                answer = await client.ask(request())
            except LostError:
                return 0
            finally:
                client.close()
            return answer.status if answer else 0

        statuses = await asyncio.gather(*(ask() for _ in range(30)))
        assert set(statuses) <= {0, 200, 400, 408, 422}
        if trouble in {"none", "delay", "bytes"}:
            assert set(statuses) == {200}
    await before.check()


# Load


@pytest.mark.parametrize("seed", SEEDS)
async def test_ten_times_too_much(backend: str, seed: int) -> None:
    """Every request is answered: with a prediction, or with 503 and a time; then all is as before."""
    settings = {"MODEL_CALL": "emulated", "BATCHER_MAX_BATCH_SIZE": "1", "BATCHER_MAX_QUEUE_SIZE": "8"}
    with serve(BATCHER_BACKEND=backend, **settings) as server:
        before = await whole(server)
        seen = await open_loop(server.port, 900.0, 2.0, seed)
        assert set(seen.statuses) == {200, 503}
        assert seen.lost == 0
        assert all(int(refusal.retry_after) >= 1 for refusal in seen.refusals)
        await before.check()


async def test_no_descriptors_left(backend: str) -> None:
    """Those who are connected are served; the others when there are descriptors again."""
    with serve(BATCHER_BACKEND=backend, MODEL_CALL="emulated") as server:
        before = await whole(server)
        client = Client(server.port)
        assert await client.ask(request()) is not None
        used = psutil.Process(server.process.pid).num_fds()
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 5, hard))
        others = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        answer = await client.ask(request())
        assert answer is not None
        assert answer.status == 200
        for _, writer in others:
            writer.close()
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        client.close()
        await before.check()


# The model


@pytest.mark.parametrize("fault", ["size", "exit"])
async def test_a_model_that_fails(backend: str, fault: str) -> None:
    """The requests of that batch get 500, without a path or a trace; the next ones are served."""
    with faulty(backend, fault) as server:  # type: ignore[attr-defined]
        before = await whole(server)
        client = Client(server.port)
        answer = await client.ask(request([13.0, *ROW[1:]]))
        assert answer is not None
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        client.close()
        await before.check()


async def test_a_model_that_fails_now_and_then(backend: str) -> None:
    """One batch in ten: its requests fail, and no other."""
    with faulty(backend, "tenth", BATCHER_MAX_BATCH_SIZE="4") as server:  # type: ignore[attr-defined]
        before = await whole(server)
        statuses = []

        async def ask() -> None:
            client = Client(server.port)
            for _ in range(10):
                answer = await client.ask(request())
                assert answer is not None
                statuses.append(answer.status)
            client.close()

        await asyncio.gather(*(ask() for _ in range(20)))
        assert set(statuses) == {200, 500}
        stats = await server.stats()
        assert stats["failed"] == statuses.count(500)
        while (
            await asyncio.to_thread(httpx.post, f"{server.url}/optimized_predict", json=ROW)
        ).status_code == 500:
            pass
        await before.check()


async def test_a_model_that_hangs(backend: str) -> None:
    """Its callers get 504, others are served; when too many hang, readiness turns red and all are told at once."""
    with faulty(backend, "hang", BATCHER_BATCH_TIMEOUT="0.3") as server:  # type: ignore[attr-defined]
        client = Client(server.port)
        for number in range(4):
            fine = await client.ask(request())
            assert fine is not None
            assert fine.status == 200
            answer = await client.ask(request([13.0] * 10))
            assert answer is not None
            assert answer.status == 504
            assert (await server.stats())["stalled"] == number + 1
        refused = await client.ask(request())
        assert refused is not None
        assert refused.status == 504
        async with httpx.AsyncClient(base_url=server.url) as web:
            assert (await web.get("/readyz")).status_code == 503
            assert (await web.get("/healthz")).status_code == 200
        client.close()
        server.terminate()
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0
