"""Servers for fault tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.whole import faulty
from tests.support.server import Server


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio's loop: the loop under test is the server's."""
    return "asyncio"


@pytest.fixture
def slow(backend: str) -> Iterator[Server]:
    """Give a server whose model takes 11 ms for one row at a time, or as long as `hold` holds it."""
    with faulty(backend, "hold", BATCHER_MAX_BATCH_SIZE="1") as found:
        yield found


@pytest.fixture
def impatient(backend: str) -> Iterator[Server]:
    """Give a server that closes what rests for a second, so that all it says can be read to the end."""
    with faulty(backend, "", "--timeout-keep-alive", "1") as found:
        yield found
