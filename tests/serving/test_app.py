"""Any model behind HTTP: types, errors, documents, and the start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from batchers.serving import ModelError, Settings, create_app
from tests.support.server import run_to_end, serve

from . import models


@contextmanager
def client_of(model: Any, **options: Any) -> Iterator[TestClient]:
    """Give a client of an app, which lives meanwhile."""
    with TestClient(create_app(model, **options), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("model", "item", "result", "bad"),
    [
        (models.lengths, "abc", 3, 3),
        (models.doubled, 1.5, 3.0, "x"),
        (models.untyped, {"a": [None, 1]}, {"a": [None, 1]}, None),
        (models.norms, {"x": 1, "y": -2}, {"x": 3.0, "y": 0.0}, {"y": 1}),
        (models.names, {"name": "a"}, "a", {}),
        (models.widths, {"width": 1}, {"width": 2}, {"width": "x"}),
        (models.arrays, [1, 2, 3], 2.0, [1, 2]),
        (models.Whole, "a", "A", 1),
        (models.Whole(), "a", "A", []),
        (models.WithExample, [1, 2], 3.0, [1]),
        (models.PointModel, {"x": 2}, 2.0, {}),
        (models.DictModel, {"x": 2}, 2.0, {}),
        (models.Callable([1.0]), "abc", 3, 1.0),
    ],
)
def test_items_and_results(model: Any, item: Any, result: Any, bad: Any) -> None:
    """One item, many, and one that does not fit; the document describes the schema of the items."""
    with client_of(model) as client:
        answer = client.post("/predict", json=item)
        assert (answer.status_code, answer.json()) == (200, result)
        answer = client.post("/predict_many", json=[item, item])
        assert (answer.status_code, answer.json()) == (200, [result, result])
        assert client.post("/predict_many", json=[]).json() == []
        if bad is not None:
            answer = client.post("/predict", json=bad)
            assert answer.status_code == 422
            assert {"type", "loc", "msg"} == set(answer.json()["detail"][0])
            assert client.post("/predict_many", json=[item, bad]).status_code == 422
        document = client.get("/openapi.json").json()
        content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        assert "schema" in content
        assert ("example" in content) is hasattr(model, "example")


def test_the_document() -> None:
    """Schemas of models are components; those of rows have their shape."""
    with client_of(models.norms) as client:
        document = client.get("/openapi.json").json()
        post = document["paths"]["/predict"]["post"]
        assert post["requestBody"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/Point"
        }
        assert "x" in document["components"]["schemas"]["Point"]["properties"]
        many = document["paths"]["/predict_many"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert many["type"] == "array"
        assert [each["name"] for each in post["parameters"]] == ["X-Request-Timeout"]
        assert sorted(post["responses"]) == ["200", "408", "413", "422", "500", "503", "504"]
        problems = post["responses"]["422"]["content"]["application/json"]["schema"]
        assert set(problems["properties"]["detail"]["items"]["properties"]) == {"type", "loc", "msg"}
        assert "Retry-After" in post["responses"]["503"]["headers"]
        assert client.get("/docs").status_code == 200
    with client_of(models.arrays) as client:
        post = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
        schema = post["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    with client_of(models.Whole) as client:
        content = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
        assert content["application/json"]["example"] == "abc"


@pytest.mark.parametrize(
    ("item", "status", "body"),
    [
        ("array", 200, "[0,1,2]"),
        ("scalar", 200, "3"),
        ("set", 200, "[1]"),
        ("text", 200, '"ä"'),
        ("none", 200, "null"),
        ("refused", 422, '{"detail":[{"type":"unprocessable","loc":["body"],"msg":"no such word"}]}'),
        ("nan", 500, "Internal Server Error"),
        ("nested", 500, "Internal Server Error"),
        ("object", 500, "Internal Server Error"),
        ("broken", 500, "Internal Server Error"),
    ],
)
def test_results_as_json(item: str, status: int, body: str) -> None:
    """What numpy and pydantic know is JSON; what JSON cannot say is a defect of the model."""
    with client_of(models.answers) as client:
        answer = client.post("/predict", json=item)
        assert (answer.status_code, answer.text) == (status, body)
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("backend", ["threading", "asyncio"])
def test_which_item_of_a_list_has_failed(backend: str) -> None:
    """The place of a problem has the index of its item: of a refusal, of an item that does not fit, of a row."""
    settings = Settings.model_construct(backend=backend)
    with client_of(models.answers, settings=settings) as client:
        detail = client.post("/predict_many", json=["text", "none", "refused", "text"]).json()["detail"]
        assert detail == [{"type": "unprocessable", "loc": ["body", 2], "msg": "no such word"}]
        assert client.post("/predict_many", json=["text", 1]).json()["detail"][0]["loc"] == ["body", 1]
    with client_of(models.arrays, settings=settings) as client:
        detail = client.post("/predict_many", json=[[1, 2, 3], [1, 2]]).json()["detail"]
        assert (detail[0]["type"], detail[0]["loc"]) == ("item", ["body", 1])


def test_many_problems() -> None:
    """Neither their number nor their places make a long answer."""
    with client_of(models.doubled) as client:
        for count, shown, rest in ((50, 50, ""), (51, 50, "1 more"), (2000, 0, "2000 more")):
            answer = client.post("/predict_many", json=["x"] * count)
            detail = answer.json()["detail"]
            assert answer.status_code == 422
            assert [each["loc"] for each in detail[:shown]] == [["body", index] for index in range(shown)]
            assert len(detail) == shown + bool(rest)
            assert detail[-1]["msg"].startswith(rest)
    with client_of(models.strict) as client:
        answer = client.post("/predict", json={"a" * 10_000: [[]]})
        assert answer.status_code == 422
        assert len(answer.content) < 1000


def test_a_model_lives_with_the_server() -> None:
    """It is loaded and warmed up before the first request, and closed after the last."""
    model = models.Whole()
    settings = Settings.model_construct(max_batch_size=8)
    with client_of(model, settings=settings) as client:
        assert model.events == ["load", ("warm_up", 8)]
        assert client.get("/readyz").status_code == 200
        assert client.get("/stats").json()["backend"] == "asyncio"
    assert model.events == ["load", ("warm_up", 8), "close"]
    other = models.WithExample()
    with client_of(other, settings=settings):
        assert other.sizes == [1, 8]


def test_more_routes() -> None:
    """One that calls the model for a request alone, and another name."""
    with client_of(models.lengths, path="/batched", alone="/alone", about={"kind": "x"}) as client:
        assert client.post("/alone", json="abc").json() == client.post("/batched/", json="abc").json() == 3
        assert client.post("/predict", json="abc").status_code == 404
        assert client.get("/stats").json()["kind"] == "x"
        assert client.get("/stats").json()["completed"] == 1


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (models.number, "3 is no model"),
        (models.Plain, "is no model: it must be a function of a list, or an object with predict"),
        (models.BadInit, "BadInit() failed: RuntimeError: no device"),
        (models.complexes, "cannot come as JSON"),
        (models.already, "is batched already: give the plain function"),
        (models.one_item, "one_item takes str: a model takes a list, for example list[str]"),
        (models.no_items, "no_items cannot be called with one list"),
        (models.WrongExample, "is no item"),
    ],
)
def test_what_is_no_model(model: Any, text: str) -> None:
    """It is refused in one line."""
    with pytest.raises(ModelError) as refused:
        create_app(model)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("", "BATCHER_MODEL is not set: it must be package.module:name"),
        ("models", "write package.module:name"),
        ("no.such.module:x", "there is no module no.such.module: start in its folder"),
        ("tests.serving.models:nothing", "has no nothing; it has"),
        ("tests.serving.models:BadInit", "BadInit() failed: RuntimeError: no device"),
        ("tests.serving.models:BadLoad", "error: load() failed: OSError: no such file ("),
        ("tests.serving.models:TooFew", "predict returned 1 results for 256 items"),
    ],
)
def test_a_start_that_fails(model: str, text: str) -> None:
    """One line that names the cause, no traceback, and a status that ends uvicorn's supervisor."""
    named: Any = {"BATCHER_MODEL": model} if model else {}
    ended = run_to_end(app="batchers.serving:app", **named)
    assert ended.returncode == 3
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("error: ") == 1


def test_a_server(backend: str) -> None:
    """From the environment, on a real socket."""
    with serve(
        app="batchers.serving:app", BATCHER_MODEL="tests.serving.models:Whole", BATCHER_BACKEND=backend
    ) as server:
        assert httpx.post(f"{server.url}/predict", json="abc").json() == "ABC"
        server.terminate()
        assert server.wait() == 0


@pytest.mark.parametrize("body", ["NaN", "Infinity", "[", '"x"'])
def test_numbers_that_are_no_json(body: str) -> None:
    """They are the client's error, not the model's."""
    with client_of(models.floats) as client:
        assert client.post("/predict", content=body).status_code == 422
        assert client.post("/predict_many", content=f"[{body}]").status_code == 422
    if body != '"x"':
        with client_of(models.untyped) as client:
            assert client.post("/predict", content=body).status_code == 422
            assert client.post("/predict_many", content=f"[{body}]").status_code == 422


def test_more_items_than_the_queue_takes() -> None:
    """It is 413, and the text says how many are allowed."""
    with client_of(models.lengths, settings=Settings.model_construct(max_queue_size=3)) as client:
        answer = client.post("/predict_many", json=["a"] * 4)
        assert answer.status_code == 413
        assert "more than 3 items" in answer.text
        assert client.post("/predict_many", json=["a"] * 3).json() == [1, 1, 1]
