"""The pieces of `batchers.serving` in an application of one's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from batchers import Batcher, create_batcher
from batchers.arrays import rows
from batchers.serving import Service, UnprocessableError, add_error_handlers, add_operations, process
from tests.support.children import PATIENCE
from tests.support.gate import Gate


def number(item: Any) -> Any:
    """Return a number; raise RowError for other texts."""
    return rows((), "int64")(int(item) if str(item).isdigit() else item)


def app_of(batcher: Batcher[Any, Any], service: Service | None = None) -> FastAPI:
    """Return an application as users write it."""
    app = FastAPI(lifespan=None if service is None else service.lifespan)
    add_error_handlers(app)
    if service is not None:
        add_operations(app, service)

    @app.post("/predict")
    async def predict(item: Any, request: Request) -> Any:
        return await process(batcher, item, request)

    return app


def test_answers_and_operations(backend: str) -> None:
    """Results, and the routes of the operations; at the end the batcher is stopped."""
    batcher: Batcher[Any, Any] = create_batcher(backend, list, name="mine")
    service = Service(batcher)
    assert not service.is_ready
    with TestClient(app_of(batcher, service)) as client:
        assert client.post("/predict?item=a").json() == "a"
        assert client.get("/readyz").status_code == client.get("/healthz").status_code == 200
        assert client.get("/stats").json()["completed"] == 1
        assert 'batcher_items_total{batcher="mine",outcome="completed"} 1.0' in client.get("/metrics").text
    assert not service.is_ready
    assert batcher.stats().completed == 1
    with pytest.raises(Exception, match="stopped"):
        batcher.call(1)


def test_errors(backend: str) -> None:
    """Each error of a batcher is an answer; none is 500."""
    gate = Gate()
    batcher: Batcher[Any, Any] = create_batcher(
        backend, gate.function("sync"), max_batch_size=1, max_queue_size=1, convert=number
    )
    client = TestClient(app_of(batcher))
    assert client.post("/predict?item=x").status_code == 422
    assert client.post("/predict?item=1", headers={"X-Request-Timeout": "soon"}).status_code == 422
    assert client.post("/predict?item=1", headers={"X-Request-Timeout": "0.01"}).status_code == 504
    waiting = [batcher.submit(1)]
    while not batcher.stats().queued:
        waiting.append(batcher.submit(1))
    refused = client.post("/predict?item=1")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    gate.open()
    for future in waiting:
        future.result(PATIENCE)
    batcher.close()
    assert client.post("/predict?item=1").status_code == 503


def test_starlette(backend: str) -> None:
    """The handlers do not need FastAPI; the model refuses an item by an error in its place."""
    batcher: Batcher[Any, Any] = create_batcher(backend, lambda items: [UnprocessableError("no")] * len(items))

    async def predict(request: Request) -> Response:
        return JSONResponse(await process(batcher, await request.json(), request))

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    add_error_handlers(app)
    answer = TestClient(app).post("/predict", json=1)
    assert (answer.status_code, answer.json()["detail"][0]["msg"]) == (422, "no")
    batcher.close()


async def test_a_client_that_leaves(backend: str) -> None:
    """Its item is withdrawn and never runs; others are answered."""
    gate = Gate()
    batcher: Batcher[Any, Any] = create_batcher(backend, gate.function("sync"), max_batch_size=1)
    app = app_of(batcher)
    sent: list[Any] = []
    leaves = asyncio.Event()
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    first = batcher.submit("first")
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"item=second",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
    }
    request = asyncio.create_task(app(scope, receive, send))
    while batcher.stats().queued + batcher.stats().running < 2:
        await asyncio.sleep(0)
    leaves.set()
    await asyncio.wait((request,), timeout=PATIENCE)
    assert batcher.stats().cancelled == 1
    gate.open()
    assert await asyncio.wrap_future(first) == "first"
    await batcher.stop()
    assert sent == [] or sent[0]["status"] != 200
