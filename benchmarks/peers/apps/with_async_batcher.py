"""async-batcher under FastAPI."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import uvicorn
from async_batcher.batcher import AsyncBatcher
from fastapi import FastAPI

from . import MOST, model, values

predictor = model()


class Predictions(AsyncBatcher[list[float], float]):  # type: ignore[misc]  # it ships no types
    """The model in batches."""

    def process_batch(self, batch: list[list[float]]) -> list[float]:
        """Call the model."""
        return values(predictor, batch)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Own the batcher."""
    app.state.batcher = Predictions(max_batch_size=MOST, max_queue_time=0, executor=ThreadPoolExecutor(1))
    yield
    await app.state.batcher.stop()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(row: list[float]) -> float:
    """Put a row into a batch."""
    answer: float = await app.state.batcher.process(item=row)
    return answer


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, ws="none", log_level="warning")
