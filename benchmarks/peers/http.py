"""Servers with the same model, loaded by wrk: this project's and its peers'."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx
import psutil
from pydantic import BaseModel, ConfigDict

from benchmarks.environment import ROOT
from benchmarks.fresh import MeasurementError, reason
from benchmarks.servers import START_SECONDS, STOP_SECONDS, free_port
from server.model import MODEL_FILE, Description

SCRIPT = Path(__file__).with_name("post.lua")
DESCRIPTION = Description.model_validate_json(MODEL_FILE.with_suffix(".json").read_text())
ROW = DESCRIPTION.example
WARM_UP_SECONDS = 2
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

    @property
    def body(self) -> str:
        """What is posted."""
        return json.dumps({"rows": [ROW]} if self.in_list else ROW)


def _ours(backend: str, path: str = "/optimized_predict") -> Server:
    command = [sys.executable, "-m", "uvicorn", "server.app:app", "--no-access-log", "--ws", "none"]
    command += ["--host", "127.0.0.1", "--port", "PORT", "--log-level", "warning"]
    return Server(command=command, path=path, environment={"BATCHER_BACKEND": backend})


def _peer(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"{APPS}.{name}", *(arguments or ("PORT",))]


SERVERS = {
    "batchers, asyncio": _ours("asyncio"),
    "batchers, threading": _ours("threading"),
    "batchers, /predict": _ours("asyncio", "/predict"),
    "mosec": Server(
        command=_peer("with_mosec", "--port", "PORT", "--address", "127.0.0.1", "--log-level", "warning"),
        path="/inference",
    ),
    "async-batcher": Server(command=_peer("with_async_batcher")),
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


class Loaded(BaseModel):
    """What wrk saw with so many connections."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: int
    requests: int
    seconds: float
    p50: float
    p99: float
    failures: int

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

    A peer that is not installed, or does not serve, is told in the result.

    MeasurementError where wrk is missing, and for a server of this project that fails.
    """
    if shutil.which("wrk") is None:
        msg = "wrk is not installed: it is Debian's package wrk (apt-get install wrk)"
        raise MeasurementError(msg)
    server = SERVERS[name]
    try:
        with _serve(server) as (url, process):
            _wrk(url, server.body, CONNECTIONS[-1], WARM_UP_SECONDS)
            loads = [_wrk(url, server.body, number, seconds) for number in CONNECTIONS]
            memory = sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except MeasurementError as error:
        if name.startswith("batchers"):
            raise
        return ServerResult(server=name, loads=[], resident_bytes=0, failed=str(error))
    return ServerResult(server=name, loads=loads, resident_bytes=memory, failed="")


@contextmanager
def _serve(server: Server) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    command = [part.replace("PORT", str(port)) for part in server.command]
    url = f"http://127.0.0.1:{port}{server.path}"
    with tempfile.TemporaryFile("w+") as log:
        process = psutil.Popen(command, cwd=ROOT, env=os.environ | server.environment, stdout=log, stderr=log)
        try:
            _wait_until_it_predicts(process, server, url, log)
            yield url, process
        finally:
            _end(process)


def _wait_until_it_predicts(process: psutil.Popen, server: Server, url: str, log: IO[str]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            log.seek(0)
            msg = f"did not start: {reason(log.read())}"
            raise MeasurementError(msg)
        try:
            headers = {"Content-Type": "application/json"}
            answer = httpx.post(url, content=server.body, headers=headers, timeout=5.0)
        except httpx.HTTPError:
            time.sleep(0.2)
            continue
        if answer.status_code == httpx.codes.OK:
            value = answer.json()
            if not isinstance(value[0] if server.in_list else value, float):
                msg = f"answers {answer.text[:60]!r} instead of a number"
                raise MeasurementError(msg)
            return
        time.sleep(0.2)
    msg = f"was not ready after {START_SECONDS:.0f} s"
    raise MeasurementError(msg)


def _end(process: psutil.Popen) -> None:
    """End a server and all that it has started."""
    family: list[psutil.Process] = [process]
    with suppress(psutil.NoSuchProcess):  # it may have ended by itself
        family += process.children(recursive=True)
        process.terminate()
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for each in alive:
        each.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)


def _wrk(url: str, body: str, connections: int, seconds: int) -> Loaded:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(SCRIPT), url]
    try:
        ended = subprocess.run(
            command,
            env=os.environ | {"BODY": body},
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 30,
        )
        found = json.loads(ended.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        msg = f"wrk failed: {error}"
        raise MeasurementError(msg) from None
    return Loaded(connections=connections, **found)
