"""Every contract test runs on both backends, on asyncio's loop and uvloop's, with sync and async functions."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import hypothesis
import pytest
import uvloop
from blockbuster import blockbuster_ctx

from batchers import Batcher, create_batcher
from tests.support import guard, hangs
from tests.support.clocks import LoopTime, ThreadTime, VirtualTime
from tests.support.gate import Flavour, Gate
from tests.support.hangs import pytest_runtest_protocol, pytest_timeout_set_timer
from tests.support.leaks import Belongings, check_nothing_left, check_quiet

__all__ = ["pytest_runtest_protocol", "pytest_timeout_set_timer"]  # hooks

BACKENDS = ("threading", "asyncio")
LOOPS = [("asyncio", {"debug": True}), ("asyncio", {"loop_factory": uvloop.new_event_loop})]

# No example has a deadline: the machine may be busy.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", derandomize=True, print_blob=True, deadline=None)
# Whether a mutant fails is all that matters, not by how short an example.
unshrunk = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.shrink]
hypothesis.settings.register_profile("mutants", derandomize=True, database=None, phases=unshrunk, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "local"))

# libuv opens a pipe for signals with its first loop and keeps it.
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
    _runner.run(asyncio.sleep(0))

# SWITCH_INTERVAL=0.000001 lets threads switch at every chance, in all tests.
sys.setswitchinterval(float(os.environ.get("SWITCH_INTERVAL", sys.getswitchinterval())))

Make = Callable[..., Batcher[Any, Any]]


def pytest_configure(config: pytest.Config) -> None:
    """See that hangs are shown, and that what this process starts ends with it."""
    hangs.configure()
    guard.watch(leads=hasattr(config, "workerinput"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves threads or descriptors behind."""
    before = Belongings.now()
    yield
    check_nothing_left(before)


@pytest.fixture(params=LOOPS, ids=["loop", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Give the event loop that a test coroutine runs on."""
    return request.param


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Give the name of a backend."""
    return str(request.param)


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Give the kind of batch function."""
    return "sync" if request.param == "sync" else "async"


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give a batch function that waits for the test; at the end it lets everything go."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
async def make(backend: str, gate: Gate) -> AsyncIterator[Make]:
    """Make batchers that are stopped at the end of the test, and leave no task and no timer behind."""
    made: list[Batcher[Any, Any]] = []
    tasks = asyncio.all_tasks()

    def make(function: Callable[[list[Any]], Any], **options: Any) -> Batcher[Any, Any]:
        made.append(create_batcher(backend, function, **options))
        return made[-1]

    yield make
    gate.open()
    for batcher in made:
        await batcher.stop()
    check_quiet(tasks)


@pytest.fixture
def time(backend: str) -> VirtualTime:
    """Give a time that only the test moves."""
    return LoopTime() if backend == "asyncio" else ThreadTime()


@pytest.fixture
def threads_switch_always() -> Iterator[None]:
    """Let the interpreter switch threads whenever it can, so that races happen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def no_blocking() -> Iterator[None]:
    """Fail when the event loop's thread blocks."""
    with blockbuster_ctx():
        yield
