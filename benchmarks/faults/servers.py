"""The servers of the four subjects: the same emulated model behind each, and the same client."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.servers import STOP_SECONDS, Running, free_port, launch
from server.model import Emulated

from . import client
from .result import OURS, Subject

WHOLE = 256
"""Rows in a batch, unless a scenario wants a server that is soon at its limit."""


def tau(rows: int) -> float:
    """Return the seconds that the emulated model takes for so many rows."""
    return Emulated.CALL + rows * Emulated.ROW


@dataclass(frozen=True)
class Target(Running):
    """A server that runs."""

    subject: Subject
    port: int

    @property
    def path(self) -> str:
        """Where it takes rows."""
        return "/optimized_predict" if self.subject in OURS else "/predict"

    def request(self, row: object = client.ROW, headers: str = "") -> bytes:
        """Return the bytes of a request."""
        return client.request(row, path=self.path, headers=headers)

    def post(self, body: bytes) -> bytes:
        """Return the bytes of a request with any body."""
        return client.post(body, path=self.path)

    def workers(self) -> list[psutil.Process]:
        """Return the processes that serve, of a server with several."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it has just ended, and the supervisor has not seen it
                if "resource_tracker" not in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> tuple[float, int]:
        """Return the seconds until it has ended, and its status. subprocess.TimeoutExpired when it does not."""
        start = time.monotonic()
        status = self.process.wait(STOP_SECONDS)
        return time.monotonic() - start, status


@contextmanager
def serve(
    subject: Subject, *, rows: int = WHOLE, workers: int = 1, fault: str = "", **settings: str
) -> Iterator[Target]:
    """Start a server with the emulated model in batches of so many rows; end it afterwards.

    `fault` and `settings` are of this project's server. MeasurementError when it does not start.
    """
    port = free_port()
    environment = {"MODEL_CALL": "emulated"}
    if subject in OURS:
        app = "benchmarks.faults.faulty:app" if fault else "server.app:app"
        environment |= {"BATCHER_BACKEND": subject, "BATCHER_MAX_BATCH_SIZE": str(rows), "FAULT": fault}
        environment |= settings
    else:
        app = f"benchmarks.peers.apps.with_{subject.replace('-', '_')}:app"
        environment |= {"ROWS": str(rows)}
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--ws", "none"]
    command += ["--workers", str(workers), "--no-access-log", "--backlog", "4096", "--timeout-keep-alive", "75"]

    def predicts() -> bool:
        path = "/optimized_predict" if subject in OURS else "/predict"
        answer = httpx.post(f"http://127.0.0.1:{port}{path}", json=client.ROW, timeout=5.0)
        return answer.status_code == httpx.codes.OK

    with launch(command, environment, predicts) as running:
        yield Target(running.process, running.log, subject, port)
