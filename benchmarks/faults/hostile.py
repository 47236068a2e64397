"""Bodies that no client in its right mind sends, beside neighbours that send good ones."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter
from collections.abc import Callable

from .client import Answer, Client, LostError, post
from .result import Fault, FaultResult
from .servers import serve

ATTACKERS = 16
NEIGHBOURS = 4
PATIENCE = 1.0
"""Seconds for an answer: bad input is not to cost more."""

FEATURES = 10

KINDS_OF_STATUS = {2: "status 2xx", 4: "status 4xx", 5: "status 5xx"}
OTHER = "another status"

ODD = (
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 5000, "0x1", "01", "+1", ".5", "1.", "-", "-0"),
    *("true", "null", '"1"', '"NaN"', '"\\ud800"', '"\\u0000"', "[]", "{}", "[1.0]", '{"a": 1}', "1e-400"),
    *("9007199254740993", "1e308", "-1e308", "'1'", "\u0661", "\ufeff1", "1,,1", "1 1", "//", "undefined"),
)


def good_row(chance: random.Random) -> list[float]:
    """Return a row with a sum of its own."""
    return [chance.uniform(-1000, 1000) for _ in range(FEATURES)]


def bytes_of_any_kind(chance: random.Random) -> bytes:
    """Return no text at all."""
    return chance.randbytes(chance.randrange(300))


def odd_numbers(chance: random.Random) -> bytes:
    """Return an array of about the right length with something odd in it."""
    row = [str(number) for number in good_row(chance)]
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        row[chance.randrange(len(row))] = chance.choice(ODD)
    cut = row[: chance.choice([0, 1, 9, 10, 10, 10])] + ["1.0"] * chance.choice([0, 0, 0, 1, 1000])
    return f"[{','.join(cut)}]".encode("utf-8", "surrogatepass")


def changed(chance: random.Random) -> bytes:
    """Return a good body in which bytes were put in, left out or changed."""
    body = bytearray(json.dumps(good_row(chance)).encode())
    for _ in range(chance.choice([1, 1, 2, 8])):
        place = chance.randrange(len(body) + 1)
        body[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
    return bytes(body)


def nested(chance: random.Random) -> bytes:
    """Return brackets in brackets."""
    opening = chance.choice([b"[", b'{"a":', b"[[1],"])
    return opening * chance.choice([1, 2, 100, 3000, 60_000 // len(opening)]) + chance.choice([b"", b"1", b"]"])


def other_json(chance: random.Random) -> bytes:
    """Return JSON, but no array of numbers."""
    depth = chance.randrange(3)

    def value(left: int) -> object:
        kinds: list[Callable[[], object]] = [
            lambda: None,
            lambda: chance.choice([math.nan, math.inf, 0, -1.5, 10**300]),
            lambda: "".join(map(chr, chance.choices(range(0xD800 + 10), k=chance.randrange(9)))),
            lambda: chance.random() < 0.5,
        ]
        if left:
            kinds += [
                lambda: [value(left - 1) for _ in range(chance.randrange(4))],
                lambda: {str(number): value(left - 1) for number in range(chance.randrange(4))},
            ]
        return chance.choice(kinds)()

    return json.dumps(value(depth), ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def other_encoding(chance: random.Random) -> bytes:
    """Return a good body in an encoding that JSON does not have."""
    return json.dumps(good_row(chance)).encode(chance.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037"]))


KINDS = (bytes_of_any_kind, odd_numbers, odd_numbers, changed, changed, nested, other_json, other_encoding)


async def attack(port: int, path: str, fault: Fault) -> Counter[str]:
    """Send so many bodies to this path, while neighbours ask for what can be checked."""
    found: Counter[str] = Counter()
    over = asyncio.Event()

    async def ask(client: Client, body: bytes) -> Answer | str:
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await client.ask(post(body, path=path))
        except TimeoutError:
            client.close()
            return "no answer within a second"
        except LostError:
            return "connection closed without an answer"
        return answer if answer is not None else "connection refused or reset"

    async def attacker(number: int) -> None:
        chance = random.Random(f"{fault.seed} {number}")
        client = Client(port)
        for _ in range(fault.size // ATTACKERS):
            answer = await ask(client, chance.choice(KINDS)(chance))
            found["bodies"] += 1
            found[answer if isinstance(answer, str) else KINDS_OF_STATUS.get(answer.status // 100, OTHER)] += 1
        client.close()

    async def neighbour(number: int) -> None:
        chance = random.Random(f"{fault.seed} neighbour {number}")
        client = Client(port)
        while not over.is_set():
            row = good_row(chance)
            answer = await ask(client, json.dumps(row).encode())
            found["neighbours' requests"] += 1
            if isinstance(answer, str):
                found[answer] += 1
            elif answer.status != 200 or json.loads(answer.body) != sum(row):
                found["neighbours harmed"] += 1
        client.close()

    neighbours = [asyncio.create_task(neighbour(number)) for number in range(NEIGHBOURS)]
    await asyncio.gather(*(attacker(number) for number in range(ATTACKERS)))
    over.set()
    await asyncio.gather(*neighbours)
    return found


def run(fault: Fault) -> FaultResult:
    """Send so many bodies to one server."""
    with serve(fault.subject) as target:
        found = asyncio.run(attack(target.port, target.path, fault))
        target.check()
    order = (
        *("bodies", "status 2xx", "status 4xx", "status 5xx", "no answer within a second"),
        *("connection closed without an answer", "connection refused or reset", OTHER),
        *("neighbours' requests", "neighbours harmed"),
    )
    return FaultResult(fault=fault, figures={name: found[name] for name in order})
