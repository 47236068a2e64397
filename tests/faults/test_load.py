"""More requests than can be served: each is answered, with a prediction or with a time to come again."""

from __future__ import annotations

import asyncio
import random

import pytest

from benchmarks.faults.client import Client, open_loop, request
from tests.faults.whole import SEEDS, faulty, whole

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", SEEDS)
async def test_ten_times_too_much(backend: str, seed: int) -> None:
    """Every request is answered: with a prediction, or with 503 and a time; then all is as before."""
    settings = {"BATCHER_MAX_BATCH_SIZE": "1", "BATCHER_MAX_QUEUE_SIZE": "8"}
    with faulty(backend, **settings) as server:
        before = await whole(server)
        seen = await open_loop(server.port, 900.0, 2.0, seed)
        assert set(seen.statuses) == {200, 503}
        assert seen.lost == 0
        assert all(int(refusal.retry_after) >= 1 for refusal in seen.refusals)
        await before.check()


@pytest.mark.parametrize("seed", SEEDS)
async def test_clients_that_come_again_at_once(backend: str, seed: int) -> None:
    """Whoever is refused, and asks again and again, has an answer in the end; then all is as before."""
    settings = {"BATCHER_MAX_BATCH_SIZE": "2", "BATCHER_MAX_QUEUE_SIZE": "4"}
    with faulty(backend, **settings) as server:
        before = await whole(server)

        async def ask_until_answered(number: int) -> int:
            client = Client(server.port)
            row = [float(number), *random.Random(seed).choices(range(100), k=9)]
            refusals = 0
            while True:
                answer = await client.ask(request(row))
                assert answer is not None
                if answer.status == 200:
                    assert float(answer.body) == sum(row)
                    client.close()
                    return refusals
                assert (answer.status, answer.headers["retry-after"].isdigit()) == (503, True)
                refusals += 1

        assert sum(await asyncio.gather(*(ask_until_answered(number) for number in range(60)))) > 0
        stats = await server.stats()
        assert stats["completed"] == stats["submitted"] - stats["rejected"]
        await before.check()
