"""The server under test: started, waited for, watched and stopped by the suite."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from .environment import ROOT
from .fresh import MeasurementError

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
class Server:
    """A running one."""

    process: psutil.Process
    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        """Return what the server counted. ServerError when it has died."""
        try:
            found: dict[str, Any] = httpx.get(f"{self.url}/stats", timeout=STOP_SECONDS).json()
        except httpx.HTTPError as error:
            msg = f"the server does not answer any more: {error}"
            raise ServerError(msg) from None
        return found

    def usage(self) -> Usage:
        """Return what the server and its children have taken so far."""
        try:
            processes = [self.process, *self.process.children(recursive=True)]
            times = [process.cpu_times() for process in processes]
            memory = sum(process.memory_info().rss for process in processes)
        except psutil.Error as error:
            msg = f"the server has died: {error}"
            raise ServerError(msg) from None
        return Usage(sum(found.user + found.system for found in times), memory)


@contextmanager
def serve(settings: dict[str, str], *, port: int | None = None, workers: int = 1) -> Iterator[Server]:
    """Start a server with these environment variables, wait until it is ready, and stop it afterwards.

    Without a port it gets a free one. ServerError, with the last line of its log, when it does not start.
    """
    chosen = port or free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHER_", "MODEL_"))}
    command = [
        *(sys.executable, "-m", "uvicorn", "server.app:app", "--no-access-log", "--ws", "none"),
        *("--host", "127.0.0.1", "--port", str(chosen), "--workers", str(workers), "--backlog", "4096"),
        # Longer than any user waits: a request that crosses the closing of its connection fails.
        *("--timeout-keep-alive", "75"),
    ]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, cwd=ROOT, env=clean | settings, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_until_ready(process, chosen, log)
            yield Server(psutil.Process(process.pid), chosen)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Any) -> None:  # noqa: ANN401 - a text file
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            log.seek(0)
            lines = log.read().strip().splitlines() or ["it said nothing"]
            errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
            msg = f"the server did not start: {errors[0].strip()}"
            raise ServerError(msg)
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=1.0).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    msg = f"the server was not ready after {START_SECONDS:.0f} s"
    raise ServerError(msg)
