"""The model: loading it, and the two ways to call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

ASSETS = Path(__file__).parent.parent / "assets"
MODEL_FILE = ASSETS / "diabetes.keras"
DESCRIPTION_FILE = MODEL_FILE.with_suffix(".json")

Rows: TypeAlias = npt.NDArray[np.float32]
ModelCall: TypeAlias = Literal["keras", "compiled"]


class Description(BaseModel):
    """What the model file needs beside it: feature names, scaling, and how good the model is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: list[str]
    mean: list[float]
    scale: list[float]
    target_mean: float
    target_scale: float
    r_squared: float
    example: list[float]


class NoPredictionError(ValueError):
    """The model has no finite prediction for a row: its numbers are too large for it."""


class Model:
    """The trained network with its scaling. Rows and predictions are in the units of the data."""

    def __init__(self, file: Path, call: ModelCall) -> None:
        """Load the network from `file` and its description from the JSON file beside it.

        `call` is "keras" (`model.predict`, what most people write) or "compiled" (one `tf.function` for
        every batch size, traced once).
        """
        import keras  # noqa: PLC0415 - TensorFlow takes seconds to import; only a server that starts needs it
        import tensorflow as tf  # noqa: PLC0415

        self.description = Description.model_validate_json(file.with_suffix(".json").read_text())
        network = keras.saving.load_model(file, compile=False)
        self._mean = np.asarray(self.description.mean)
        self._scale = np.asarray(self.description.scale)
        self._call: Callable[[Rows], Rows]
        if call == "keras":
            self._call = lambda rows: network.predict(rows, batch_size=len(rows), verbose=0)
        else:
            signature = tf.TensorSpec((None, len(self.description.features)), tf.float32)
            function = tf.function(lambda rows: network(rows, training=False), input_signature=[signature])
            self._call = lambda rows: function(tf.constant(rows)).numpy()

    def predict(self, rows: list[list[float]]) -> list[float | NoPredictionError]:
        """Return one prediction for each row of 10 finite numbers; an exception where there is none."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = ((np.asarray(rows, np.float64) - self._mean) / self._scale).astype(np.float32)
            scores = self._call(scaled)[:, 0].astype(np.float64)
            values = scores * self.description.target_scale + self.description.target_mean
        sound = np.isfinite(scaled).all(axis=1) & np.isfinite(values)
        return [
            value if good else NoPredictionError("the numbers are too large for the model")
            for value, good in zip(values.tolist(), sound.tolist(), strict=True)
        ]

    def warm_up(self, largest: int) -> None:
        """Run one row and the largest batch, so that no caller pays for tracing and first allocations."""
        for size in (1, largest):
            self.predict([self.description.example] * size)
