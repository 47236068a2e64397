"""Which load measurements there are, and in which order."""

from __future__ import annotations

from typing import get_args

from benchmarks.scale import Scale

from .run import Backend, Cell, ModelCall

ABBA: tuple[Backend, ...] = ("threading", "asyncio", "asyncio", "threading")
"""Whatever drifts evenly while they run, drifts for both alike."""

ORIGINALS = {
    "predict": Cell(path="/predict", model_call="emulated", ramp="v0.1.0"),
    "optimized_predict": Cell(
        path="/optimized_predict", backend="threading", model_call="emulated", ramp="v0.1.0"
    ),
    "optimized_predict_v0.2.0": Cell(
        path="/optimized_predict", backend="asyncio", model_call="emulated", ramp="v0.2.0"
    ),
}
"""The plots of the original report, with its ramps, on a model that takes what its model took."""


KERAS = Cell(path="/optimized_predict", backend="asyncio", model_call="keras")
SETTINGS = {
    "keras-original-settings": {"BATCHER_CONCURRENCY": "12", "BATCHER_MAX_QUEUE_TIME": "0.01"},
    "keras-twelve-in-flight": {"BATCHER_CONCURRENCY": "12"},
    "keras-window": {"BATCHER_MAX_QUEUE_TIME": "0.01"},
}
"""The settings of the original's v0.2.0, then one of the two alone. The matrix has the defaults."""


def cells(scale: Scale) -> dict[str, Cell]:
    """Return the measurements by their names, in order.

    A full one has 3000 users, 12 s to come and a minute to stay; the original's ramps are as long
    as they were there. A quick one has a fifth of the users and a fiftieth of the time, each backend once, and
    no special settings.
    """
    shrunk = {"most_users": 600, "time_scale": 0.02} if scale == "quick" else {"time_scale": 0.2}
    found = {
        f"load/original/{name}": cell.model_copy(update=shrunk if scale == "quick" else {})
        for name, cell in ORIGINALS.items()
    }
    for call in get_args(ModelCall):
        found[f"load/predict-{call}"] = Cell(path="/predict", model_call=call).model_copy(update=shrunk)
        for number, backend in enumerate(ABBA if scale == "full" else ABBA[:2]):
            name = f"load/optimized_predict-{call}-{backend}-{number // 2 + 1}"
            cell = Cell(path="/optimized_predict", backend=backend, model_call=call)
            found[name] = cell.model_copy(update=shrunk)
    for name, settings in SETTINGS.items() if scale == "full" else ():
        found[f"load/settings/{name}"] = KERAS.model_copy(update={**shrunk, "settings": settings})
    return found
