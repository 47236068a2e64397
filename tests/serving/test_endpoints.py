"""The endpoint of predictions as an ASGI app: what of a request counts, and what an answer says."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from batchers.serving.endpoints import Endpoint, ServedApp
from batchers.serving.payloads import ItemType, dump
from server.model import Row

LIMIT = 200
ROW = ItemType(Row)
BODY = json.dumps([1.0] * 10).encode()
JSON = (b"content-type", b"application/json")


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio's loop."""
    return "asyncio"


async def total(row: list[float], *, timeout: float | None) -> float:
    return sum(row)


def endpoint(process: Any, limit: int, seconds: float, longest: float | None = None) -> Endpoint:
    """Return an endpoint for rows of ten numbers."""
    return Endpoint(process, ROW.parse, dump, max_body_size=limit, body_timeout=seconds, longest=longest)


def scope_of(*headers: tuple[bytes, bytes], **more: object) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/p", "headers": list(headers), **more}


async def ask(
    app: Any,
    *parts: bytes,
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,),
    raises: type[Exception] | None = None,
    **more: object,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Post a body in parts; without parts the client leaves."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(raises) if raises else nullcontext():
        await app(scope_of(*headers, **more), receive, send)
    if not sent:
        return 0, {}, b""
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent)


async def test_an_answer() -> None:
    """It is JSON and says how long it is; the body may come in parts."""
    status, headers, body = await ask(endpoint(total, LIMIT, 1.0), BODY[:5], BODY[5:], b"")

    assert (status, body) == (200, b"10.0")
    assert headers == {b"content-type": b"application/json", b"content-length": b"4"}


@pytest.mark.parametrize("value", [np.float64(1.5), np.float32(1.5), 1.5])
async def test_numbers_of_any_kind(value: float) -> None:
    """A model may return numpy's."""

    async def predict(_: list[float], *, timeout: float | None) -> float:
        return value

    assert await ask(endpoint(predict, LIMIT, 1.0), BODY) == (
        200,
        {b"content-type": b"application/json", b"content-length": b"3"},
        b"1.5",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_what_json_cannot_say(value: float) -> None:
    """It is a defect of the model, and no answer."""

    async def predict(_: list[float], *, timeout: float | None) -> float:
        return value

    with pytest.raises(ValueError, match="which is no JSON"):
        await ask(endpoint(predict, LIMIT, 1.0), BODY)


async def test_errors_of_the_model_are_not_the_clients() -> None:
    """Not even those that look like one of a body."""

    async def invalid(_: list[float], *, timeout: float | None) -> float:
        ROW.adapter.validate_python("no row")
        return 0.0

    async def slow(_: list[float], *, timeout: float | None) -> float:
        raise TimeoutError

    with pytest.raises(ValueError, match="validation error"):
        await ask(endpoint(invalid, LIMIT, 1.0), BODY)
    with pytest.raises(TimeoutError):
        await ask(endpoint(slow, LIMIT, 1.0), BODY)


async def test_a_client_that_leaves() -> None:
    """In the middle of its body: nobody is asked and nobody answered."""
    assert await ask(endpoint(total, LIMIT, 1.0)) == (0, {}, b"")


async def test_a_client_that_leaves_while_it_waits() -> None:
    """Its prediction is cancelled, so its item is withdrawn; what others ask goes on."""
    cancelled = asyncio.Event()

    async def predict(_: list[float], *, timeout: float | None) -> float:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        return 0.0

    assert await ask(endpoint(predict, LIMIT, 1.0), BODY) == (0, {}, b"")
    assert cancelled.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_server_that_cancels() -> None:
    """It is no client that leaves: the cancellation goes on."""
    begun = asyncio.Event()

    async def predict(_: list[float], *, timeout: float | None) -> float:
        begun.set()
        return float(await asyncio.get_running_loop().create_future())

    task = asyncio.create_task(ask(endpoint(predict, LIMIT, 1.0), BODY))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("text", "seconds"), [(b"0.5", 0.5), (b"7", 2.0), (b"1e-3", 0.001)])
async def test_the_time_of_a_request(text: bytes, seconds: float) -> None:
    """It is the timeout of the call, up to the server's own."""
    seen: list[float | None] = []

    async def predict(_: list[float], *, timeout: float | None) -> float:
        seen.append(timeout)
        return 0.0

    limited = endpoint(predict, LIMIT, 1.0, 2.0)
    assert (await ask(limited, BODY, headers=(JSON, (b"x-request-timeout", text))))[0] == 200
    await ask(limited, BODY)
    assert seen == [seconds, None]


@pytest.mark.parametrize("text", [b"", b"0", b"-1", b"nan", b"inf", b"soon", b"\xff"])
async def test_times_that_are_none(text: bytes) -> None:
    """The header is named."""
    answer = await ask(endpoint(total, LIMIT, 1.0), BODY, headers=((b"x-request-timeout", text),))
    assert answer[0] == 422
    assert b"x-request-timeout" in answer[2]


async def test_every_answer_is_safe() -> None:
    """Of the routes, of the API, and of what neither knows; while it drains they close the connection, too."""
    drains = False
    api = FastAPI()

    async def fail(row: list[float], *, timeout: float | None) -> float:
        raise KeyError(row, timeout)

    @api.post("/fails-too")
    async def fails() -> None:
        raise KeyError

    endpoints = {"/p": endpoint(total, LIMIT, 1.0), "/fails": endpoint(fail, LIMIT, 1.0)}
    front = ServedApp(api, endpoints, lambda: drains)
    for path in ("/p", "/openapi.json", "/nowhere"):
        _, headers, _ = await ask(front, BODY, path=path)
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"cache-control"] == b"no-store"
        assert b"connection" not in headers
    for path in ("/fails", "/fails-too"):
        status, headers, text = await ask(front, BODY, path=path, raises=KeyError if "too" in path else None)
        assert (status, text) == (500, b"Internal Server Error")
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"connection"] == b"close"
    drains = True
    assert (await ask(front, BODY, path="/p"))[1][b"connection"] == b"close"


async def test_a_drain_that_begins_while_a_request_waits() -> None:
    """Its client is told so in its answer: it may have nothing to send until the listener is closed."""
    drains = False

    async def predict(row: list[float], *, timeout: float | None) -> float:
        nonlocal drains
        drains = True
        return await total(row, timeout=timeout)

    front = ServedApp(FastAPI(), {"/p": endpoint(predict, LIMIT, 1.0)}, lambda: drains)
    status, headers, _ = await ask(front, BODY, path="/p")
    assert (status, headers[b"connection"]) == (200, b"close")


@pytest.mark.parametrize(
    ("path", "body", "headers", "answer"),
    [
        ("/p", BODY, (), (200, None)),
        ("/p", b"", ((b"content-length", b"30"),), (422, b"close")),
        ("/p", b"", ((b"transfer-encoding", b"chunked"),), (422, b"close")),
        ("/p", b"", ((b"content-length", b"0"),), (422, b"close")),
        ("/p", b"", (), (422, b"close")),
        ("/p", b"", ((b"content-type", b"text/plain"),), (422, b"close")),
        ("/other", b"", (), (404, b"close")),
    ],
)
async def test_offers_of_an_upgrade(
    path: str, body: bytes, headers: tuple[tuple[bytes, bytes], ...], answer: tuple[int, bytes | None]
) -> None:
    """A refusal ends the connection: of a body that was not read the rest would be the next request.

    It blames the offer where there was to be a body.
    """
    front = ServedApp(FastAPI(), {"/p": endpoint(total, LIMIT, 1.0)})
    status, found, text = await ask(front, body, path=path, headers=(*headers, (b"upgrade", b"h2c")))
    assert (status, found.get(b"connection")) == answer
    length = dict(headers).get(b"content-length", b"0")
    assert (b"--http h11" in text) is (not body and (length != b"0" or b"transfer-encoding" in dict(headers)))


async def test_a_client_that_stalls() -> None:
    """It is told, and the connection ends, because the rest may still come."""
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await endpoint(total, LIMIT, 0.001)(scope_of(JSON), receive, send)

    assert sent[0]["status"] == 408
    assert dict(sent[0]["headers"])[b"connection"] == b"close"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 200),
        (((b"content-type", b"application/problem+json; charset=utf-8"),), 200),
        ((JSON, (b"content-type", b"text/plain")), 200),
        (((b"content-type", b"text/plain"), JSON), 422),
        ((JSON, (b"content-length", b"000200")), 200),
        ((JSON, (b"content-length", b"201")), 413),
        ((JSON, (b"content-length", b"9" * 5000)), 413),
        ((JSON, (b"content-length", b"5, 5")), 200),
        ((JSON, (b"content-length", b"-1")), 200),
        ((JSON, (b"content-length", b"5"), (b"content-length", b"201")), 200),
    ],
)
async def test_headers(headers: tuple[tuple[bytes, bytes], ...], status: int) -> None:
    """Of several the first counts; a length that is no number says nothing, the body is measured anyway."""
    assert (await ask(endpoint(total, LIMIT, 1.0), BODY, headers=headers))[0] == status
    assert (await ask(endpoint(total, LIMIT, 1.0), BODY, b" " * LIMIT))[0] == 413


@pytest.mark.parametrize(
    ("path", "root_path", "status"),
    [
        ("/p", "", 200),
        ("/models/p", "/models", 200),
        ("/p", "/models", 200),
        ("/modelsp", "/models", 404),
        ("/p/p", "/p", 200),
        ("/p", "/p", 404),
    ],
)
async def test_the_front_behind_a_prefix(path: str, root_path: str, status: int) -> None:
    """The prefix is no part of the path, and is one only up to a slash."""
    front = ServedApp(FastAPI(), {"/p": endpoint(total, LIMIT, 1.0)})

    assert (await ask(front, BODY, path=path, root_path=root_path))[0] == status
