"""Clients and networks that are slow, leave, or send what is no request: nobody else is harmed."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, suppress
from typing import get_args

import psutil
import pytest

from benchmarks.faults.client import FAULT_ROW, ROW, Client, LostError, post, read_answer, request
from tests.faults.network import Trouble, Way, network
from tests.faults.whole import SEEDS, WARM_UP, faulty, hold, release, tasks_of, whole
from tests.support.gate import until
from tests.support.server import Server

pytestmark = pytest.mark.anyio


async def test_clients_that_leave(slow: Server) -> None:
    """What waits for them never runs; the others are answered."""
    before = await whole(slow)
    held = await hold(slow)
    stay = [Client(slow.port) for _ in range(20)]
    tasks = [asyncio.create_task(client.ask(request())) for client in stay]
    leave = [Client(slow.port) for _ in range(30)]
    gone = [asyncio.create_task(client.ask(request())) for client in leave]
    await held.waits(50)
    for number, client in enumerate(leave):
        client.close() if number % 2 else client.reset()
    await held.waits(20)
    await held.let_go()
    assert {answer and answer.status for answer in await asyncio.gather(*tasks)} == {200}
    await asyncio.gather(*gone, return_exceptions=True)
    stats = await slow.stats()
    assert (stats["cancelled"], stats["completed"]) == (30, WARM_UP + 1 + 20)
    assert stats["batches"] == stats["completed"]
    for client in stay:
        client.close()
    await before.check()


async def test_clients_that_leave_during_their_batch(backend: str) -> None:
    """The batch goes on, for those who stay; who leaves when the answer is there is no loss for anybody."""
    with faulty(backend, "hold", BATCHER_MAX_BATCH_SIZE="8") as server:
        before = await whole(server)
        held = await hold(server)
        rows = [FAULT_ROW, *([float(number), *ROW[1:]] for number in range(7))]
        clients = [Client(server.port) for _ in rows]
        tasks = [asyncio.create_task(client.ask(request(row))) for client, row in zip(clients, rows, strict=True)]
        await held.waits(8)
        await held.let_go()
        while (await server.stats())["running"] != 8:
            pass
        for number, client in enumerate(clients[4:]):
            client.close() if number % 2 else client.reset()
        while (stats := await server.stats())["running"] != 4:
            pass
        assert stats["cancelled"] == 4
        await release(server)
        for answer, row in zip(await asyncio.gather(*tasks[:4]), rows, strict=False):
            assert answer is not None
            assert (answer.status, float(answer.body)) == (200, sum(row))
        await asyncio.gather(*tasks[4:], return_exceptions=True)
        for number, client in enumerate(clients[:4]):
            completed = (await server.stats())["completed"]
            last = asyncio.create_task(client.ask(request()))
            while (await server.stats())["completed"] == completed:
                pass
            client.close() if number % 2 else client.reset()
            await asyncio.gather(last, return_exceptions=True)
        stats = await server.stats()
        assert (stats["cancelled"], stats["completed"]) == (4, WARM_UP + 1 + 4 + 4)
        await before.check()


async def test_slow_clients(backend: str) -> None:
    """Half of a head, or of a body, holds nobody else; bodies that do not come are 408, heads are closed."""
    # As long as a good client may take on a busy machine between its connection and its request.
    times = {"BATCHER_BODY_TIMEOUT": "2", "BATCHER_HEAD_TIMEOUT": "2"}
    with faulty(backend, **times) as server:
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
    held = await hold(slow)
    clients = [Client(slow.port) for _ in range(30)]
    tasks = [asyncio.create_task(client.ask(request())) for client in clients]
    await held.waits(30)
    hurried = Client(slow.port)
    answer = await hurried.ask(request(headers="X-Request-Timeout: 0.02\r\n"))
    assert answer is not None
    assert answer.status == 504
    for text in ("soon", "0", "-1", "nan", "inf", ""):
        wrong = await hurried.ask(request(headers=f"X-Request-Timeout: {text}\r\n"))
        assert wrong is not None
        assert wrong.status == 422
        assert b"x-request-timeout" in wrong.body
    await held.let_go()
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
async def test_shapes_of_requests(impatient: Server, data: bytes, status: int | None) -> None:
    """Each is refused, or answered as what it is, once; never with 500, and the next client is served."""
    before = await whole(impatient)
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
    writer.write(data)
    with suppress(OSError):  # a server that has refused it may have closed the connection
        await writer.drain()
        writer.write_eof()
    found = bytearray()
    with suppress(ConnectionError):  # a server that closes with bytes unread resets
        while part := await reader.read(65536):
            found += part
    statuses = [int(part[:3]) for part in bytes(found).split(b"HTTP/1.1 ")[1:]]
    assert len(statuses) <= 1, found
    if status is not None:
        assert statuses == [status], found
    assert not {code for code in statuses if code >= 500}
    writer.close()
    await before.check()


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("parser", ["httptools", "h11"])
async def test_a_client_that_offers_http_2(backend: str, parser: str, pieces: int) -> None:
    """As Java's does: it is told why its body was not read, if it was not; the next client is served."""
    offer = request(headers="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
    with faulty(backend, "", "--http", parser) as server:
        before = await whole(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        end = offer.index(b"[") if pieces == 2 else len(offer)
        writer.write(offer[:end])
        await writer.drain()
        await server.stats()  # a way there and back: the head has come alone
        writer.write(offer[end:])
        answer = await read_answer(reader)
        if parser == "h11":
            assert (answer.status, float(answer.body)) == (200, sum(ROW))
        else:
            assert (answer.status, answer.closes) == (422, True)
            assert b"--http h11" in answer.body
        writer.close()
        await before.check()


@pytest.mark.parametrize(
    ("line", "status"),
    [("POST /optimized_predict", 422), ("POST /other", 404), ("GET /healthz", 200)],
    ids=["refused", "unknown", "answered"],
)
async def test_a_body_that_looks_like_a_request(backend: str, line: str, status: int) -> None:
    """Where it was not read, for an upgrade that was offered, it is not taken for one: there is one answer."""
    body = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    offer = post(body, path="/", headers="X-Request-Timeout: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n")
    offer = offer.replace(b"POST /", line.encode())
    with faulty(backend) as server:
        before = await whole(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(offer.removesuffix(body))
        await writer.drain()
        await server.stats()  # a way there and back: the head has come alone
        writer.write(body)
        answer = await read_answer(reader)
        assert (answer.status, answer.closes) == (status, True)
        with suppress(ConnectionError):  # a server that closes with bytes unread resets
            assert await reader.read() == b""
        writer.close()
        await before.check()


async def test_clients_that_read_nothing(backend: str) -> None:
    """What they have asked for, and do not take, holds nobody else up; when they have left it is forgotten."""
    with faulty(backend) as server, ExitStack() as deaf:
        before = await whole(server)
        for _ in range(10):
            raw = deaf.enter_context(socket.socket())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", server.port))
            raw.setblocking(False)
            with suppress(BlockingIOError):  # all that goes in
                for _ in range(10):
                    raw.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        await until(lambda: tasks_of(server) >= before.tasks + 10)
        client = Client(server.port)
        for _ in range(20):
            answer = await client.ask(request())
            assert answer is not None
            assert answer.status == 200
        client.close()
        assert tasks_of(server) == before.tasks + 10, "they did not fill what there is between them and the server"
        deaf.close()
        await before.check()


async def test_requests_in_one_piece(backend: str) -> None:
    """Each of them is answered, in their order, with its own prediction; the last one may be cut in the middle."""
    with faulty(backend) as server:
        before = await whole(server)
        rows = [[float(number), *ROW[1:]] for number in range(20)]
        data = b"".join(request(row) for row in rows)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data[:-7])
        await writer.drain()
        writer.write(data[-7:])
        answers = [await read_answer(reader) for _ in rows]
        assert [(answer.status, float(answer.body)) for answer in answers] == [(200, sum(row)) for row in rows]
        writer.close()
        await before.check()


async def test_a_body_without_end(backend: str) -> None:
    """It is refused when it is too large, and takes no more memory than two bodies of the size allowed."""
    largest = 20_000_000
    with faulty(backend, BATCHER_MAX_BODY_SIZE=str(largest)) as server:
        before = await whole(server)
        memory = psutil.Process(server.process.pid).memory_info
        usual = most = memory().rss
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /optimized_predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = asyncio.create_task(read_answer(reader))
        with suppress(ConnectionError):
            while not answer.done():
                writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                await writer.drain()
                most = max(most, memory().rss)
        assert (await answer).status == 413
        assert most - usual < 2 * largest
        writer.close()
        await before.check()


@pytest.mark.parametrize("trouble", get_args(Trouble))
@pytest.mark.parametrize("way", get_args(Way))
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_bad_network(slow: Server, trouble: Trouble, way: Way, seed: int) -> None:
    """Whatever happens on the way there or back, who was not cut off is answered, and the server is whole."""
    before = await whole(slow)
    async with network(slow.port, trouble, way, seed) as port:

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
        assert set(statuses) <= ({0, 200, 400, 408, 422} if way == "there" else {0, 200})
        if trouble in {"none", "delay", "bytes"}:
            assert set(statuses) == {200}
    await before.check()
