"""Starts that go wrong, are interrupted, or are not waited for."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest

from benchmarks.faults.client import Client, request
from tests.support.server import run_to_end, serve

pytestmark = pytest.mark.anyio


def test_a_port_that_is_in_use(backend: str) -> None:
    """One line says so, and the status is uvicorn's for a start that failed."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ended = run_to_end(port=other.getsockname()[1], BATCHER_BACKEND=backend, MODEL_CALL="emulated")
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
    assert "address already in use" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("delay", ["0", "600"])
def test_a_signal_during_the_start(backend: str, number: signal.Signals, delay: str) -> None:
    """The server ends before it serves anybody, whoever caught the signal: uvicorn or its drain."""
    settings = {"BATCHER_BACKEND": backend, "BATCHER_DRAIN_DELAY": delay}
    with serve(until="Waiting for application startup", **settings) as server:
        server.process.send_signal(number)
        assert server.wait() in {0, -signal.SIGTERM, -signal.SIGINT}
    assert not any("Traceback" in line for line in server.log), server.log


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_start_under_load(backend: str, workers: str) -> None:
    """Whoever can connect is answered, however early: nobody is let in before the model is loaded."""
    arguments = ("--workers", workers, "--backlog", "200")
    with serve(*arguments, until="Started", BATCHER_BACKEND=backend, MODEL_CALL="emulated") as server:

        async def ask() -> int:
            client = Client(server.port)
            while (answer := await client.ask(request())) is None:
                pass  # nobody listens yet
            client.close()
            return answer.status

        assert set(await asyncio.gather(*(ask() for _ in range(50)))) == {200}
        if workers == "1":
            stats = await server.stats()
            assert (stats["queued"], stats["running"], stats["completed"]) == (0, 0, 50)
