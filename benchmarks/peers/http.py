"""Servers with the same model, loaded by wrk: this project's and its peers'."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from pydantic import BaseModel, ConfigDict

from benchmarks.faults.client import FAULT_ROW
from benchmarks.fresh import MeasurementError
from benchmarks.servers import STOP_SECONDS, Running, free_port, launch
from server.model import MODEL_FILE, Description

SCRIPT = Path(__file__).with_name("post.lua")
DESCRIPTION = Description.model_validate_json(MODEL_FILE.with_suffix(".json").read_text())
ROW = DESCRIPTION.example
WARM_UP_SECONDS = 2
SETTLE_SECONDS = 1.5
"""For a slow server to answer what the load before has left in its queue."""
IDLE_SECONDS, LOOK_SECONDS, QUIET_LOOKS = 15.0, 0.5, 3
"""A server has started when it has taken little CPU at so many looks; it is given so long."""
HELD_SECONDS = 120.0
CONNECTIONS = [1, 16, 64, 256]
APPS = "benchmarks.peers.apps"


class Server(BaseModel):
    """One that is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: list[str]
    """PORT stands for the port."""
    path: str = "/predict"
    in_list: bool = False
    """Whether a request is an object with a list of rows, and an answer a list."""
    environment: dict[str, str] = {}
    processes: int = 1
    """That call the model, each with its own."""
    connections: list[int] = CONNECTIONS
    held: int = 0
    """Requests that are sent first, and held: then the queue is full, and all others are refused."""

    @property
    def body(self) -> str:
        """What is posted."""
        return json.dumps({"rows": [ROW]} if self.in_list else ROW)


def _ours(backend: str, path: str = "/optimized_predict", processes: int = 1, **settings: str) -> Server:
    command = [sys.executable, "-m", "uvicorn", "server.app:app", "--no-access-log", "--ws", "none"]
    command += ["--host", "127.0.0.1", "--port", "PORT", "--log-level", "warning"]
    command += ["--workers", str(processes)]
    return Server(
        command=command, path=path, processes=processes, environment={"BATCHER_BACKEND": backend, **settings}
    )


def _front_ends(backend: str, count: int) -> Server:
    command = [sys.executable, "-m", "batchers.serving", "--workers", str(count), "--no-access-log"]
    command += ["--host", "127.0.0.1", "--port", "PORT", "--log-level", "warning", "--path", "/optimized_predict"]
    environment = {"BATCHER_BACKEND": backend, "BATCHER_MODEL": "server.workers:ExampleModel"}
    return Server(command=command, path="/optimized_predict", environment=environment)


def _mosec(processes: int) -> Server:
    command = _peer("with_mosec", "--port", "PORT", "--address", "127.0.0.1", "--log-level", "warning")
    environment = {"PROCESSES": str(processes)}
    return Server(command=command, path="/inference", processes=processes, environment=environment)


def _without_model(backend: str, function: str) -> Server:
    command = _ours(backend).command
    command[command.index("server.app:app")] = "batchers.serving:app"
    environment = {"BATCHER_BACKEND": backend, "BATCHER_MODEL": f"{APPS}.no_model:{function}"}
    return Server(command=command, environment=environment, connections=[64])


def _full(backend: str) -> Server:
    command = _ours(backend).command
    command[command.index("server.app:app")] = "benchmarks.faults.faulty:app"
    one = dict.fromkeys(("BATCHER_MAX_BATCH_SIZE", "BATCHER_CONCURRENCY", "BATCHER_MAX_QUEUE_SIZE"), "1")
    environment = {"BATCHER_BACKEND": backend, "FAULT": "hold", "MODEL_CALL": "emulated", **one}
    return Server(command=command, path="/optimized_predict", environment=environment, connections=[64], held=2)


def _peer(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"{APPS}.{name}", *(arguments or ("PORT",))]


SERVERS = {
    "batchers, asyncio": _ours("asyncio"),
    "batchers, threading": _ours("threading"),
    "batchers, asyncio, through ASGI": _ours("asyncio", BATCHER_DIRECT="false"),
    "batchers, no batcher": Server(command=_peer("with_no_batcher")),
    "mosec": _mosec(1),
    "batchers, asyncio, 2 processes": _ours("asyncio", processes=2),
    "mosec, 2 processes": _mosec(2),
    "batchers, asyncio, 1 front end": _front_ends("asyncio", 1),
    "batchers, asyncio, 2 front ends": _front_ends("asyncio", 2),
    "async-batcher": Server(command=_peer("with_async_batcher")),
    "batchers, in async-batcher's route": Server(command=_peer("with_batchers")),
    "LitServe": Server(command=_peer("with_litserve")),
    "BentoML": Server(
        command=[
            *(sys.executable, "-m", "bentoml", "serve", f"{APPS}.with_bentoml:Predictions"),
            *("--host", "127.0.0.1", "--port", "PORT"),
        ],
        in_list=True,
        environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    "Ray Serve": Server(
        command=_peer("with_ray_serve"),
        environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"},
    ),
}


BARE = "a bare protocol"

COSTS = {
    BARE: Server(command=_peer("bare_protocol"), connections=[64]),
    "batchers, asyncio, a coroutine function": _without_model("asyncio", "first_on_the_loop"),
    "batchers, asyncio, a function": _without_model("asyncio", "first"),
    "batchers, threading, a function": _without_model("threading", "first"),
    "batchers, asyncio, a full queue": _full("asyncio"),
    "batchers, threading, a full queue": _full("threading"),
}
"""Servers without a model, whose CPU time for each request is measured."""


class Loaded(BaseModel):
    """What wrk saw with so many connections."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: int
    requests: int
    seconds: float
    p50: float
    p99: float
    failures: int
    cpu: float | None = None
    """Seconds that the server took for each request, of all of its processes; None in older results."""

    @property
    def rate(self) -> float:
        """Answers with a good status, a second."""
        return max(self.requests - self.failures, 0) / self.seconds


class ServerResult(BaseModel):
    """What a server gave, once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str
    loads: list[Loaded]
    resident_bytes: int
    failed: str
    """Why there is nothing, if there is nothing."""


def measure(name: str, seconds: int) -> ServerResult:
    """Load a server for so many seconds with each number of connections.

    The result says if a peer is not installed, or does not serve.

    MeasurementError where wrk is missing, and for a server of this project that fails.
    """
    need_wrk()
    server = (SERVERS | COSTS)[name]

    def load(number: int) -> Loaded:
        before = running.usage().cpu_seconds
        found = wrk(url, server.body, number, seconds)
        return found.model_copy(update={"cpu": (running.usage().cpu_seconds - before) / max(found.requests, 1)})

    try:
        with _serve(server) as (url, running), _held(url, server):
            wrk(url, server.body, server.connections[-1], WARM_UP_SECONDS)
            loads = [load(number) for number in server.connections]
            memory = running.usage().resident_bytes
    except MeasurementError as error:
        if name.startswith("batchers"):
            raise
        return ServerResult(server=name, loads=[], resident_bytes=0, failed=str(error))
    return ServerResult(server=name, loads=loads, resident_bytes=memory, failed="")


def need_wrk() -> None:
    """MeasurementError, with the cure, where wrk is missing."""
    if shutil.which("wrk") is None:
        msg = "wrk is not installed: it is Debian's package wrk (apt-get install wrk)"
        raise MeasurementError(msg)


@contextmanager
def _held(url: str, server: Server) -> Iterator[None]:
    """Send the requests that are held, and let them go at the end."""
    root = url.removesuffix(server.path)

    def send() -> None:
        httpx.post(url, json=FAULT_ROW, timeout=HELD_SECONDS)

    with ThreadPoolExecutor(server.held + 1) as pool:
        for number in range(server.held):
            pool.submit(send)
            end = time.monotonic() + HELD_SECONDS
            while sum(httpx.get(f"{root}/stats").json()[name] for name in ("queued", "running")) <= number:
                if time.monotonic() > end:
                    msg = "the server did not hold the first requests"
                    raise MeasurementError(msg)
                time.sleep(0.01)
        yield
        if server.held:
            httpx.post(f"{root}/release", content=str(server.held))


@contextmanager
def _serve(server: Server) -> Iterator[tuple[str, Running]]:
    port = free_port()
    command = [part.replace("PORT", str(port)) for part in server.command]
    url = f"http://127.0.0.1:{port}{server.path}"

    def predicts() -> bool:
        headers = {"Content-Type": "application/json"}
        answer = httpx.post(url, content=server.body, headers=headers, timeout=5.0)
        if answer.status_code != httpx.codes.OK:
            return False
        try:
            value = answer.json()
            number = value[0] if server.in_list else value
        except (ValueError, LookupError, TypeError):
            number = None
        if not isinstance(number, float):
            msg = f"it answers {answer.text[:60]!r} instead of a number"
            raise MeasurementError(msg)
        return True

    def is_ready() -> bool:
        return httpx.get(url.replace(server.path, "/readyz")).status_code == httpx.codes.OK

    with launch(command, server.environment, is_ready if server.held else predicts) as running:
        wait_until_idle(running)  # with several processes the first one that is ready answers
        yield url, running


def wait_until_idle(running: Running) -> None:
    """Wait until no process of a server is starting any more; one that never rests is taken as it is."""
    quiet = 0
    for _ in range(round(IDLE_SECONDS / LOOK_SECONDS)):
        before = running.usage().cpu_seconds
        time.sleep(LOOK_SECONDS)
        quiet = quiet + 1 if running.usage().cpu_seconds - before < LOOK_SECONDS / 4 else 0
        if quiet == QUIET_LOOKS:
            return


def wrk(url: str, body: str, connections: int, seconds: int) -> Loaded:
    """Load a server with so many connections, each of which asks again as soon as it is answered.

    MeasurementError when it fails.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(SCRIPT), url]
    time.sleep(SETTLE_SECONDS)
    try:
        ended = subprocess.run(
            command,
            env=os.environ | {"BODY": body},
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + STOP_SECONDS,
        )
        found = json.loads(ended.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        msg = f"wrk failed: {error}"
        raise MeasurementError(msg) from None
    return Loaded(connections=connections, **found)
