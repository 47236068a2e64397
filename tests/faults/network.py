"""A network for fault tests: it stands between clients and a server, and does to their bytes what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Trouble = Literal["none", "delay", "cut", "reset", "bytes", "half-open"]
Way = Literal["there", "back"]


@asynccontextmanager
async def network(port: int, trouble: Trouble, way: Way, seed: int) -> AsyncIterator[int]:
    """Stand between clients and a server, with trouble on the way there or back; yield the port for clients."""
    troubles: tuple[Trouble, Trouble] = (trouble, "none") if way == "there" else ("none", trouble)
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
            await asyncio.gather(pump(reader, back, troubles[0]), pump(there, writer, troubles[1]))
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
