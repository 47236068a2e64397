"""Who sends no head, and when a signal ends the server, in a time that only the test moves."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass, field
from typing import Any

import pytest

from batchers.serving.uvicorn_server import close_slow_heads, drain_on_signals, log_failure, running_server
from tests.support.clocks import VirtualLoop

LIMIT = 8.0


@dataclass(eq=False)
class Answered:
    """A request, as uvicorn's protocols keep the last one."""

    response_complete: bool = True


@dataclass(eq=False)
class Connection:
    """What uvicorn's protocols have in common."""

    cycle: Answered | None = None
    timeout_keep_alive_task: object = None
    closed: float | None = None

    def shutdown(self) -> None:
        self.closed = self.closed or asyncio.get_running_loop().time()


@dataclass
class State:
    """Of a server."""

    connections: set[Any] = field(default_factory=set)


@dataclass
class Protocols:
    """Of a server's settings."""

    http_protocol_class: type = Connection


@dataclass
class Uvicorn:
    """A server, as far as it is looked at."""

    server_state: State = field(default_factory=State)
    config: Protocols = field(default_factory=Protocols)


def live(seconds: float, *connections: Any, changes: dict[float, Any] | None = None) -> None:
    """Watch these for so many seconds; `changes` happen at their times."""

    async def scenario() -> None:
        server: Any = Uvicorn(State(set(connections)))
        loop = asyncio.get_running_loop()
        for moment, change in (changes or {}).items():
            loop.call_at(moment, change)
        task = asyncio.create_task(close_slow_heads(server, LIMIT))
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait((task,))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario())


def test_who_sends_no_head() -> None:
    """Neither before the first request nor after one: closed, within a quarter more than the limit."""
    silent, begun = Connection(), Connection(cycle=Answered())
    live(20, silent, begun)
    for connection in (silent, begun):
        assert connection.closed is not None
        assert LIMIT <= connection.closed <= 1.25 * LIMIT


def test_who_is_left_alone() -> None:
    """A connection that rests, one whose answer is under way, and one that is no HTTP."""
    resting = Connection(cycle=Answered(), timeout_keep_alive_task=object())
    waiting = Connection(cycle=Answered(response_complete=False))
    live(50, resting, waiting, object())
    assert (resting.closed, waiting.closed) == (None, None)


def test_a_head_in_time() -> None:
    """It comes at the last moment; then the connection rests."""
    connection = Connection()

    def answer() -> None:
        connection.cycle = Answered()
        connection.timeout_keep_alive_task = object()

    live(50, connection, changes={7.9: answer})
    assert connection.closed is None


def test_each_request_has_its_own_time() -> None:
    """Heads that take six seconds each are fine, however many: only the last one is too slow."""
    connection = Connection()
    changes = {moment: lambda: setattr(connection, "cycle", Answered()) for moment in (6.0, 12.0, 18.0, 24.0)}
    live(50, connection, changes=changes)
    assert connection.closed is not None
    assert 24.0 + LIMIT <= connection.closed <= 24.0 + 1.5 * LIMIT


@dataclass(eq=False)
class Renamed:
    """A connection of another uvicorn."""

    timeout_keep_alive_task: object = None


@pytest.mark.parametrize("server", [object(), Uvicorn(State({Renamed()}), Protocols(Renamed))])
def test_a_watch_that_fails_says_so(caplog: pytest.LogCaptureFixture, server: object) -> None:
    """With another uvicorn there may be no such attributes; the end of the server is no failure."""

    async def watch(server: Any) -> None:
        task = asyncio.create_task(close_slow_heads(server, LIMIT))
        task.add_done_callback(log_failure)
        await asyncio.sleep(LIMIT)
        task.cancel()
        await asyncio.wait((task,))

    with caplog.at_level(logging.ERROR), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(watch(Uvicorn()))
        assert not caplog.records
        runner.run(watch(server))
    assert "Slow heads are no longer closed" in caplog.text


def test_no_uvicorn_runs_here() -> None:
    """Then there is nothing to drain or to watch."""
    assert running_server() is None


@dataclass
class Config:
    """Of uvicorn, as far as it is changed."""

    timeout_graceful_shutdown: int | None = None


@dataclass
class Draining:
    """A server that can be told to end, and what becomes of it when."""

    started: bool
    config: Config = field(default_factory=Config)
    should_exit: bool = False
    is_draining: bool = False
    ends: list[float] = field(default_factory=list)
    gives_up: list[float] = field(default_factory=list)

    def handle_exit(self, number: int, _: object) -> None:
        assert number == signal.SIGINT
        self.should_exit = True
        self.ends.append(asyncio.get_running_loop().time())

    def give_up(self) -> None:
        self.gives_up.append(asyncio.get_running_loop().time())


def drained(
    started: bool, delay: float, signals: dict[float, signal.Signals], graceful: int | None = None
) -> Draining:
    """Send signals at these times to a server that may drain for so long, and for 16 s after that."""
    server = Draining(started, Config(graceful))

    async def scenario() -> None:
        anything: Any = server
        drain_on_signals(anything, anything, delay, 16.0)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for moment, number in signals.items():
            loop.call_at(start + moment, signal.raise_signal, number)
        await asyncio.sleep(1000.0)
        server.ends = [moment - start for moment in server.ends]
        server.gives_up = [moment - start for moment in server.gives_up]

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(scenario())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return server


@pytest.mark.parametrize(("started", "delay", "ends"), [(False, 8.0, 0.0), (True, 8.0, 8.0), (True, 0.0, 0.0)])
def test_when_sigterm_ends_the_server(started: bool, delay: float, ends: float) -> None:
    """After the time to leave, but at once while it starts: nobody is there yet to go elsewhere."""
    server = drained(started, delay, {0.0: signal.SIGTERM})
    assert server.is_draining
    assert (server.ends, server.gives_up) == ([ends], [ends + 16.0])


def test_a_second_sigterm() -> None:
    """It ends the time to leave, and the end of that time does nothing more; nor does a third one."""
    server = drained(True, 8.0, {0.0: signal.SIGTERM, 2.0: signal.SIGTERM, 3.0: signal.SIGTERM})
    assert (server.ends, server.gives_up) == ([2.0], [18.0])


def test_sigint_in_the_time_to_leave() -> None:
    """It goes to uvicorn, each of them: the second one ends the server by force, so callers are told at once."""
    server = drained(True, 8.0, {0.0: signal.SIGTERM, 2.0: signal.SIGINT, 3.0: signal.SIGINT})
    assert server.ends == [2.0, 3.0]
    assert server.gives_up[0] == 3.0


def test_how_long_uvicorn_waits() -> None:
    """For the time to give up and two seconds more, if nobody has told it another time."""
    assert drained(True, 0.0, {}).config.timeout_graceful_shutdown == 18
    assert drained(True, 0.0, {}, graceful=5).config.timeout_graceful_shutdown == 5


@pytest.mark.parametrize(("graceful", "gives_up"), [(100, 16.0), (5, 4.0)])
def test_a_time_that_uvicorn_was_told(graceful: int, gives_up: float) -> None:
    """Who waits is told before it is over: then uvicorn would cancel the request, and the client see 500."""
    assert drained(True, 0.0, {0.0: signal.SIGTERM}, graceful=graceful).gives_up == [gives_up]
