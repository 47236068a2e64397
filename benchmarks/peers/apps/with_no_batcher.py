"""The route of this project without a batcher: the model is called for each request, in the event loop itself.

What it is faster with one connection is what a batcher adds. With more connections nothing is shared.
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI

from batchers.serving.endpoints import Endpoint, ServedApp
from batchers.serving.payloads import ItemType, dump
from server.model import Row
from server.settings import read_settings

from . import model, values

predictor = model()


async def predict(row: list[float], *, timeout: float | None) -> float:  # noqa: ARG001 - no limit here
    """Call the model for one row."""
    (value,) = values(predictor, [row])
    return value


settings = read_settings()
endpoint = Endpoint(
    predict,
    ItemType(Row).parse,
    dump,
    max_body_size=settings.max_body_size,
    body_timeout=settings.body_timeout,
)
app = ServedApp(FastAPI(), {"/predict": endpoint})

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, ws="none", log_level="warning")
