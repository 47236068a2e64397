"""An exception from outside at every line of the batcher's own threads: all callers get outcomes, `close` ends."""

from __future__ import annotations

import concurrent.futures
import gc
import linecache
import logging
import os
import random
import threading
from types import FrameType
from typing import Any, Self

import pytest

import batchers
from batchers import BatcherError, create_batcher
from batchers.drivers.threads import DaemonThread
from tests.support.children import PATIENCE
from tests.support.gate import Flavour

FOLDER = batchers.__path__[0]
NAME = "struck"


class Strike:
    """Raises SystemExit at these lines that the batcher's own threads run, counted over all of them."""

    def __init__(self, *at: int) -> None:
        self._at = frozenset(at)
        self.lines = 0
        self.where = ""

    def __enter__(self) -> Self:
        threading.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        threading.settrace(None)
        self._at = frozenset()

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        """Be the trace function of each thread that starts."""
        thread = threading._active.get(threading.get_ident())  # type: ignore[attr-defined]  # makes no dummy
        if thread is None or not thread.name.startswith(NAME) or not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line":
            source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
            # At the exit of a `with` CPython runs nothing from outside. The start of a thread is out of reach, as
            # are the lines of `threading` before it.
            if not (source.startswith("with ") or frame.f_code is DaemonThread._run.__code__):
                self.lines += 1
                if self.lines in self._at:
                    self.where += f"{frame.f_code.co_filename}:{frame.f_lineno}: {source}"
                    raise SystemExit
        return self.trace


pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # in finalizers of earlier ones
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("batchers"), "disabled", True)  # each strike is logged
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)


def live(strike: Strike, backend: str, flavour: Flavour, *, idle: bool, concurrency: int = 1) -> None:
    """Let five items through a batcher that is struck, and end it: everyone gets an outcome, and the end comes."""

    def sync(items: list[Any]) -> list[Any]:
        return list(items)

    async def soon(items: list[Any]) -> list[Any]:
        return list(items)

    function = sync if flavour == "sync" else soon
    with strike:
        made = create_batcher(backend, function, max_batch_size=2, concurrency=concurrency, name=NAME)
        futures = [made.submit(number) for number in range(5)]
        if idle:
            concurrent.futures.wait(futures, PATIENCE)
        ends = threading.Thread(target=made.close, daemon=True)
        ends.start()
        ends.join(PATIENCE)
        assert not ends.is_alive(), strike.where
        concurrent.futures.wait(futures, PATIENCE)  # an interrupted delivery is repeated in another thread
        for number, future in enumerate(futures):
            assert future.done(), strike.where
            error = future.exception()
            assert error is None or isinstance(error, BatcherError), strike.where
            assert error is not None or future.result() == number, strike.where


@pytest.mark.parametrize("way", ["idle", "at work"])
def test_a_strike_at_every_line_of_the_threads(backend: str, flavour: Flavour, way: str) -> None:
    """It fails the batch that the thread ran, at most; the end comes.

    `make test` strikes each third line, and each way of calling begins at another one; `make stress` strikes all.
    """
    step = 1 if "SWITCH_INTERVAL" in os.environ else 3
    start = 1 + (("threading", "asyncio").index(backend) + ("sync", "async").index(flavour)) % step
    for at in range(start, 2000, step):
        strike = Strike(at)
        live(strike, backend, flavour, idle=way == "idle")
        if strike.lines < at:
            break
    assert 50 < at < 1990
    gc.collect()  # here, where what was struck may say so


def test_several_strikes(backend: str, flavour: Flavour) -> None:
    """They strike the repair of earlier damage, too: lines at random, most of them close together."""
    chance = random.Random(f"{backend} {flavour}")
    most = 100
    for _ in range(150):
        lines = [chance.randint(1, most)]
        for _ in range(chance.randint(1, 6)):
            lines.append(lines[-1] + chance.choice([1, 2, 3, 5, 8, chance.randint(1, 60)]))
        strike = Strike(*lines)
        live(strike, backend, flavour, idle=chance.random() < 0.5, concurrency=chance.choice([1, 1, 2]))
        most = min(max(most, strike.lines), 600)
    gc.collect()
