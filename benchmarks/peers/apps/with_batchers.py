"""The asyncio backend in the same typed FastAPI route as async-batcher's, so that only the batcher differs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from batchers import AsyncioBatcher

from . import MOST, model, values

predictor = model()


class Predictions(AsyncioBatcher[list[float], float]):
    """The model in batches."""

    def process_batch(self, batch: list[list[float]]) -> list[float]:
        """Call the model."""
        return values(predictor, batch)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Own the batcher."""
    app.state.batcher = Predictions(max_batch_size=MOST)
    yield
    await app.state.batcher.stop()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(row: list[float]) -> float:
    """Put a row into a batch."""
    answer: float = await app.state.batcher.process(row)
    return answer


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, ws="none", log_level="warning")
