"""A real uvicorn process on a free port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from .children import PATIENCE, child, run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*arguments: str, app: str = "server.app:app") -> list[str]:
    return [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", *arguments]


WIDE = {"BATCHER_BODY_TIMEOUT": "60", "BATCHER_HEAD_TIMEOUT": "60"}
"""Limits for clients that only hangs meet. Tests of these limits, and of what they end, say others."""


def environment(settings: dict[str, str]) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHER_", "MODEL_"))}
    return clean | WIDE | settings


@dataclass
class Server:
    """A server that runs; its log is read as it comes."""

    process: subprocess.Popen[str]
    port: int
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def stats(self) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url) as client:
            found: dict[str, Any] = (await client.get("/stats")).json()
            return found

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@contextmanager
def serve(
    *arguments: str, app: str = "server.app:app", until: str = "Uvicorn running on", **settings: str
) -> Iterator[Server]:
    """Start a server, wait until its log says that it is ready, and end it afterwards if it still runs."""
    port = free_port()
    with child(
        command("--port", str(port), "--no-access-log", "--timeout-keep-alive", "600", *arguments, app=app),
        env=environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        server = Server(process, port)
        ready = threading.Event()
        reader = threading.Thread(target=_read, args=(server, until, ready), name="log of the server", daemon=True)
        reader.start()
        try:
            assert ready.wait(PATIENCE), "the server did not start"
            assert process.poll() is None, "\n".join(server.log)
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
            with suppress(subprocess.TimeoutExpired):  # it is killed with its session
                process.wait(PATIENCE)
    reader.join()
    process.stderr.close()


def _read(server: Server, until: str, ready: threading.Event) -> None:
    """Read the log to its end; say when it has said what the test waits for, or nothing more will come."""
    for line in server.process.stderr or ():
        server.log.append(line.rstrip())
        if until in line:
            ready.set()
    ready.set()


class Connection:
    """A client that is as fast as a test with thousands of requests needs: one after the other, kept alive."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: "

    async def post_all(self, values: Iterable[Any]) -> list[Any]:
        """Post each value as JSON and return the answers; every one must be 200."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        answers = []
        try:
            for value in values:
                body = json.dumps(value)
                writer.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0])
                content = await reader.readexactly(length)
                assert head.startswith("http/1.1 200 "), (head, content)
                answers.append(json.loads(content))
        finally:
            writer.close()
            await writer.wait_closed()
        return answers


def run_to_end(*, port: int = 0, app: str = "server.app:app", **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a server that should not get far, and return what it said. Port 0: a free one."""
    return run(command("--port", str(port or free_port()), app=app), env=environment(settings))
