"""Other servers with the same model, each made as its own documentation shows.

`python -m benchmarks.peers.apps.NAME PORT`. Batches of at most 256, and the shortest window that each allows: what
is compared is how they serve, not how long they wait.
"""

from __future__ import annotations

import gc
import os
from math import nan

from server.model import MODEL_FILE, ModelCall, Predictor, load

MOST = int(os.environ.get("ROWS", "256"))
"""Rows in a batch."""

CALL: ModelCall = "emulated" if os.environ.get("MODEL_CALL") == "emulated" else "compiled"


def model() -> Predictor:
    """Load the model and prepare the process as the server of this project does."""
    found = load(MODEL_FILE, CALL)
    found.warm_up(MOST)
    gc.collect()
    gc.freeze()
    return found


def values(predictor: Predictor, rows: list[list[float]]) -> list[float]:
    """Return the predictions; NaN where there is none, as a model does by itself."""
    return [nan if isinstance(value, Exception) else float(value) for value in predictor.predict(rows)]
