"""batched under FastAPI, with a window of 1 ms: with 0 it would spin, and take a core."""

from __future__ import annotations

import sys

import uvicorn
from batched import aio
from fastapi import FastAPI

from . import MOST, model, values

predictor = model()


@aio.dynamically(batch_size=MOST, timeout_ms=1.0)  # type: ignore[untyped-decorator]  # it ships no types
def predictions(rows: list[tuple[float, ...]]) -> list[float]:
    """Call the model."""
    return values(predictor, [list(row) for row in rows])


app = FastAPI()


@app.post("/predict")
async def predict(row: list[float]) -> float:
    """Put a row into a batch; a list would be taken as many rows."""
    answer: float = await predictions(tuple(row))
    return answer


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, ws="none", log_level="warning")
