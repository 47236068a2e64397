"""The OpenAPI document of the routes of predictions: what they take, and each answer that they give."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from .models import Model
from .payloads import schemas

PROBLEMS = {
    "title": "Problems",
    "type": "object",
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                    "msg": {"type": "string"},
                },
                "required": ["type", "loc", "msg"],
            },
        }
    },
    "required": ["detail"],
}
"""The schema of answers to what is wrong with a request."""

REFUSAL = {
    "title": "Refusal",
    "type": "object",
    "properties": {"detail": {"type": "string"}},
    "required": ["detail"],
}
"""The schema of answers to good requests that have no result."""


def _answer(description: str, schema: dict[str, Any], *, retry: bool = False) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    after = {"description": "Seconds after which to ask again.", "schema": {"type": "integer", "minimum": 1}}
    return {"description": description, "content": content} | (
        {"headers": {"Retry-After": after}} if retry else {}
    )


ANSWERS: dict[int | str, dict[str, Any]] = {
    408: _answer("The body did not come in time.", PROBLEMS),
    413: _answer("The body is too large, or has more items than the queue takes.", PROBLEMS),
    422: _answer(
        "The body does not fit the schema, the model has no answer for it, or X-Request-Timeout is no number.",
        PROBLEMS,
    ),
    500: {"description": "The model failed; the log says how.", "content": {"text/plain": {}}},
    503: _answer("The queue is full, there is no memory, or the server stops.", REFUSAL, retry=True),
    504: _answer("No prediction in time.", REFUSAL),
}

TIMEOUT_PARAMETER = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Seconds that the client waits; the server's own limit holds, too.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def document(api: FastAPI, model: Model, kinds: dict[str, str]) -> None:
    """Let the document of the API have the schemas of items and results."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            made = get_openapi(
                title=api.title, version=api.version, description=api.description, routes=api.routes
            )
            found, definitions = schemas(item=(model.items, "validation"), result=(model.results, "serialization"))
            made.setdefault("components", {}).setdefault("schemas", {}).update(definitions)
            item = found["item"] | ({} if model.example is None else {"examples": [model.example]})
            for route, kind in kinds.items():
                post = made["paths"][route]["post"]
                many = kind == "items"
                body = {"type": "array", "items": item} if many else item
                result = {"type": "array", "items": found["result"]} if many else found["result"]
                content: dict[str, Any] = {"schema": body}
                if model.example is not None:
                    content["example"] = [model.example] if many else model.example
                post["parameters"] = [TIMEOUT_PARAMETER]
                post["requestBody"] = {"required": True, "content": {"application/json": content}}
                post["responses"]["200"]["content"] = {"application/json": {"schema": result}}
            api.openapi_schema = made
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents
