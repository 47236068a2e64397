"""A real uvicorn process on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds for a start or an end: TensorFlow alone takes several on two busy cores."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "server.app:app", "--host", "127.0.0.1", *arguments]


def environment(settings: dict[str, str]) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHER_", "MODEL_"))}
    return clean | settings


@dataclass
class Server:
    """A server that runs; its log is read as it comes."""

    process: subprocess.Popen[str]
    port: int
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@contextmanager
def serve(**settings: str) -> Iterator[Server]:
    """Start a server, wait until it is ready, and end it afterwards if it still runs."""
    port = free_port()
    process = subprocess.Popen(
        command("--port", str(port), "--no-access-log"),
        cwd=ROOT,
        env=environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process, port)
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            server.log.append(line.rstrip())
            if "Uvicorn running on" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, name="log of the server", daemon=True)
    reader.start()
    try:
        assert ready.wait(PATIENCE), "the server did not start"
        assert process.poll() is None, "\n".join(server.log)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(PATIENCE)
        assert process.stderr is not None
        process.stderr.close()


def run_to_end(**settings: str) -> subprocess.CompletedProcess[str]:
    """Start a server that should not get far, and return what it said."""
    return subprocess.run(
        command("--port", str(free_port())),
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
