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
    """Give a server whose model takes 11 ms for one row at a time: requests wait in it."""
    with faulty(backend, BATCHER_MAX_BATCH_SIZE="1") as found:
        yield found
