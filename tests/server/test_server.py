"""A real uvicorn process with the real model, on both backends."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.faults.client import Client, LostError, request
from server.model import MODEL_FILE, Description, Model
from tests.support.children import PATIENCE
from tests.support.server import Connection, Server, run_to_end, serve

DESCRIPTION = Description.model_validate_json(MODEL_FILE.with_suffix(".json").read_text())
EXAMPLE = DESCRIPTION.example


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio's loop: the loop under test is the server's."""
    return "asyncio"


@pytest.fixture(scope="module", params=["threading", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server for each backend; tests share it."""
    settings = {"BATCHER_MAX_QUEUE_SIZE": "20000", "BATCHER_CONCURRENCY": "3"}
    with serve(BATCHER_BACKEND=request.param, **settings) as found:
        yield found


@pytest.fixture(params=["threading", "asyncio"])
def mortal(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give a server that the test may end; its model takes so long that requests wait in it."""
    settings = {"MODEL_CALL": "emulated", "BATCHER_MAX_BATCH_SIZE": "2", "BATCHER_BODY_TIMEOUT": "2"}
    with serve(BATCHER_BACKEND=request.param, **settings) as found:
        yield found


@pytest.fixture
def slow() -> Iterator[Server]:
    """Give a server that can be overloaded: one by one, two in the queue, 20 ms for an answer."""
    settings = {
        "MODEL_CALL": "emulated",
        "BATCHER_MAX_BATCH_SIZE": "1",
        "BATCHER_MAX_QUEUE_SIZE": "2",
        "BATCHER_TIMEOUT": "0.02",
    }
    with serve(**settings) as found:
        yield found


@pytest.fixture(scope="module")
def backend(server: Server) -> str:
    """Name the backend of the server."""
    with httpx.Client(base_url=server.url) as client:
        return str(client.get("/stats").json()["backend"])


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """Give a client of the server."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Model:
    """Give the model itself, called in the other way than the server does."""
    return Model(MODEL_FILE, "keras")


def near(prediction: Any) -> Any:
    """Allow for what single precision leaves open: 1e-5 of the value or of the targets' scale."""
    return pytest.approx(prediction, rel=1e-5, abs=1e-5 * DESCRIPTION.target_scale)


def rows(count: int, seed: int = 1) -> list[list[float]]:
    rng = random.Random(seed)
    return [[value * rng.uniform(0.5, 1.5) for value in EXAMPLE] for _ in range(count)]


@pytest.mark.parametrize("path", ["/predict", "/optimized_predict", "/predict/", "/optimized_predict/"])
def test_predictions(client: httpx.Client, model: Model, path: str) -> None:
    """Each path answers the model's own prediction, as a JSON number."""
    for row in rows(3):
        answer = client.post(path, json=row)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == near(model.predict([row])[0])


@pytest.mark.parametrize("path", ["/predict/", "/optimized_predict/"])
def test_clients_of_the_original_benchmark(server: Server, path: str) -> None:
    """They post `str(list)` without a Content-Type, to a path with a slash, and want 200 and a float."""
    body = str([0.25] * 10)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall((head + body).encode())
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    first, _, content = answer.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert isinstance(json.loads(content), float)


async def test_ten_thousand_different_requests(server: Server, model: Model, backend: str) -> None:
    """Over 200 connections: everyone gets the prediction of his own row, and they shared batches."""
    many = rows(10_000, seed=2)
    before = await server.stats()
    connections = [Connection(server.port, "/optimized_predict") for _ in range(200)]
    found = await asyncio.gather(*(connection.post_all(many[n::200]) for n, connection in enumerate(connections)))
    after = await server.stats()
    answers: list[Any] = [None] * len(many)
    for n, part in enumerate(found):
        answers[n::200] = part
    expected = [value for start in range(0, 10_000, 1000) for value in model.predict(many[start : start + 1000])]

    assert len(set(answers)) > 5000
    assert answers == near(expected)
    assert after["backend"] == backend
    assert after["completed"] - before["completed"] == 10_000
    assert after["batches"] - before["batches"] < 10_000, "no batch had more than one item"


BAD_BODIES: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "truncated": b"[1, 2, 3",
    "too few": b"[1,2,3,4,5,6,7,8,9]",
    "too many": json.dumps(list(range(11))).encode(),
    "NaN": b"[NaN,2,3,4,5,6,7,8,9,10]",
    "Infinity": b"[1,-Infinity,3,4,5,6,7,8,9,10]",
    "1e400": b"[1e400,2,3,4,5,6,7,8,9,10]",
    "beyond float32": b"[1e300,2,3,4,5,6,7,8,9,10]",
    "strings": b'["1",2,3,4,5,6,7,8,9,10]',
    "booleans": b"[true,2,3,4,5,6,7,8,9,10]",
    "nested": b"[[1],2,3,4,5,6,7,8,9,10]",
    "deep": b"[" * 5000 + b"]" * 5000,
    "long number": b"[" + b"9" * 5000 + b",2,3,4,5,6,7,8,9,10]",
    "object": b'{"features": [1,2,3,4,5,6,7,8,9,10]}',
    "not UTF-8": b"\xff\xfe[1]",
    "lone surrogate": b'["\\ud800"]',
    "10 MB": b"[" + b"1," * 5_000_000 + b"1]",
}


@pytest.mark.parametrize("path", ["/predict", "/optimized_predict"])
@pytest.mark.parametrize("kind", BAD_BODIES)
def test_bad_bodies(client: httpx.Client, path: str, kind: str) -> None:
    """A 4xx in FastAPI's shape, and nothing reaches the model."""
    answer = client.post(path, content=BAD_BODIES[kind], headers={"content-type": "application/json"})

    assert answer.status_code == (413 if kind == "10 MB" else 422)
    for problem in answer.json()["detail"]:
        assert set(problem) == {"type", "loc", "msg"}
        assert problem["loc"][0] == "body"
    assert client.post(path, json=EXAMPLE).status_code == 200


def test_wrong_content_type(client: httpx.Client) -> None:
    """The answer says which one is right."""
    answer = client.post("/optimized_predict", content=b"[1]", headers={"content-type": "text/plain"})

    assert answer.status_code == 422
    assert "application/json" in answer.json()["detail"][0]["msg"]


def test_a_content_length_with_many_zeros(server: Server) -> None:
    """Is a number all the same."""
    body = json.dumps(EXAMPLE)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = (
            f"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body):05000}\r\n\r\n"
        )
        connection.sendall((head + body).encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_an_endless_body_is_cut(server: Server) -> None:
    """Chunk after chunk without a length: refused before it is all in memory."""

    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"1," * 1000

    with httpx.Client(base_url=server.url) as client:
        answer = client.post("/predict", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


async def test_neighbours_of_bad_requests(server: Server, model: Model) -> None:
    """Good requests between bad ones are answered as if they were alone."""
    good = rows(100, seed=3)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        calls = []
        for number, row in enumerate(good):
            calls.append(client.post("/optimized_predict", json=row))
            body = list(BAD_BODIES.values())[number % 9]
            calls.append(client.post("/optimized_predict", content=body))
        answers = await asyncio.gather(*calls)
    assert [answer.status_code for answer in answers[1::2]] == [422] * 100
    assert [answer.json() for answer in answers[::2]] == near(model.predict(good))


def test_operations(client: httpx.Client, backend: str) -> None:
    """Health, readiness, statistics, metrics and the documentation."""
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    stats = client.get("/stats").json()
    assert (stats["backend"], stats["model_call"]) == (backend, "compiled")
    page = client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text  # it works without a network
    for script in re.findall(r'<script src="([^"]+)"', page.text):
        assert client.get(script).status_code == 200
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in metrics.text.splitlines() if not line.startswith("#"))
    now = client.get("/stats").json()
    assert float(lines['batcher_items_total{batcher="predictions",outcome="completed"}']) == now["completed"]
    assert float(lines['batcher_batch_size_items_bucket{batcher="predictions",le="+Inf"}']) == now["batches"]
    for name in ("batcher_queue_wait_seconds_sum", "batcher_service_time_seconds_count"):
        assert float(lines[name + '{batcher="predictions"}']) > 0


def test_the_documentation_can_be_tried(client: httpx.Client) -> None:
    """The example in the OpenAPI document is one that works."""
    document = client.get("/openapi.json").json()
    assert {"/predict", "/optimized_predict"} <= set(document["paths"])
    assert "/predict/" not in document["paths"]
    for path in ("/predict", "/optimized_predict"):
        operation: Any = document["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        assert client.post(path, json=example).status_code == 200
        assert {"200", "413", "422"} <= set(operation["responses"])
    assert {"503", "504"} <= set(document["paths"]["/optimized_predict"]["post"]["responses"])


def test_behind_a_prefix() -> None:
    """What a proxy hands on with a path of its own is answered and documented all the same."""
    with (
        serve("--root-path", "/models", MODEL_CALL="emulated") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for path in ("/predict", "/predict/", "/optimized_predict", "/optimized_predict/"):
            answer = client.post(path, json=[1.0] * 10)
            assert (answer.status_code, answer.json()) == (200, 10.0)
            assert client.post(path, json=[1.0] * 9).status_code == 422
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/models"}]


@pytest.mark.parametrize("path", ["/predict", "/predict/", "/optimized_predict", "/optimized_predict/"])
def test_other_methods(client: httpx.Client, path: str) -> None:
    """They are told which one is right."""
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
        answer = client.request(method, path)
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "POST"


# Life and death


async def test_sigterm_under_load(mortal: Server) -> None:
    """Every request that was accepted is answered, the status is 0, and the log is all that it says.

    Clients that leave or stall in the middle of their bodies change nothing of it.
    """
    answered = [0] * 20
    crossed: list[str] = []

    async def ask_until_told(number: int) -> None:
        client = Client(mortal.port)
        while True:
            try:
                answer = await client.ask(request(EXAMPLE))
            except LostError as error:
                crossed.append(str(error))
                return
            assert answer is not None
            assert answer.status == 200
            answered[number] += 1
            if answer.closes:
                return

    incomplete = b"POST /optimized_predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n[1"
    clients = [asyncio.create_task(ask_until_told(number)) for number in range(20)]
    with socket.create_connection(("127.0.0.1", mortal.port)) as leaver:
        leaver.sendall(incomplete)
    with socket.create_connection(("127.0.0.1", mortal.port)) as staller:
        staller.sendall(incomplete)
        while min(answered) < 5:
            await asyncio.sleep(0)
        stats = await mortal.stats()
        mortal.terminate()
        mortal.terminate()  # some send it twice: to the process and to its group
        await asyncio.gather(*clients)
        status = await asyncio.to_thread(mortal.wait)
        assert staller.recv(4096).startswith(b"HTTP/1.1 408 ")

    assert status == 0
    assert stats["queued"] + stats["running"] > 0
    assert sum(answered) >= stats["submitted"]
    # An idle connection was closed while the request was on its way: it was not accepted.
    assert set(crossed) <= {"a kept connection ended with b'' instead of an answer"}
    assert all(line.startswith("INFO:") for line in mortal.log), mortal.log


async def test_limits_are_answers(slow: Server) -> None:
    """A full queue is 503 with Retry-After, a missed timeout 504; `/predict` has no queue."""
    async with httpx.AsyncClient(base_url=slow.url, timeout=PATIENCE) as client:
        answers = await asyncio.gather(*(client.post("/optimized_predict", json=EXAMPLE) for _ in range(40)))
        alone = await client.post("/predict", json=EXAMPLE)

    full = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} <= {200, 503, 504}
    assert full
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in full)
    assert alone.status_code == 200


def test_a_bad_setting() -> None:
    """One line that names the variable and what is allowed; a status that is not 0; no traceback."""
    ended = run_to_end(BATCHER_BACKEND="foo", BATCHER_MAX_BATCH_SIZE="0")

    assert ended.returncode == 3  # with another one uvicorn's supervisor starts it again, for ever
    assert ended.stderr == (
        "error: BATCHER_BACKEND=foo: must be threading or asyncio; "
        "BATCHER_MAX_BATCH_SIZE=0: must be a whole number, 1 or more, or -1 for no limit\n"
    )


def test_a_bad_model_file(tmp_path: Path) -> None:
    """The same, where only Keras can see it."""
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("other", "{}")
    file.with_suffix(".json").write_bytes(MODEL_FILE.with_suffix(".json").read_bytes())
    ended = run_to_end(MODEL_FILE=str(file))

    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if "error: " in line]
    assert f"MODEL_FILE={file}" in line
    assert "cannot be loaded by Keras" in line
