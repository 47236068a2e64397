"""An open-loop client: `python -m benchmarks.latency.client JSON`, with an `Errand` in the JSON."""

from __future__ import annotations

import json
import random
import sys

import aiohttp
import uvloop
from pydantic import BaseModel, ConfigDict

from .open_loop import Arrivals, RefusedError, offer

SECONDS = 1.0
"""Time for an answer, as the original benchmark's users have it."""


class Errand(BaseModel):
    """Where to ask, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    arrivals: Arrivals


class Answers(BaseModel):
    """What the client saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latencies: list[float]
    failures: dict[str, int]
    lateness: list[float]


async def main(errand: Errand) -> Answers:
    """Ask."""
    chance = random.Random(errand.arrivals.seed)  # noqa: S311 - not for secrets
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def call() -> None:
            row = [chance.random() for _ in range(10)]
            async with session.post(errand.url, json=row) as response:
                body = await response.read()
                if response.status != 200:  # noqa: PLR2004 - the number of HTTP
                    raise RefusedError(f"status {response.status}")  # noqa: TRY003, EM102 - how it is counted
                if not isinstance(json.loads(body), float):
                    raise RefusedError("no float")  # noqa: TRY003, EM101

        seen = await offer(errand.arrivals, call)
    return Answers(latencies=seen.latencies, failures=seen.failures, lateness=seen.lateness)


if __name__ == "__main__":
    print(uvloop.run(main(Errand.model_validate_json(sys.argv[1]))).model_dump_json())  # noqa: T201 - its result
