"""What lives as long as the server, without a server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from batchers import BatcherStoppedError
from batchers.serving.application import ModelService
from batchers.serving.models import Model
from server.model import Emulated
from server.settings import read_settings
from tests.support.children import PATIENCE


class Held(Emulated):
    """A model that answers when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.called = threading.Event()
        self.released = threading.Event()

    def predict(self, rows: list[list[float]]) -> list[Any]:
        self.called.set()
        self.released.wait(PATIENCE)
        return super().predict(rows)


@pytest.mark.parametrize("backend", ["threading", "asyncio"])
async def test_the_loop_ends_as_the_service_gives_up(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of uvicorn cancels each task, also that of the giving up; stopping does not drain all the same."""
    monkeypatch.setenv("BATCHER_BACKEND", backend)
    monkeypatch.setenv("BATCHER_DRAIN_TIMEOUT", "3600")
    model = Held()
    service = ModelService(Model(model), read_settings())
    caller = asyncio.create_task(service.batcher.process([0.0] * 10))
    assert await asyncio.to_thread(model.called.wait, PATIENCE)
    before = asyncio.all_tasks()
    service.give_up()
    for task in asyncio.all_tasks() - before:
        task.cancel()
    try:
        await asyncio.wait_for(service.stop(), PATIENCE)
        with pytest.raises(BatcherStoppedError):
            await caller
    finally:
        model.released.set()
