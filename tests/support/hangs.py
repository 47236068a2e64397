"""A test that hangs fails alone, and shows where all threads and tasks are.

First stage, after the time limit of the test: SIGALRM in the main thread, which fails the test where it waits.
Second stage, if the test still has not ended (its loop does not run, so its fixtures cannot finish; or a call into
C does not return): faulthandler shows all threads and ends the process. Under pytest-xdist this is one worker: the
test is reported as failed, and another worker goes on with the rest.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator
from types import FrameType
from typing import Any, TextIO

import pytest

SECOND_STAGE = 60.0
"""Seconds that a test has, after its time, to end by itself."""

_terminal: list[TextIO] = []


def configure() -> None:
    """Use faulthandler in place of pytest's plugin for it. Call this when pytest is configured: it captures later.

    That plugin stops the second stage as soon as the first one has failed the test.
    """
    _terminal.append(os.fdopen(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2), "w"))
    faulthandler.enable(_terminal[0])


def stacks() -> str:
    """Return where each thread of this process is, and each task of any loop."""
    text = io.StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        print(f"Thread {names.get(ident, ident)}:", file=text)
        traceback.print_stack(frame, file=text)
    for task in [each for each in gc.get_objects() if isinstance(each, asyncio.Task)]:
        if not task.done():
            print(f"Task {task.get_name()}:", file=text)
            awaited: Any = task.get_coro()
            while awaited is not None:  # a task knows its own frame, and not those of what it awaits
                if (where := getattr(awaited, "cr_frame", None)) is not None:
                    traceback.print_stack(where, limit=1, file=text)
                awaited = getattr(awaited, "cr_await", None)
    return text.getvalue()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Fail the test after its time, with the stacks of all threads and tasks."""

    def fail(number: int, frame: FrameType | None) -> None:
        shown = f"{item.nodeid} has not ended after {settings.timeout:.0f} s\n{stacks()}"
        print(shown, file=_terminal[0], flush=True)  # now, in case that the second stage ends this process
        pytest.fail(shown)

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    setattr(item, "cancel_timeout", cancel)  # noqa: B010 - what the plugin calls in the end
    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the process if a test has not ended long after its time, with its fixtures."""
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0] if marker else item.config.getini("timeout"))
    faulthandler.dump_traceback_later(seconds + SECOND_STAGE, exit=True, file=_terminal[0])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
