"""Batchers that another loop serves on a unix socket, and their clients."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchers import Batcher, create_batcher
from batchers.remote import BatcherServer, connect, serve
from tests.conftest import LOOPS
from tests.support.gate import Flavour, Gate
from tests.support.leaks import check_quiet


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder for sockets, with a short path."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


PAIRS = {"loop, served by threads": (LOOPS[0], "threading"), "uvloop, served by asyncio": (LOOPS[1], "asyncio")}
"""The loop of the client, and the backend of the served batcher: each once, because neither knows the other."""


@pytest.fixture(params=PAIRS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Give the event loop of the client."""
    return PAIRS[request.param][0]


@pytest.fixture
def backend(anyio_backend: Any) -> str:
    """Give the backend of the served batcher."""
    return next(backend for loop, backend in PAIRS.values() if loop is anyio_backend)


@pytest.fixture
def flavour(backend: str) -> Flavour:
    """Give the kind of batch function: each once, because the client does not know it."""
    return "sync" if backend == "threading" else "async"


@pytest.fixture
def served() -> list[tuple[Batcher[Any, Any], BatcherServer]]:
    """Give the batchers that `make` has served, with their servers."""
    return []


@pytest.fixture
async def make(
    backend: str, gate: Gate, folder: Path, served: list[tuple[Batcher[Any, Any], BatcherServer]]
) -> AsyncIterator[Callable[..., Any]]:
    """Make clients of batchers that another thread serves; in the place of the fixture for contract tests."""
    tasks = asyncio.all_tasks()
    clients: list[Batcher[Any, Any]] = []

    def make(function: Callable[[list[Any]], Any], **options: Any) -> Batcher[Any, Any]:
        codec = options.pop("codec", "pickle")
        names = ("convert", "group_by", "cost", "length", "timeout", "name")
        own = {name: options[name] for name in names if name in options}
        both = {name: value for name, value in options.items() if name not in {"convert", "group_by"}}
        batcher = create_batcher(backend, function, **both)
        server = serve(batcher, folder / f"{len(served)}.sock", codec=codec)
        server.__enter__()
        served.append((batcher, server))
        clients.append(connect(server.path, codec=codec, **own))
        return clients[-1]

    yield make
    gate.open()
    for client in clients:
        await client.stop()
    for batcher, server in served:
        await asyncio.to_thread(batcher.close)
        await asyncio.to_thread(server.close)
    check_quiet(tasks)
