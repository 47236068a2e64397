"""The recipes that need packages of their own, each run as its first line says; `make recipes` runs this file.

Its environment has no other tests: `python -m pytest -c /dev/null --noconftest tests/recipes/frameworks.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.children import PATIENCE, ROOT, child

RECIPES = ROOT / "docs" / "recipes"
SCRIPTS = Path(sys.executable).parent
CALLS = 40


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program that imports a recipe."""
    own = {"PYTHONPATH": f"{ROOT}{os.pathsep}{RECIPES}", "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    return os.environ | own | more


def until(process: subprocess.Popen[str], is_ready: Callable[[], object]) -> None:
    """Wait until a program is ready."""
    end = time.monotonic() + PATIENCE
    while not is_ready():
        assert time.monotonic() < end, "the program did not start in time"
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(0.05)
            pytest.fail(f"the program has ended with status {status}")


@contextmanager
def served(*command: str | Path, **more: str) -> Iterator[httpx.Client]:
    """Give a client of a server, which ends on SIGTERM."""
    port = free_port()
    words = [str(part).replace("PORT", str(port)) for part in command]
    with child(words, env=environment(**more)) as process:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:

            def answers() -> bool:
                try:
                    client.get("/")
                except httpx.TransportError:
                    return False
                return True

            until(process, answers)
            yield client
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def many(call: Callable[[str], Any]) -> list[Any]:
    """Return what many calls at a time return."""
    with ThreadPoolExecutor(CALLS) as pool:
        return list(pool.map(call, ["a" * number for number in range(CALLS)]))


@pytest.mark.parametrize("model", ["onnx_runtime:model", "pytorch_model:model"])
def test_models(model: str) -> None:
    """One item, many, and one that does not fit."""
    command = (sys.executable, "-m", "uvicorn", "batchers.serving:app", "--host", "127.0.0.1", "--port", "PORT")
    with served(*command, BATCHER_MODEL=model) as client:
        answer = client.post("/predict", json=[1, 2, 3])
        assert answer.status_code == 200
        if model.startswith("onnx"):
            assert answer.json() == 14.0
        results = client.post("/predict_many", json=[[1, 2, 3]] * 2).json()
        assert results == [pytest.approx(answer.json(), rel=1e-3)] * 2
        assert client.post("/predict", json=[1]).status_code == 422


@pytest.mark.parametrize(
    "command",
    [
        (SCRIPTS / "waitress-serve", "--listen=127.0.0.1:PORT", "--threads=64", "flask_app:app"),
        (SCRIPTS / "gunicorn", "--bind", "127.0.0.1:PORT", "--threads", "64", "flask_app:app"),
    ],
)
def test_flask(command: tuple[str, ...]) -> None:
    """Its threads share batches."""
    with served(*command) as client:
        assert many(lambda text: client.post("/length", json=text).json()) == list(range(CALLS))
        stats = client.get("/stats").json()
        assert stats["completed"] == CALLS
        assert 0 < stats["batches"] <= CALLS


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ((sys.executable, "-m", "uvicorn", "--port", "PORT", "--lifespan", "off", "django_app:asgi"), "/length"),
        (
            (SCRIPTS / "waitress-serve", "--listen=127.0.0.1:PORT", "--threads=64", "django_app:wsgi"),
            "/thread/length",
        ),
    ],
)
def test_django(command: tuple[str, ...], path: str) -> None:
    """An async view under ASGI, and one in a thread under WSGI."""
    with served(*command) as client:
        found = many(lambda text: client.post(path, json=text).json()["length"])
        assert found == list(range(CALLS))
        assert client.get("/stats").json()["completed"] == CALLS


def test_aiohttp() -> None:
    """It answers all, and ends."""
    with served(sys.executable, RECIPES / "aiohttp_app.py", "PORT") as client:
        assert many(lambda text: client.post("/length", json=text).json()) == list(range(CALLS))


def test_grpc() -> None:
    """The messages are bytes; a deadline is that of the call."""
    import grpc  # noqa: PLC0415 - only this test needs it

    port = free_port()
    with (
        child([sys.executable, RECIPES / "grpc_server.py", str(port)], env=environment()) as process,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        length = channel.unary_unary("/Texts/Length")

        def is_ready() -> bool:
            try:
                return bool(length(b"", timeout=1) == b"0")
            except grpc.RpcError:
                return False

        until(process, is_ready)
        assert many(lambda text: int(length(text.encode(), timeout=PATIENCE))) == list(range(CALLS))


@pytest.mark.parametrize("pool", ["threads", "prefork", "solo"])
def test_celery(tmp_path: Path, pool: str) -> None:
    """The threads of one worker may share batches; in other pools each batch has one item."""
    options = ("--pool", pool, "--concurrency", "4", "--without-mingle", "--without-gossip")
    variables = environment(TMPDIR=str(tmp_path))
    most = 4 if pool == "threads" else 1
    asks = (
        "from celery_worker import length;"
        f"jobs = [length.delay('a' * number) for number in range({CALLS})];"
        f"found = [job.get(timeout={PATIENCE}) for job in jobs];"
        f"assert [size for size, _ in found] == list(range({CALLS}));"
        f"assert max(together for _, together in found) <= {most}"
    )
    with (
        child([SCRIPTS / "celery", "-A", "celery_worker", "worker", *options], env=variables),
        child([sys.executable, "-c", asks], env=variables) as asking,
    ):
        assert asking.wait(2 * PATIENCE) == 0


def test_a_notebook() -> None:
    """Its cells run in a kernel, one after the other."""
    import nbclient  # noqa: PLC0415
    import nbformat  # noqa: PLC0415

    text = (RECIPES / "in_a_notebook.py").read_text()
    cells = [part.partition("\n")[2] for part in text.split("# %%")[1:]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    os.environ["PYTHONPATH"] = str(ROOT)
    ran = nbclient.NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3").execute()
    printed = "".join(part.get("text", "") for cell in ran.cells for part in cell.outputs)
    assert printed.splitlines()[-1] == "328350 9"
