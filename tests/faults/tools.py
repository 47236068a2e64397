"""Clients and a network for fault tests: small, and as rude as the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

Trouble = Literal["none", "delay", "cut", "reset", "bytes", "half-open"]

ROW = [0.5] * 10


def request(
    row: object = ROW, *, path: str = "/optimized_predict", headers: str = "", length: int | None = None
) -> bytes:
    """Return the bytes of a request."""
    body = json.dumps(row).encode()
    size = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {size}"]
    head = "\r\n".join(lines) + f"\r\n{headers}\r\n"
    return head.encode() + body


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return self.headers.get("connection", "").lower() == "close"


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Return the next answer of a connection. IncompleteReadError, or ConnectionError, when there is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split()[1]), headers, body)


class Lost(Exception):
    """A request was sent in full, and there was no answer."""


class Client:
    """One connection, opened when it is needed; a request is sent at most once."""

    def __init__(self, port: int) -> None:
        """Of a server on this port."""
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes) -> Answer | None:
        """Send a request and return its answer; None: nobody accepted it. Lost: it was sent and not answered."""
        fresh = self._streams is None
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self._streams
            if reader.at_eof():
                self.close()
                return await self.ask(data)
            writer.write(data)
            await writer.drain()
        except ConnectionError:
            self.close()
            return None
        try:
            answer = await read_answer(reader)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.close()
            partial = getattr(error, "partial", b"")
            msg = f"{'a fresh' if fresh else 'a kept'} connection ended with {partial!r} instead of an answer"
            raise Lost(msg) from None
        if answer.closes:
            self.close()
        return answer

    @property
    def local_port(self) -> int:
        """The port of its own end; 0 without a connection."""
        return self._streams[1].get_extra_info("sockname")[1] if self._streams is not None else 0

    def close(self) -> None:
        """Leave."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def reset(self) -> None:
        """Leave without a word: the other side sees a reset."""
        if self._streams is not None:
            raw = self._streams[1].get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
            self._streams[1].transport.abort()
            self._streams = None


@dataclass
class Seen:
    """What open-loop callers saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    """Of answers with 200, from the moment at which the request was to be sent."""
    refusals: list[tuple[float, str]] = field(default_factory=list)
    """Seconds that each 503 took, and its Retry-After."""
    lost: int = 0


async def open_loop(port: int, rate: float, seconds: float, seed: int, data: bytes | None = None) -> Seen:
    """Send requests at Poisson moments, each as soon as its moment has come, whatever has become of the others."""
    chance = random.Random(seed)
    seen = Seen()
    free: list[Client] = []
    body = request() if data is None else data

    async def one(moment: float) -> None:
        client = free.pop() if free else Client(port)
        sent = time.monotonic()
        try:
            answer = await client.ask(body)
        except Lost:
            seen.lost += 1
            return
        if answer is None:
            seen.lost += 1
            return
        free.append(client)
        seen.statuses[answer.status] += 1
        now = time.monotonic()
        if answer.status == 200:
            seen.latencies.append(now - moment)
        elif answer.status == 503:
            seen.refusals.append((now - sent, answer.headers.get("retry-after", "")))

    start = time.monotonic()
    moment = start
    tasks = set()
    while (moment := moment + chance.expovariate(rate)) < start + seconds:
        delay = moment - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.create_task(one(moment))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.wait(tasks)
    for client in free:
        client.close()
    return seen


@asynccontextmanager
async def network(port: int, trouble: Trouble, seed: int) -> AsyncIterator[int]:
    """Stand between clients and a server, with trouble on the way to the server; yield the port for clients."""
    chance = random.Random(seed)
    connections: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Trouble) -> None:
        left = chance.randrange(20, 200)
        while data := await reader.read(4096):
            if kind == "delay":
                await asyncio.sleep(chance.random() * 0.05)
            if kind in {"cut", "reset", "half-open"}:
                data, left = data[:left], left - len(data)
            for part in (bytes([byte]) for byte in data) if kind == "bytes" else (data,):
                writer.write(part)
                await writer.drain()
            if left <= 0:
                if kind == "half-open":
                    await asyncio.sleep(0.3)
                if kind == "reset":
                    writer.transport.abort()
                break
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(pump(reader, back, trouble), pump(there, writer, "none"))
        finally:
            for each in (writer, back):
                each.close()
                with contextlib.suppress(ConnectionError):
                    await each.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(carry(reader, writer))
        connections.add(task)
        await asyncio.wait((task,))
        if not task.cancelled() and isinstance(task.exception(), Exception):
            assert isinstance(task.exception(), ConnectionError)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        running = [task for task in connections if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
