"""Servers that are told to stop, are killed or frozen: what was accepted is answered by all but the killed."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections.abc import Collection
from contextlib import suppress

import httpx
import psutil
import pytest

from benchmarks.faults.client import FAULT_ROW, Client, LostError, request
from tests.faults.whole import SEEDS, WARM_UP, all_accepted, faulty, hold, tasks_of, whole
from tests.support.gate import until
from tests.support.server import Server

pytestmark = pytest.mark.anyio


async def is_ready(web: httpx.AsyncClient) -> bool:
    """Whether anybody answers, and says so."""
    try:
        return (await web.get("/readyz")).status_code == 200
    except httpx.ConnectError:
        return False


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_with_time_to_leave(backend: str, workers: str, seed: int) -> None:
    """Readiness is off at once, answers close their connections, and who honours that loses nothing."""
    settings = {"BATCHER_MAX_BATCH_SIZE": "8", "BATCHER_DRAIN_DELAY": "2"}
    with faulty(backend, "", "--workers", workers, **settings) as server:
        async with httpx.AsyncClient(base_url=server.url) as web:
            while not await is_ready(web):
                pass  # a supervisor says that it runs before its children do

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

        def says_no() -> bool:  # until the signal has come to each process that serves
            ready = httpx.get(f"{server.url}/readyz")
            return (ready.status_code, ready.headers.get("connection")) == (503, "close")

        await until(says_no)
        await asyncio.gather(*tasks)
        assert set(statuses) == {200}
        assert await asyncio.to_thread(server.wait) == 0
        assert all("INFO" in line for line in server.log), server.log


async def test_sigterm_twice(backend: str) -> None:
    """The second one ends the time to leave, and what was accepted is answered all the same."""
    settings = {"BATCHER_MAX_BATCH_SIZE": "1", "BATCHER_DRAIN_DELAY": "600"}
    with faulty(backend, **settings) as server:
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


@pytest.mark.parametrize("parser", ["httptools", "h11"])
@pytest.mark.parametrize("path", ["/predict", "/optimized_predict"])
async def test_sigterm_while_requests_wait(backend: str, parser: str, path: str) -> None:
    """Without any time to leave, too, each answer says that its connection ends: nobody uses it again."""
    with faulty(backend, "hold", "--http", parser) as server:
        usual = tasks_of(server)
        clients = [Client(server.port) for _ in range(30)]
        tasks = [asyncio.create_task(client.ask(request(FAULT_ROW, path=path))) for client in clients]
        _, late = await asyncio.open_connection("127.0.0.1", server.port)
        late.write(b"POST /release HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        if path == "/predict":
            await until(
                lambda: tasks_of(server) >= usual + 61
            )  # with one each that looks whether the client is there
        else:  # the direct path needs no tasks
            await all_accepted(server, len(clients))
            await until(lambda: tasks_of(server) > usual)
        server.terminate()
        await until(lambda: any("Waiting for connections" in line for line in server.log))
        late.write(b"30")
        for answer in await asyncio.gather(*tasks):
            assert answer is not None
            assert (answer.status, answer.closes) == (200, True)
        late.close()
        assert await asyncio.to_thread(server.wait) == 0


async def test_sigterm_during_a_batch_that_hangs(backend: str) -> None:
    """Its callers are told when its time is over, and the server ends."""
    with faulty(backend, "hang", BATCHER_BATCH_TIMEOUT="0.5") as server:
        client = Client(server.port)
        task = asyncio.create_task(client.ask(request(FAULT_ROW)))
        while not (await server.stats())["running"]:
            pass
        server.terminate()
        answer = await task
        assert answer is not None
        assert answer.status == 504
        assert await asyncio.to_thread(server.wait) == 0
        client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_nothing_ends(backend: str, number: signal.Signals) -> None:
    """Without any limit of its own: those who wait for a batch are told when the drain has taken too long.

    A client that reads nothing cannot keep the process.
    """
    with faulty(backend, "hang", BATCHER_DRAIN_TIMEOUT="0.5") as server, socket.socket() as deaf:
        clients = [Client(server.port) for _ in range(2)]
        rows = request(FAULT_ROW), request()
        tasks = []
        for client, row in zip(clients, rows, strict=True):
            tasks.append(asyncio.create_task(client.ask(row)))
            while not client.local_port:
                await asyncio.sleep(0)
        while (stats := await server.stats())["running"] + stats["queued"] < 2:
            pass
        deaf.connect(("127.0.0.1", server.port))
        deaf.setblocking(False)
        with suppress(BlockingIOError):  # what it asks for fills all buffers
            while True:
                deaf.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        server.process.send_signal(number)
        for answer in await asyncio.gather(*tasks):
            assert answer is not None
            assert answer.status == 503
            assert "retry-after" in answer.headers
        assert await asyncio.to_thread(server.wait) == 0


async def test_nothing_ends_alone(backend: str) -> None:
    """Calls of `/predict` that hang, and those that wait for their threads: all are told."""
    with faulty(backend, "hang", BATCHER_DRAIN_TIMEOUT="0.5") as server:
        usual = tasks_of(server)
        clients = [Client(server.port) for _ in range(60)]
        tasks = [asyncio.create_task(client.ask(request(FAULT_ROW, path="/predict"))) for client in clients]
        await until(lambda: tasks_of(server) >= usual + 120)
        server.terminate()
        for answer in await asyncio.gather(*tasks):
            assert answer is not None
            assert (answer.status, answer.closes) == (503, True)
            assert "retry-after" in answer.headers
        await until(lambda: any("Finished server process" in line for line in server.log))
        assert all("INFO" in line for line in server.log), server.log
        server.process.kill()  # its threads keep it


async def test_sigint_twice(backend: str) -> None:
    """The second one ends the server by force, whatever hangs, and long before the drain would give up."""
    with faulty(backend, "hang", BATCHER_DRAIN_TIMEOUT="3600") as server:
        client = Client(server.port)
        task = asyncio.create_task(client.ask(request(FAULT_ROW)))
        while not (await server.stats())["running"]:
            pass
        server.process.send_signal(signal.SIGINT)
        await until(lambda: any("Waiting for connections" in line for line in server.log))
        server.process.send_signal(signal.SIGINT)
        with suppress(LostError):
            await task
        assert await asyncio.to_thread(server.wait) in {0, -signal.SIGINT}


def connections_of(process: psutil.Process) -> set[int]:
    """Return the ports of the other ends of its connections."""
    return {connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr}


async def test_one_of_two_workers_is_killed(backend: str) -> None:
    """While 40 clients ask: only the requests that it had are lost; another one takes its place."""
    # The supervisor kills who does not answer it for so long: the frozen one must not be it.
    with faulty(backend, "", "--workers", "2", "--timeout-worker-healthcheck", "10") as server:
        supervisor = psutil.Process(server.process.pid)

        def workers() -> list[psutil.Process]:
            found = []
            for child in supervisor.children():
                with suppress(psutil.NoSuchProcess):  # it has just ended, and the supervisor has not seen it
                    if "resource_tracker" not in " ".join(child.cmdline()):
                        found.append(child)
            return found

        await until(lambda: len(workers()) == 2)
        clients = [Client(server.port) for _ in range(40)]
        answered = [0] * len(clients)
        lost: set[int] = set()
        over = False

        async def ask_on(number: int) -> None:
            client = clients[number]
            while not over:
                try:
                    answer = await client.ask(request())
                except LostError:
                    lost.add(client.last_port)
                else:
                    if answer is not None:  # None: one that the victim had not accepted, or nobody yet
                        assert answer.status == 200
                        answered[number] += 1
                if number % 2:
                    client.close()

        async def each_is_answered(caught: Collection[int] = ()) -> None:
            seen = [*answered]

            def fine(number: int) -> bool:
                return answered[number] >= seen[number] + 2 or clients[number].last_port in caught

            await until(lambda: all(fine(number) for number in range(len(clients))))

        tasks = [asyncio.create_task(ask_on(number)) for number in range(len(clients))]
        await each_is_answered()
        of_each = {worker: connections_of(worker) for worker in workers()}
        victim = max(of_each, key=lambda worker: len(of_each[worker]))
        victim.suspend()  # so that what it has stays with it, and is under way
        await until(lambda: victim.status() == psutil.STATUS_STOPPED)
        its_own = connections_of(victim)
        await each_is_answered(its_own)
        assert not lost
        victim.kill()
        await until(lambda: len(workers()) == 2 and victim not in workers())
        await each_is_answered()
        over = True
        await asyncio.gather(*tasks)
        for client in clients:
            client.close()
        assert lost
        assert lost <= its_own


async def test_a_server_that_is_frozen(slow: Server) -> None:
    """Nothing is lost, neither of what it had accepted nor of what comes meanwhile; time goes on for requests."""
    before = await whole(slow)
    held = await hold(slow)
    clients = [Client(slow.port) for _ in range(30)]
    tasks = [asyncio.create_task(client.ask(request())) for client in clients[:20]]
    await held.waits(20)
    hurried = Client(slow.port)
    late = asyncio.create_task(hurried.ask(request(headers="X-Request-Timeout: 2\r\n")))
    while (await slow.stats())["submitted"] < WARM_UP + 22:
        pass
    process = psutil.Process(slow.process.pid)
    slow.process.send_signal(signal.SIGSTOP)
    try:
        await until(lambda: process.status() == psutil.STATUS_STOPPED)
        tasks += [asyncio.create_task(client.ask(request())) for client in clients[20:]]
        await until(lambda: all(client.local_port for client in clients))
        await asyncio.sleep(3.0)  # the fault
        assert not any(task.done() for task in tasks)
    finally:
        slow.process.send_signal(signal.SIGCONT)
    for expired in (await late, await hurried.ask(request(headers="X-Request-Timeout: 0.02\r\n"))):
        assert expired is not None
        assert expired.status == 504
    await held.let_go()
    answers = await asyncio.gather(*tasks)
    assert {answer and answer.status for answer in answers} == {200}
    stats = await slow.stats()
    assert (stats["expired"], stats["completed"]) == (2, WARM_UP + 1 + 30)
    for client in (*clients, hurried):
        client.close()
    await before.check()
