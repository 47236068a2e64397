"""Clients that ask, wait, leave and measure as rudely as a fault test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

ROW = [0.5] * 10

FAULT_ROW = [13.0, *ROW[1:]]
"""The row that brings about the fault of a faulty server."""

OK, REFUSED = 200, 503
GAVE_UP = -1
"""In place of a status, where the client did not wait for one."""


def request(
    row: object = ROW, *, path: str = "/optimized_predict", headers: str = "", length: int | None = None
) -> bytes:
    """Return the bytes of a request with a row."""
    return post(json.dumps(row).encode(), path=path, headers=headers, length=length)


def post(body: bytes, *, path: str, headers: str = "", length: int | None = None) -> bytes:
    """Return the bytes of a request with any body; `length` is what it says of itself."""
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


class LostError(Exception):
    """A request was sent in full, and there was no answer."""


class Client:
    """One connection, opened when it is needed; a request is sent at most once."""

    def __init__(self, port: int) -> None:
        """Of a server on this port."""
        self.port = port
        self.last_port = 0  # of its own end, with the last connection
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes) -> Answer | None:
        """Send a request and return its answer; None: nobody accepted it. LostError: no answer came."""
        fresh = self._streams is None
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
                self.last_port = self.local_port
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
            raise LostError(msg) from None
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


class Answered(NamedTuple):
    """One request of an open loop."""

    moment: float
    """When it was to be sent, in seconds from the start of the loop."""

    status: int
    """0: no answer; `GAVE_UP`: the client had left by then."""

    seconds: float
    """From that moment to the answer."""

    retry_after: str


@dataclass
class Seen:
    """What open-loop callers saw."""

    answers: list[Answered] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        """How many answers had each status."""
        return Counter(answer.status for answer in self.answers)

    @property
    def latencies(self) -> list[float]:
        """Seconds of the answers with 200."""
        return [answer.seconds for answer in self.answers if answer.status == OK]

    @property
    def refusals(self) -> list[Answered]:
        """The answers with 503."""
        return [answer for answer in self.answers if answer.status == REFUSED]

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return self.statuses[0]


async def open_loop(
    port: int, rate: float, seconds: float, seed: int, *, data: bytes | None = None, patience: float | None = None
) -> Seen:
    """Send requests at Poisson moments, each as soon as its moment has come, whatever has become of the others.

    A client leaves after `patience` seconds without an answer; None: it waits for ever.
    """
    chance = random.Random(seed)
    seen = Seen()
    free: list[Client] = []
    body = request() if data is None else data
    start = time.monotonic()

    async def one(moment: float) -> None:
        client = free.pop() if free else Client(port)
        answer: Answer | None = None
        gone = False
        try:
            async with asyncio.timeout(patience):
                answer = await client.ask(body)
        except TimeoutError:
            client.close()
            gone = True
        except LostError:
            pass
        taken = time.monotonic() - moment
        if answer is not None:
            free.append(client)
            found = Answered(moment - start, answer.status, taken, answer.headers.get("retry-after", ""))
        else:
            found = Answered(moment - start, GAVE_UP if gone else 0, taken, "")
        seen.answers.append(found)

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
