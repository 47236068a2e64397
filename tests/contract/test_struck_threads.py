"""An exception from outside at every line of the batcher's own threads: all callers get outcomes, `close` ends."""

from __future__ import annotations

import concurrent.futures
import gc
import linecache
import logging
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
    """Raises SystemExit at one line that the batcher's own threads run, counted over all of them."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.lines = 0
        self.where = ""

    def __enter__(self) -> Self:
        threading.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        threading.settrace(None)
        self._at = 0

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
                if self.lines == self._at:
                    self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}: {source}"
                    raise SystemExit
        return self.trace


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in finalizers of earlier ones
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("way", ["idle", "at work"])
def test_a_strike_at_every_line_of_the_threads(
    backend: str, flavour: Flavour, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails the batch that the thread ran, at most; the end comes."""
    monkeypatch.setattr(logging.getLogger("batchers"), "disabled", True)  # each strike is logged

    def sync(items: list[Any]) -> list[Any]:
        return list(items)

    async def soon(items: list[Any]) -> list[Any]:
        return list(items)

    for at in range(1, 2000):
        with Strike(at) as strike:
            made = create_batcher(backend, sync if flavour == "sync" else soon, max_batch_size=2, name=NAME)
            futures = [made.submit(number) for number in range(5)]
            if way == "idle":
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
        if strike.lines < at:
            break
    assert 50 < at < 1999
    gc.collect()  # here, where what was struck may say so
