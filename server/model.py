"""The model: loading it, and the ways to call it."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from batchers.serving import ModelError, UnprocessableError

ASSETS = Path(__file__).parent.parent / "assets"
MODEL_FILE = ASSETS / "diabetes.keras"
DESCRIPTION_FILE = MODEL_FILE.with_suffix(".json")

FEATURES = 10
"""Numbers in a row."""

Rows: TypeAlias = npt.NDArray[np.float32]
ModelCall: TypeAlias = Literal["keras", "compiled", "emulated"]


def _not_zero(value: float) -> float:
    if value == 0:
        msg = "a scale is not 0"
        raise ValueError(msg)
    return value


Number = Annotated[float, Field(allow_inf_nan=False)]
Scale = Annotated[Number, AfterValidator(_not_zero)]


class Description(BaseModel):
    """What the model file needs beside it: feature names, scaling, and how good the model is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: list[str]
    mean: list[Number]
    scale: list[Scale]
    target_mean: Number
    target_scale: Scale
    r_squared: Number
    example: list[Number]

    @model_validator(mode="after")
    def _one_for_each_feature(self) -> Self:
        for name in ("features", "mean", "scale", "example"):
            count = len(getattr(self, name))
            if count != FEATURES:
                msg = f"{name} has {count} elements and not {FEATURES}"
                raise ValueError(msg)
        return self


Measurement = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Row = Annotated[list[Measurement], Field(min_length=FEATURES, max_length=FEATURES, title="Measurements")]
"""What a request brings."""


class ModelFileError(ValueError):
    """The model file is none that this server can use."""


class NoPredictionError(UnprocessableError):
    """The model has no finite prediction for a row: its numbers are too large for it."""


class Predictor(Protocol):
    """What the server needs of a model."""

    def predict(self, rows: list[list[float]]) -> list[float | NoPredictionError]:
        """Return one prediction for each row of 10 finite numbers; an exception where there is none."""
        ...

    def warm_up(self, largest: int) -> None:
        """Run one row and the largest batch, so that no caller pays for what only the first calls need."""
        ...


class Model:
    """The trained network with its scaling. Rows and predictions are in the units of the data."""

    def __init__(self, file: Path, call: Literal["keras", "compiled"]) -> None:
        """Load the network from `file` and its description from the JSON file beside it.

        `call` is "keras" (`model.predict`, what most people write) or "compiled" (one `tf.function` for
        every batch size, traced once). Raises ModelFileError.
        """
        import keras  # noqa: PLC0415 - TensorFlow takes seconds to import; only a server that starts needs it
        import tensorflow as tf  # noqa: PLC0415

        gc.freeze()  # else every full collection while the network is built looks at all of TensorFlow's objects
        self.description = Description.model_validate_json(file.with_suffix(".json").read_text())
        try:
            network = keras.saving.load_model(file, compile=False)
        except Exception as error:
            msg = f"{file} cannot be loaded by Keras: {_first_line(error)}"
            raise ModelFileError(msg) from error
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
        """Run one row and the largest batch, so that no caller pays for tracing and first allocations.

        Raises ModelFileError when the model cannot predict its own example.
        """
        try:
            answers = [self.predict([self.description.example] * size)[0] for size in (1, largest)]
        except Exception as error:
            msg = f"the model cannot predict its example: {_first_line(error)}"
            raise ModelFileError(msg) from error
        for answer in answers:
            if isinstance(answer, NoPredictionError):
                msg = f"the model cannot predict its example: {answer}"
                raise ModelFileError(msg)


class Emulated:
    """No model, but the time that one takes on one device: 11 ms and 0.01 ms for each row, one call at a time.

    The times of the benchmark that this project began with, on every machine. The interpreter is free
    meanwhile. It predicts the sum of a row.
    """

    CALL, ROW = 0.011, 0.000_01
    """Seconds."""

    def __init__(self) -> None:
        """Be ready at once."""
        self._device = threading.Lock()

    def predict(self, rows: list[list[float]]) -> list[float | NoPredictionError]:
        """Return the sum of each row; an exception where it is not finite."""
        with self._device:
            time.sleep(self.CALL + self.ROW * len(rows))
        sums = map(sum, rows)
        return [
            value if math.isfinite(value) else NoPredictionError("the numbers are too large") for value in sums
        ]

    def warm_up(self, largest: int) -> None:
        """Do nothing: no call is slower than another."""


def load(file: Path, call: ModelCall) -> Predictor:
    """Return what `MODEL_CALL` names. Raises ModelFileError."""
    return Emulated() if call == "emulated" else Model(file, call)


class DiabetesModel:
    """The model as `batchers.serving` takes it: it is loaded when the server starts."""

    def __init__(self, file: Path, call: ModelCall, description: Description) -> None:
        """Store what is loaded later."""
        self._file, self._call = file, call
        self._predictor: Predictor | None = None
        self.example = description.example

    def load(self) -> None:
        """Load the network. Raises ModelError."""
        try:
            self._predictor = load(self._file, self._call)
        except ModelFileError as error:
            raise self._error(error) from error

    def warm_up(self, size: int) -> None:
        """Run one row and the largest batch. Raises ModelError."""
        try:
            self._loaded().warm_up(size)
        except ModelFileError as error:
            raise self._error(error) from error

    def predict(self, rows: list[Row]) -> list[float | NoPredictionError]:
        """Return one prediction for each row; an exception where there is none."""
        return self._loaded().predict(rows)

    def _loaded(self) -> Predictor:
        if self._predictor is None:
            msg = "the model is not loaded: run the app with its lifespan"
            raise RuntimeError(msg)
        return self._predictor

    def _error(self, error: ModelFileError) -> ModelError:
        return ModelError(f"MODEL_FILE={self._file}: {error}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
