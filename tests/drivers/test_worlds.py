"""gevent, eventlet and trio get a sentence that says what works."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from batchers import AsyncioBatcher, BatcherError, ThreadingBatcher


def double(items: list[int]) -> list[int]:
    return [2 * item for item in items]


async def double_soon(items: list[int]) -> list[int]:
    return [2 * item for item in items]


@pytest.mark.parametrize(
    ("module", "asks"),
    [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")],
)
def test_green_threads(module: str, asks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only worker threads with a sync function work in them."""
    patched: Any = SimpleNamespace(**{asks: lambda _: True})
    monkeypatch.setitem(sys.modules, module, patched)
    for make in (lambda: AsyncioBatcher(double), lambda: ThreadingBatcher(double_soon)):
        with pytest.raises(BatcherError, match="use a ThreadingBatcher with a sync function"):
            make()
    with ThreadingBatcher(double) as batcher:
        assert batcher.call(2) == 4
    patched = SimpleNamespace(**{asks: lambda _: False})
    monkeypatch.setitem(sys.modules, module, patched)
    AsyncioBatcher(double)


@pytest.mark.parametrize("call", ["process", "process_many"])
def test_without_a_loop_of_asyncio(call: str) -> None:
    """As under trio: the error says what to use there."""
    batcher = ThreadingBatcher(double)
    with pytest.raises(BatcherError, match=r"trio\.to_thread\.run_sync"):
        getattr(batcher, call)([1]).send(None)
