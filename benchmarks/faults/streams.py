"""Hostile bytes on the socket: the direct path and uvicorn's own protocol answer them alike."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable

from .client import ROW, Client, LostError, post
from .hostile import KINDS as BODIES
from .result import Fault, FaultResult
from .servers import serve

logger = logging.getLogger("benchmarks")

WORKERS = 64
ROUNDS = 2
"""Good requests on another connection after a stream: then the server has seen to all that the stream brought."""

TRIES, PATIENCE = 8, 0.2
"""How often a stream is sent until the answers are the same, and the seconds for the answers of a repeat.

A reset, after bytes that a server has not read, drops what the client has not read yet: repeats send slowly.
"""
PART_SECONDS = 0.02

HEAD_LIMIT = 65_536

SAME, LONG_HEAD, EARLIER, DIFFERENT = (
    "the same answers",
    "the end of the connection after a head above 64 KiB, as named",
    "an earlier request refused as well, as named",
    "another difference",
)

PATH = b"/optimized_predict"
GOOD = json.dumps(ROW).encode()

LENGTHS = (
    *(b"Content-Length: %d\r\nContent-Length: %d\r\n", b"Content-Length: %d, %d\r\n"),
    *(
        b"Content-Length: +%d\r\nX-Y: %d\r\n",
        b"Content-Length : %d\r\nX-Y: %d\r\n",
        b"content-length:%d\r\nX-Y: %d\r\n",
    ),
    *(
        b"Content-Length: -%d\r\nX-Y: %d\r\n",
        b"Content-Length: 0%d\r\nX-Y: %d\r\n",
        b"Content-Length:\r\n %d\r\nX: %d\r\n",
    ),
    *(b"Content-Length: 0x%x\r\nX-Y: %d\r\n", b"Content-Length: %d.0\r\nX-Y: %d\r\n"),
    b"Content-Length: 99999999999999999999%d\r\nX-Y: %d\r\n",
)
ENCODINGS = (
    *(b"chunked", b"Chunked", b" chunked", b"chunked ", b"identity", b"chunked, identity", b"gzip, chunked"),
    *(b"xchunked", b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\nContent-Length: 3", b"\x0bchunked", b""),
)
SIZES = (
    b"%x",
    b"0x%x",
    b"+%x",
    b"-%x",
    b" %x",
    b"%x ",
    b"%x;a=b",
    b'%x;a="\r\n"',
    b"0%x",
    b"%x\r",
    b"fffffffffffffffff%x",
)
ODD_LINES = (
    *(b"X: a\r\n b", b"X : a", b" X: a", b"X", b": a", b"X: \x00", b"X: \xff\xfe", b"X: a\nY: b", b"X: a\rY: b"),
    *(b"Expect: 100-continue", b"Expect: x", b"Upgrade: h2c\r\nConnection: Upgrade", b"Upgrade: websocket"),
    *(b"Connection: close", b"Connection: keep-alive, close", b"X-Request-Timeout: 1", b"X-Request-Timeout: -1"),
    *(b"Content-Type: text/plain", b"Content-Type: application/json; charset=x", b"Content-Type:"),
    *(b"X-Forwarded-For: 1.1.1.1", b"Host: y", b"Trailer: X", b"TE: trailers", b"Cookie: " + b"a" * 5000),
)
FIRST_LINES = (
    *(b"POST %s HTTP/1.1", b"POST %s HTTP/1.0", b"POST %s HTTP/2.0", b"POST %s HTTP/1.2", b"post %s HTTP/1.1"),
    *(b"GET %s HTTP/1.1", b"PUT %s HTTP/1.1", b"DELETE %s HTTP/1.1", b"OPTIONS * HTTP/1.1", b"HEAD %s HTTP/1.1"),
    *(b"POST  %s HTTP/1.1", b"POST %s  HTTP/1.1", b"POST %s", b"POST\t%s\tHTTP/1.1", b"%s", b"POST %s HTTP/1.1 x"),
    *(b"POST http://x%s HTTP/1.1", b"POST //x%s HTTP/1.1", b"POST %s?a=b HTTP/1.1", b"POST %s# HTTP/1.1"),
    *(b"POST %s/../x HTTP/1.1", b"POST %s\xff HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"POST %s/ HTTP/1.1"),
    *(b"PRI * HTTP/2.0", b"\r\n\r\nPOST %s HTTP/1.1", b"\x16\x03\x01%s", b"POST " + b"/a" * 3000 + b"%s HTTP/1.1"),
)


def head(*lines: bytes, first: bytes = b"POST %s HTTP/1.1") -> bytes:
    """Return a head."""
    first = first.replace(b"%s", PATH)
    return b"\r\n".join((first, b"Host: x", *lines)) + b"\r\n\r\n"


def good(chance: random.Random) -> bytes:
    """Return a good request, or one whose body is hostile."""
    body = GOOD if chance.random() < 0.5 else chance.choice(BODIES)(chance)[:2000]
    return head(b"Content-Length: %d" % len(body)) + body


def odd_first_line(chance: random.Random) -> bytes:
    """Return a request whose first line is odd."""
    return head(b"Content-Length: %d" % len(GOOD), first=chance.choice(FIRST_LINES)) + GOOD


def odd_lines(chance: random.Random) -> bytes:
    """Return a request with odd headers."""
    lines = [b"Content-Length: %d" % len(GOOD), *chance.sample(ODD_LINES, chance.randrange(1, 4))]
    chance.shuffle(lines)
    return head(*lines) + GOOD


def odd_lengths(chance: random.Random) -> bytes:
    """Return a request that says two lengths, or an odd one; what follows may be taken for a request."""
    wrong = len(GOOD) + chance.choice([-40, -1, 0, 1, 30])
    lines = chance.choice(LENGTHS) % (len(GOOD), wrong)
    return head(lines[:-2]) + GOOD + chance.choice([b"", good(chance)])


def smuggled(chance: random.Random) -> bytes:
    """Return a request with another one in its body."""
    inner = good(chance)
    if chance.random() < 0.5:
        return head(b"Content-Length: %d" % len(inner), b"Transfer-Encoding: " + chance.choice(ENCODINGS)) + (
            b"0\r\n\r\n" + inner
        )
    return head(b"Content-Length: %d" % chance.choice([0, 5, len(inner)])) + inner


def chunked(chance: random.Random) -> bytes:
    """Return a request in parts, whose encoding, sizes or trailers may be odd."""
    body = GOOD if chance.random() < 0.7 else chance.choice(BODIES)(chance)[:2000]
    step = chance.choice([1, 7, 100])
    size = b"%x" if chance.random() < 0.6 else chance.choice(SIZES)
    parts = [body[place : place + step] for place in range(0, len(body), step)]
    encoding = b"chunked" if chance.random() < 0.6 else chance.choice(ENCODINGS)
    trailers = chance.choice([b"", b"", b"X: y\r\n", b"X" * 200 + b": y\r\n", b"Content-Length: 5\r\n", b"X\r\n"])
    joined = b"".join(
        size % len(part) + b"\r\n" + part + chance.choice([b"\r\n"] * 20 + [b"\n", b""]) for part in parts
    )
    return head(b"Transfer-Encoding: " + encoding) + joined + b"0\r\n" + trailers + b"\r\n"


def oversized(chance: random.Random) -> bytes:
    """Return a head of about 64 KiB, in one header or in many, or a body that is too large."""
    size = HEAD_LIMIT + chance.choice([-2000, -200, 200, 3000])
    kind = chance.randrange(3)
    if kind == 0:
        return head(b"X: " + b"a" * size, b"Content-Length: %d" % len(GOOD)) + GOOD
    if kind == 1:
        return head(*[b"X: " + b"a" * 96] * (size // 100), b"Content-Length: %d" % len(GOOD)) + GOOD
    return head(b"Content-Length: %d" % (size + 4000)) + b" " * (size + 4000)


def changed(chance: random.Random) -> bytes:
    """Return a request in which bytes were put in, left out or changed anywhere."""
    data = bytearray(chance.choice([good, odd_lines, chunked, smuggled])(chance))
    for _ in range(chance.choice([1, 1, 2, 8])):
        place = chance.randrange(len(data) + 1)
        data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
    return bytes(data)


def noise(chance: random.Random) -> bytes:
    """Return no HTTP at all."""
    return chance.randbytes(chance.randrange(1, 300))


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    *(good, odd_first_line, odd_lines, odd_lengths, smuggled, smuggled, chunked, chunked, changed, changed, noise),
)


def stream(chance: random.Random) -> list[bytes]:
    """Return what one connection sends, in parts: one to three requests, split anywhere, at every byte, or not."""
    requests = [chance.choice(KINDS)(chance) for _ in range(chance.choice([1, 1, 2, 3]))]
    if chance.random() < 0.03:
        requests.append(oversized(chance))
    data = b"".join(requests)
    if chance.random() < 0.1:
        data = data[: chance.randrange(1, len(data) + 1)]
    how = chance.random()
    if how < 0.05 and len(data) < 2000:
        return [data[place : place + 1] for place in range(len(data))]
    cuts = sorted(chance.sample(range(1, len(data)), min(chance.choice([0, 1, 1, 3]), len(data) - 1)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def told(received: bytes, *, closed: bool) -> tuple[object, ...]:
    """Return the answers in what was received, without what differs by chance: dates, and the last digits."""
    plain = re.sub(rb"(date|content-length): [^\r]*\r\n|retry-after: \d+\r\n", b"", received)
    answers: list[object] = []
    for part in plain.split(b"HTTP/1.1 ")[1:]:
        lines, _, body = part.partition(b"\r\n\r\n")
        status, *headers = lines.split(b"\r\n")
        answers.append((status, tuple(sorted(headers)), re.sub(rb"(\d\.\d{3})\d+", rb"\1", body)))
    return *answers, closed


async def ask(port: int, beside: Client, parts: list[bytes], wait: float) -> tuple[object, ...]:
    """Send a stream, and return the answers; what never has one is left after `wait` seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    received = bytearray()

    async def read() -> None:
        while data := await reader.read(65_536):
            received.extend(data)

    reading = asyncio.create_task(read())
    try:
        for part in parts:
            writer.write(part)
            if wait:
                await asyncio.wait((reading,), timeout=PART_SECONDS)
            else:
                await asyncio.sleep(0)
        for _ in range(ROUNDS):
            await beside.ask(post(GOOD, path=PATH.decode()))
        await asyncio.wait((reading,), timeout=wait)
        closed = reading.done()
    except (ConnectionError, LostError):
        closed = True
    reading.cancel()
    await asyncio.wait((reading,))
    writer.transport.abort()
    return told(bytes(received), closed=closed)


def difference_of(direct: set[tuple[object, ...]], asgi: set[tuple[object, ...]], size: int) -> str:
    """Return the name of the difference between the answers that the two protocols gave, in one try or another.

    `size` is that of the stream in bytes.
    """
    if direct & asgi:
        return SAME
    if size > HEAD_LIMIT and any(answers[-1] for answers in direct):  # it has closed the connection
        return LONG_HEAD
    if any(_has_all(one, other) for one in direct for other in asgi):
        return EARLIER
    return DIFFERENT


def _has_all(many: tuple[object, ...], few: tuple[object, ...]) -> bool:
    """Whether some answers are all among others, in their order."""
    rest = iter(many)
    return all(answer in rest for answer in few)


async def compare(ports: tuple[int, int], fault: Fault) -> Counter[str]:
    """Send so many streams to both servers, and count how the answers differ; log differences without a name."""
    found: Counter[str] = Counter()

    async def worker(number: int) -> None:
        beside = [Client(port) for port in ports]
        for index in range(number, fault.size, WORKERS):
            parts = stream(random.Random(f"{fault.seed} {index}"))
            seen: tuple[set[tuple[object, ...]], ...] = set(), set()
            for number_of_try in range(TRIES):
                for port, client, answers in zip(ports, beside, seen, strict=True):
                    answers.add(await ask(port, client, parts, PATIENCE if number_of_try else 0.0))
                if seen[0] & seen[1]:
                    break
            difference = difference_of(seen[0], seen[1], sum(map(len, parts)))
            if difference == DIFFERENT:
                logger.warning("%s\n  direct: %s\n  ASGI:   %s", parts, *seen)
            found[difference] += 1
        for client in beside:
            client.close()

    await asyncio.gather(*(worker(number) for number in range(WORKERS)))
    return found


def run(fault: Fault) -> FaultResult:
    """Send so many streams to the server with the direct path, and to the same one without."""
    model, seconds = "compiled", "60"
    with (
        serve(fault.subject, MODEL_CALL=model, BATCHER_BODY_TIMEOUT=seconds) as direct,
        serve(fault.subject, MODEL_CALL=model, BATCHER_BODY_TIMEOUT=seconds, BATCHER_DIRECT="false") as asgi,
    ):
        found = asyncio.run(compare((direct.port, asgi.port), fault))
        for target in (direct, asgi):
            target.check()
    figures = {name: found[name] for name in (SAME, LONG_HEAD, EARLIER, DIFFERENT)}
    return FaultResult(fault=fault, figures={"streams": fault.size, **figures})
