"""Servers under test: started, waited for, watched and ended by the suite."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import httpx
import psutil

from .environment import ROOT
from .fresh import MeasurementError, reason

START_SECONDS = 120.0
STOP_SECONDS = 30.0


class ServerError(MeasurementError):
    """The server did not start, or did not live as long as it had to."""


@dataclass(frozen=True)
class Usage:
    """What the server took."""

    cpu_seconds: float
    resident_bytes: int


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    log: IO[str]

    def check(self) -> None:
        """ServerError, with a line of its log, when it has died."""
        if self.process.poll() is not None:
            self.log.seek(0)
            msg = f"the server has died: {reason(self.log.read())}"
            raise ServerError(msg)

    def usage(self) -> Usage:
        """Return what the server and its children have taken so far. ServerError when it has died."""
        self.check()
        first = psutil.Process(self.process.pid)
        cpu, memory = 0.0, 0
        for process in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a child may have ended since
                times = process.cpu_times()
                cpu += times.user + times.system
                memory += process.memory_info().rss
        return Usage(cpu, memory)


@dataclass(frozen=True)
class Server(Running):
    """One of this project's that runs."""

    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        """Return what the server counted. ServerError when it has died."""
        self.check()
        try:
            found: dict[str, Any] = httpx.get(f"{self.url}/stats", timeout=STOP_SECONDS).json()
        except httpx.HTTPError as error:
            msg = f"the server does not answer any more: {error}"
            raise ServerError(msg) from None
        return found


@contextmanager
def serve(settings: Mapping[str, str], *, port: int | None = None, workers: int = 1) -> Iterator[Server]:
    """Start a server with these environment variables, wait until it is ready, and end it afterwards.

    Without a port it gets a free one. ServerError, with a line of its log, when it does not start.
    """
    chosen = port or free_port()
    _refuse_taken(chosen)
    command = [
        *(sys.executable, "-m", "uvicorn", "server.app:app", "--no-access-log", "--ws", "none"),
        *("--host", "127.0.0.1", "--port", str(chosen), "--workers", str(workers), "--backlog", "4096"),
        # Longer than any user waits: a request that crosses the closing of its connection fails.
        *("--timeout-keep-alive", "75"),
    ]

    def is_ready() -> bool:
        return httpx.get(f"http://127.0.0.1:{chosen}/readyz", timeout=1.0).status_code == httpx.codes.OK

    with launch(command, settings, is_ready) as running:
        yield Server(running.process, running.log, chosen)


@contextmanager
def launch(command: Sequence[str], settings: Mapping[str, str], is_ready: Callable[[], bool]) -> Iterator[Running]:
    """Start a server, ask `is_ready` until it says so, and end the server and all that it has started.

    Its environment is this one without the settings of this project's server, and `settings`. ServerError, with a
    line of its log, when it does not start.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHER_", "MODEL_"))}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=clean | dict(settings), stdout=log, stderr=log, start_new_session=True
        )
        running = Running(process, log)
        try:
            _wait_until(is_ready, running)
            yield running
        finally:
            _end(process)


def _wait_until(is_ready: Callable[[], bool], running: Running) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            running.check()
        except ServerError as error:
            msg = str(error).replace("the server has died", "the server did not start")
            raise ServerError(msg) from None
        with suppress(httpx.HTTPError):
            if is_ready():
                running.check()  # else another program has answered in its place
                return
        time.sleep(0.1)
    msg = f"the server was not ready after {START_SECONDS:.0f} s"
    raise ServerError(msg)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server, what it has started, and what is left of its session."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=1.0)
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=STOP_SECONDS)


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            msg = f"port {port} cannot be used: {error.strerror}; name another one, or none"
            raise ServerError(msg) from None
