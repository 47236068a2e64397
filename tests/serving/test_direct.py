"""The direct path and the way through ASGI give the same answers."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import re
import socket
import sys
import time
from collections.abc import Iterator
from subprocess import DEVNULL
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from benchmarks.faults.client import FAULT_ROW
from tests.support.children import PATIENCE, child
from tests.support.server import Server, environment, free_port, serve

from . import models

ITEM = b'"abc"'
NAMED = {"BATCHER_MODEL": "tests.serving.models:Whole"}


@pytest.fixture(scope="module", params=["threading", "asyncio"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    """Give a server with the direct path, and one without."""
    settings = {**NAMED, "BATCHER_BACKEND": request.param, "BATCHER_MAX_BODY_SIZE": "300"}
    with (
        serve("--header", "x-own:1", app="batchers.serving:app", **settings) as direct,
        serve("--header", "x-own:1", app="batchers.serving:app", BATCHER_DIRECT="false", **settings) as asgi,
    ):
        assert any("Predictions take the direct path" in line for line in direct.log)
        assert any("through ASGI: BATCHER_DIRECT is false" in line for line in asgi.log)
        yield direct, asgi


def exchange(server: Server | int, *parts: bytes) -> bytes:
    """Send bytes in parts to a server, or to a port; return all that comes until the connection is closed."""
    port = server if isinstance(server, int) else server.port
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received


def told(answer: bytes) -> tuple[Any, ...]:
    """Return the status, the headers without the date, in any order, and the body."""
    head, _, body = re.sub(rb"date: [^\r]*\r\n", b"", answer).partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return status, sorted(headers), body


def request_of(
    body: bytes,
    *headers: bytes,
    method: bytes = b"POST",
    path: bytes = b"/predict",
    version: bytes = b"1.1",
    length: bool = True,
) -> bytes:
    """Return a request that asks the server to close the connection."""
    lines = [method + b" " + path + b" HTTP/" + version, b"Host: x", b"Connection: close", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes, size: int) -> bytes:
    """Return a body in chunks."""
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def requests() -> list[bytes]:
    """Return well-formed requests: those with one thing that is special, and many at random."""
    kind = b"Content-Type: application/json"
    found = [
        request_of(ITEM, kind),
        request_of(ITEM),
        request_of(b"", kind),
        request_of(b"", kind, length=False),
        request_of(b"[", kind),
        request_of(b'"%s"' % (b"a" * 400), kind),
        request_of(b'"\\ud800"', kind),
        request_of('"ä"'.encode(), kind),
        request_of(b"\xff\xfe", kind),
        request_of(ITEM, b"Content-Type: text/plain"),
        request_of(ITEM, b"Content-Type: application/vnd.x+json; charset=utf-8"),
        request_of(ITEM, kind, b"X-Request-Timeout: 5"),
        request_of(ITEM, kind, b"X-Request-Timeout: nan"),
        request_of(ITEM, kind, b"X-Request-Timeout: -1", b"X-Request-Timeout: 5"),
        request_of(ITEM, kind, b"Expect: 100-continue"),
        request_of(ITEM, kind, b"Upgrade: h2c"),
        request_of(ITEM, kind, b"X-Forwarded-For: 1.2.3.4"),
        request_of(ITEM, kind, b"X: " + b"a" * 1000),
        request_of(ITEM, kind, version=b"1.0"),
        request_of(ITEM, kind, path=b"/predict/"),
        request_of(ITEM, kind, path=b"/predict?a=1"),
        request_of(ITEM, kind, path=b"/predic%74"),
        request_of(ITEM, kind, path=b"/predict_many"),
        request_of(b"[" + ITEM + b"]", kind, path=b"/predict_many"),
        request_of(ITEM, kind, path=b"/nothing"),
        request_of(ITEM, kind, path=b"http://x/predict"),
        *(request_of(ITEM, kind, method=method) for method in (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")),
        request_of(b"", method=b"GET", path=b"/readyz", length=False),
        request_of(b"", method=b"HEAD", path=b"/healthz", length=False),
        request_of(chunked(ITEM, 2), kind, b"Transfer-Encoding: chunked", length=False),
        request_of(chunked(b'"%s"' % (b"a" * 400), 50), kind, b"Transfer-Encoding: chunked", length=False),
    ]
    chance = random.Random(1)
    paths = [b"/predict", b"/predict", b"/predict", b"/predict/", b"/predict_many", b"/predict?x=y", b"/x"]
    headers = [
        *(kind, b"content-type: APPLICATION/JSON", b"Content-Type: text/html", b"X-Request-Timeout: 3"),
        *(b"x-request-timeout: 0", b"Accept: */*", b"User-Agent: test", b"Cookie: a=b", b"X-Empty:"),
    ]
    bodies = [ITEM, ITEM, b'""', b"null", b"1", b"[1, 2", b'["a", "b"]', b" " * 299 + b"1", b'"x"' + b" " * 400]
    for _ in range(220):
        some = chance.sample(headers, chance.randint(0, 4))
        body = chance.choice(bodies)
        is_chunked = chance.random() < 0.2
        if is_chunked:
            some.append(b"Transfer-Encoding: chunked")
            body = chunked(body, chance.randint(1, 40))
        found.append(
            request_of(
                body,
                *some,
                method=chance.choice([b"POST"] * 6 + [b"GET"]),
                path=chance.choice(paths),
                version=chance.choice([b"1.1"] * 9 + [b"1.0"]),
                length=not is_chunked,
            )
        )
    return found


def test_the_same_answers(both: tuple[Server, Server]) -> None:
    """Status, headers and body, for more than 200 well-formed requests."""
    direct, asgi = both
    asked = requests()
    assert len(asked) > 200
    for request in asked:
        assert told(exchange(direct, request)) == told(exchange(asgi, request)), request


APP_HEADERS = (b"content-", b"x-content-", b"cache-control", b"referrer-policy", b"retry-after", b"allow")


def told_of_app(answer: bytes) -> tuple[Any, ...]:
    """Return what the app says in an answer: the number of its status, its headers and its body."""
    interim, _, rest = answer.partition(b"\r\n\r\n")
    status, headers, body = told(rest if interim.startswith(b"HTTP/1.1 100") else answer)
    return (
        status.split()[1],
        sorted(line.lower() for line in headers if line.lower().startswith(APP_HEADERS)),
        body,
    )


@pytest.fixture
def granian() -> Iterator[int]:
    """Give the port of another ASGI server, which has its own implementation of HTTP."""
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--http", "1", "--host", "127.0.0.1"]
    settings = environment({**NAMED, "BATCHER_MAX_BODY_SIZE": "300"})
    with child([*command, "--port", str(port), "batchers.serving:app"], env=settings, stdout=DEVNULL) as process:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < end
        yield port
        process.terminate()
        process.wait(PATIENCE)


def test_another_asgi_server(both: tuple[Server, Server], granian: int) -> None:
    """It gives the same answers to the same requests, but for HTTP/1.0 in parts, which it refuses itself."""
    direct, _ = both
    for request in requests():
        if b"HTTP/1.0" in request and b"chunked" in request:
            continue
        found = told_of_app(exchange(granian, request))
        assert found == told_of_app(exchange(direct.port, request)), request


def test_split_anywhere(both: tuple[Server, Server]) -> None:
    """A request may come in two parts."""
    direct, asgi = both
    for request in (request_of(ITEM, b"Content-Type: application/json"), request_of(b"1")):
        expected = told(exchange(asgi, request))
        for place in range(1, len(request)):
            assert told(exchange(direct, request[:place], request[place:])) == expected, place


def test_pipelined_requests(both: tuple[Server, Server]) -> None:
    """The answers come in the order of the requests, whichever way they took."""
    direct, asgi = both
    keep = request_of(ITEM, b"Content-Type: application/json").replace(b"Connection: close\r\n", b"")
    other = request_of(b"", method=b"GET", path=b"/healthz", length=False).replace(b"Connection: close\r\n", b"")
    last = request_of(b'"z"', b"Content-Type: application/json")
    for stream in (keep + keep + last, keep + other + last, other + keep + last, keep + other + keep + last):
        answers = [re.sub(rb"date: [^\r]*\r\n", b"", exchange(server, stream)) for server in both]
        assert answers[0].count(b"HTTP/1.1 200 OK") == stream.count(b" HTTP/1.1")
        assert answers[0].endswith(b'"Z"')
        assert sorted(answers[0].split(b"\r\n")) == sorted(answers[1].split(b"\r\n"))
    del direct, asgi


def test_one_connection(both: tuple[Server, Server]) -> None:
    """Many requests on one connection; `stats` counts them all."""
    for server in both:
        with httpx.Client(base_url=server.url) as client:
            before = client.get("/stats").json()["completed"]
            for number in range(50):
                assert client.post("/predict", json=str(number)).json() == str(number)
            assert client.get("/stats").json()["completed"] == before + 50


def test_a_head_that_is_too_long(both: tuple[Server, Server]) -> None:
    """It is 431, and the connection is closed."""
    direct, _ = both
    head = b"POST /predict HTTP/1.1\r\nX: " + b"a" * 100_000
    status, headers, _ = told(exchange(direct, head))
    assert status.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in headers


@pytest.mark.parametrize("part", [b"0\r\nX: ", b"3;x="])
@pytest.mark.parametrize("path", [b"/predict", b"/predict?x=y", b"/nothing"])
def test_trailers_that_do_not_end(both: tuple[Server, Server], part: bytes, path: bytes) -> None:
    """What comes after the last part of a body, and brings nothing, ends the connection from 64 KiB on."""
    direct, _ = both
    head = request_of(b"", b"Transfer-Encoding: chunked", path=path, length=False)
    parts = [b"a" * 1000] * 10_000
    with socket.create_connection(("127.0.0.1", direct.port), PATIENCE) as connection:
        connection.sendall(head + b'1\r\n"\r\n' + part)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(b"".join(parts))
    assert json.loads(told(exchange(direct, request_of(ITEM)))[2]) == "ABC"


def test_no_http(both: tuple[Server, Server]) -> None:
    """It is uvicorn's own 400."""
    direct, asgi = both
    for garbage in (b"\x00\x01\r\n\r\n", b"POST /predict HTTP/9.9\r\n\r\n", b"POST\r\n\r\n"):
        assert told(exchange(direct, garbage)) == told(exchange(asgi, garbage))
    assert json.loads(told(exchange(direct, request_of(ITEM)))[2]) == "ABC"


@pytest.fixture(scope="module")
def big() -> Iterator[Server]:
    """Give a server whose answers are as long as the client says."""
    with serve(
        "--timeout-keep-alive", "1", app="batchers.serving:app", BATCHER_MODEL="tests.serving.models:big"
    ) as server:
        yield server


@pytest.mark.parametrize("item", [b'"surrogate"', b'"mute"'])
def test_refusals_without_words(big: Server, item: bytes) -> None:
    """They are 500, and the connection ends."""
    assert told(exchange(big, request_of(item)))[0] == b"HTTP/1.1 500 Internal Server Error"


def test_a_client_that_does_not_read(big: Server) -> None:
    """An answer that waits is the only one; a refused item does not reach the model."""
    long, refused = b'"8000000"', request_of(ITEM, b"Content-Type: text/plain")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", big.port))
        connection.sendall(request_of(long).replace(b"Connection: close\r\n", b""))
        with httpx.Client(base_url=big.url) as client:
            before = client.get("/stats").json()["completed"]
            connection.sendall(refused)
            received = bytearray()
            while data := connection.recv(1 << 20):
                received += data
            assert client.get("/stats").json()["completed"] <= before + 1
    assert bytes(received).count(b"HTTP/1.1 ") == 2
    assert received.count(b"HTTP/1.1 422 ") == 1


def test_an_answer_before_a_slow_request() -> None:
    """The limit of idle connections does not begin while the next request of the same data is running."""
    with serve(
        "--timeout-keep-alive", "1", app="benchmarks.faults.faulty:app", FAULT="hold", MODEL_CALL="emulated"
    ) as server:
        bad = request_of(b"1", b"Content-Type: text/plain", path=b"/optimized_predict")
        held = request_of(json.dumps(FAULT_ROW).encode(), path=b"/optimized_predict")
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(bad.replace(b"Connection: close\r\n", b"") + held)
            assert connection.recv(65536).startswith(b"HTTP/1.1 422 ")
            connection.settimeout(1.5)  # longer than the limit; on a slow machine the test sees less, and passes
            with pytest.raises(TimeoutError):
                connection.recv(65536)
            httpx.post(f"{server.url}/release")
            connection.settimeout(PATIENCE)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_many_requests_before_half_a_head(both: tuple[Server, Server]) -> None:
    """The limit of a head counts its own bytes, and all requests before it are answered."""
    keep = request_of(ITEM).replace(b"Connection: close\r\n", b"")
    for server in both:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(keep * 1000 + b"POST /predict HTTP/1.1\r\nX: " + b"a" * 600)
            received = b""
            while received.count(b"HTTP/1.1 200 OK") < 1000:
                data = connection.recv(65536)
                assert data
                received += data


def test_a_client_that_leaves() -> None:
    """Its item is withdrawn."""
    with serve(app="benchmarks.faults.faulty:app", FAULT="hold", MODEL_CALL="emulated") as server:
        assert any("the direct path" in line for line in server.log)
        row = json.dumps(FAULT_ROW).encode()
        request = request_of(row, b"Content-Type: application/json", path=b"/optimized_predict")
        holds = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        holds.sendall(request)
        with httpx.Client(base_url=server.url) as client:
            until(client, "running", 1)
            leaves = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            leaves.sendall(request)
            until(client, "queued", 1)
            leaves.close()
            until(client, "cancelled", 1)
            client.post("/release")
            assert holds.recv(65536).startswith(b"HTTP/1.1 200 OK")
            holds.close()


@pytest.mark.parametrize("direct", ["true", "false"])
def test_a_full_queue_is_answered_before_the_body_is_parsed(direct: str) -> None:
    """A body that would be 422 is 503 then."""
    settings = {"BATCHER_MAX_BATCH_SIZE": "1", "BATCHER_CONCURRENCY": "1", "BATCHER_MAX_QUEUE_SIZE": "1"}
    held = request_of(json.dumps(FAULT_ROW).encode(), path=b"/optimized_predict")
    with (
        serve(
            app="benchmarks.faults.faulty:app",
            FAULT="hold",
            MODEL_CALL="emulated",
            BATCHER_DIRECT=direct,
            **settings,
        ) as server,
        httpx.Client(base_url=server.url) as client,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as runs,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as waits,
    ):
        assert client.post("/optimized_predict", content="no JSON").status_code == 422
        runs.sendall(held)
        until(client, "running", 1)
        waits.sendall(held)
        until(client, "queued", 1)
        answer = client.post("/optimized_predict", content="no JSON")
        assert (answer.status_code, answer.json()) == (503, {"detail": "too many requests wait"})
        assert int(answer.headers["retry-after"]) >= 1
        client.post("/release", content="2")
        for connection in (runs, waits):
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def until(client: httpx.Client, name: str, count: int) -> None:
    """Wait until a counter of `/stats` has this value."""
    end = time.monotonic() + PATIENCE
    while client.get("/stats").json()[name] != count:
        assert time.monotonic() < end


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("tests.serving.wrapped:around", "the application is inside of Around"),
        ("tests.serving.wrapped:inside", "the middleware Guard"),
        ("tests.serving.wrapped:depends", "dependencies of the application"),
    ],
)
def test_what_stands_between(app: str, reason: str) -> None:
    """Authentication around the app, in it, or as a dependency: each route answers 401."""
    with serve(app=app) as server:
        assert any(f"through ASGI: {reason}" in line for line in server.log), server.log
        for path in ("/predict", "/predict/", "/predict_many"):
            assert httpx.post(f"{server.url}{path}", json="abc").status_code == 401
            allowed = httpx.post(
                f"{server.url}{path}", json=["abc"] if "many" in path else "abc", headers={"x-key": "1"}
            )
            assert allowed.status_code == 200


async def test_what_is_internal_to_uvicorn() -> None:
    """`batchers/serving/direct.py` uses these names of uvicorn's protocol; a new version may change them."""
    config = uvicorn.Config(models.lengths, lifespan="off", ws="none")
    config.load()
    state = ServerState()
    protocol = HttpToolsProtocol(config, state, {}, asyncio.get_running_loop())
    names = {
        *(
            "access_log",
            "access_logger",
            "client",
            "cycle",
            "expect_100_continue",
            "flow",
            "headers",
            "loop",
            "parser",
        ),
        *(
            "pipeline",
            "root_path",
            "scope",
            "server_state",
            "timeout_keep_alive",
            "timeout_keep_alive_task",
            "transport",
        ),
        *("_unset_keepalive_if_required", "connection_lost", "data_received", "on_body", "on_header"),
        *("on_headers_complete", "on_message_begin", "on_message_complete", "on_response_complete", "on_url"),
        *("resume_writing", "send_400_response", "timeout_keep_alive_handler"),
    }
    assert not {name for name in names if not hasattr(protocol, name)}
    assert {"default_headers", "total_requests", "connections"} <= set(dir(state))
    assert {"disconnected", "keep_alive", "message_event", "response_complete"} <= set(
        inspect.getsource(RequestResponseCycle).replace("self.", " ").split()
    )
    assert STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"
    assert set(FlowControl.__dict__) >= {"pause_reading", "resume_reading", "pause_writing", "resume_writing"}


def test_h11_means_asgi() -> None:
    """Another protocol of uvicorn is left as it is."""
    with serve("--http", "h11", app="batchers.serving:app", **NAMED) as server:
        assert any("through ASGI: the HTTP protocol is H11Protocol" in line for line in server.log)
        assert httpx.post(f"{server.url}/predict", json="abc").json() == "ABC"
