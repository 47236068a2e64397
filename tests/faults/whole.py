"""What a server had before a fault, and has to have again afterwards.

FAULT_REPEATS in the environment repeats the tests that depend on chance, each time with another seed.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.faults.client import FAULT_ROW, Answer, Client, request
from tests.support.gate import until
from tests.support.server import Server, serve

WARM_UP = 3
"""Requests before the fault."""

SEEDS = range(int(os.environ.get("FAULT_REPEATS", "1")))


@dataclass
class Whole:
    """What a server had before the fault."""

    server: Server
    descriptors: int
    threads: int
    tasks: int

    async def check(self) -> None:
        """One normal request works, nothing waits or runs, and no descriptor, thread or task is left."""
        client = Client(self.server.port)
        answer = await client.ask(request())
        assert answer is not None
        assert answer.status == 200, answer
        client.close()
        stats = await self.server.stats()
        assert (stats["queued"], stats["running"]) == (0, 0)
        process = psutil.Process(self.server.process.pid)
        await until(lambda: process.num_fds() <= self.descriptors)
        # Deadlines may have needed a second thread, to watch them while a batch ran.
        await until(lambda: process.num_threads() <= self.threads + 1)
        await until(lambda: tasks_of(self.server) <= self.tasks)


async def whole(server: Server) -> Whole:
    """Return what a server has after its first requests."""
    client = Client(server.port)
    for _ in range(WARM_UP):
        assert await client.ask(request()) is not None
    client.close()
    process = psutil.Process(server.process.pid)
    await until(lambda: all(each.status == psutil.CONN_LISTEN for each in process.net_connections("tcp")))
    return Whole(server, process.num_fds(), process.num_threads(), tasks_of(server))


def faulty(backend: str, fault: str = "", *arguments: str, **settings: str) -> AbstractContextManager[Server]:
    """Start a server with the emulated model, which has this fault; without one it is as good as any."""
    app = "benchmarks.faults.faulty:app"
    return serve(*arguments, app=app, BATCHER_BACKEND=backend, MODEL_CALL="emulated", FAULT=fault, **settings)


@dataclass
class Held:
    """A server whose only slot is taken: what comes waits until it is let go."""

    server: Server
    first: asyncio.Task[Answer | None]
    client: Client

    async def waits(self, count: int) -> None:
        """Wait until so many items are queued."""
        while (await self.server.stats())["queued"] != count:
            pass

    async def let_go(self) -> None:
        """Let all that waits run."""
        await release(self.server)
        answer = await self.first
        assert answer is not None
        assert answer.status == 200
        self.client.close()


async def release(server: Server) -> None:
    """Let one batch go that is held."""
    async with httpx.AsyncClient(base_url=server.url) as web:
        assert (await web.post("/release")).status_code == 200


async def hold(server: Server) -> Held:
    """Take the slot of a server with the fault `hold`."""
    client = Client(server.port)
    first = asyncio.create_task(client.ask(request(FAULT_ROW)))
    while (await server.stats())["running"] != 1:
        pass
    return Held(server, first, client)


async def all_accepted(server: Server, count: int) -> None:
    """Wait until the batcher has so many items, in batches or queued."""
    while True:
        stats = await server.stats()
        if stats["queued"] + stats["running"] == count:
            return


def tasks_of(server: Server) -> int:
    """Return how many tasks its loop has."""
    return int(httpx.get(f"{server.url}/tasks", headers={"Connection": "close"}).text)
