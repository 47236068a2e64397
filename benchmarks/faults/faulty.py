"""The server with a model, or a clock, that does what FAULT says: `uvicorn benchmarks.faults.faulty:app`."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from itertools import count

from fastapi import Request

from server import app as module
from server import model
from server.model import Emulated, NoPredictionError, Predictor

from .client import FAULT_ROW

FAULT = os.environ.get("FAULT", "")


TRIGGER = FAULT_ROW[0]
"""The first number of a row that brings the fault about; other rows are served well."""

TENTH = 10

released = threading.Semaphore(0)


class Faulty(Emulated):
    """The emulated model: it fails, hangs, waits, answers too little, or raises what ends a program."""

    def __init__(self) -> None:
        """Begin to count."""
        super().__init__()
        self._numbers = count(1)

    def predict(self, rows: list[list[float]]) -> list[float | NoPredictionError]:
        """Do it, well or not."""
        found = super().predict(rows)
        if any(row[0] == TRIGGER for row in rows):
            if FAULT == "tenth" and next(self._numbers) % TENTH == 0:
                msg = "the device is on fire"
                raise RuntimeError(msg)
            if FAULT == "hold":
                released.acquire()
            if FAULT == "hang":
                threading.Event().wait()
            if FAULT == "size":
                return found[:-1]
            if FAULT == "exit":
                raise SystemExit(3)
        return found


def _load(*_: object) -> Predictor:
    return Faulty()


model.load = _load  # type: ignore[assignment]  # it takes all
if FAULT == "clock":
    DAY = 86_400.0
    _time, _jumps = time.time, random.Random(7)
    setattr(time, "time", lambda: _time() + _jumps.choice([-DAY, 0.0, DAY]))  # noqa: B010 - for all who look
app = module.app


@app.api.post("/release", include_in_schema=False)
async def release(request: Request) -> None:
    """Let go one batch that FAULT=hold holds, or will hold; or as many as the body says, once it has come."""
    released.release(int(await request.body() or 1))


@app.api.get("/tasks", include_in_schema=False)
async def tasks() -> int:
    """Return how many tasks the loop has."""
    return len(asyncio.all_tasks())
