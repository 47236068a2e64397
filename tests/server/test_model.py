"""The model, called through both backends as the server does, without HTTP."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Iterable

import numpy as np
import pytest

from batchers import create_batcher
from server.model import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    Description,
    Emulated,
    Model,
    ModelFileError,
    NoPredictionError,
)

DESCRIPTION = Description.model_validate_json(DESCRIPTION_FILE.read_text())

# Importing TensorFlow and loading the model is no part of a test.


@pytest.fixture(scope="module")
def model() -> Model:
    """Give the model as the server calls it."""
    model = Model(MODEL_FILE, "compiled")
    model.warm_up(256)
    return model


@pytest.fixture(scope="module")
def keras_model() -> Model:
    """Give the model as most people call it."""
    return Model(MODEL_FILE, "keras")


def check_near(found: Iterable[object], expected: Iterable[object]) -> None:
    """Compare predictions up to what single precision leaves open."""
    scale = DESCRIPTION.target_scale
    np.testing.assert_allclose(np.array(list(found), float), np.array(list(expected), float), 1e-5, 1e-5 * scale)


def rows(count: int) -> list[list[float]]:
    rng = random.Random(7)
    return [[value * rng.uniform(0.5, 1.5) for value in DESCRIPTION.example] for _ in range(count)]


def test_ten_thousand_rows(model: Model, backend: str) -> None:
    """Ten thousand callers at once, three batches in flight: each gets the model's prediction of his own row."""
    many = rows(10_000)

    async def ask() -> list[object]:
        async with create_batcher(
            backend, model.predict, concurrency=3, max_batch_size=200, max_queue_size=-1
        ) as batcher:
            return await asyncio.gather(*(batcher.process(row) for row in many))

    answers = asyncio.run(ask())
    expected = [value for start in range(0, 10_000, 1000) for value in model.predict(many[start : start + 1000])]

    assert len(set(answers)) > 5000
    check_near(answers, expected)


def test_both_calls_agree(model: Model, keras_model: Model) -> None:
    """`model.predict` and the compiled function are the same model."""
    many = rows(50)

    check_near(model.predict(many), keras_model.predict(many))


def test_rows_beyond_single_precision_fail_alone(model: Model) -> None:
    """Their neighbours are predicted as if they were not there."""
    good = DESCRIPTION.example
    results = model.predict([good, [1e300, *good[1:]], good])

    assert isinstance(results[1], NoPredictionError)
    check_near([results[0], results[2]], model.predict([good]) * 2)


def test_a_model_that_cannot_predict_its_example(model: Model) -> None:
    """It is refused before anybody asks it."""
    broken = copy.copy(model)
    broken.description = DESCRIPTION.model_copy(update={"example": [1e300] * 10})
    with pytest.raises(ModelFileError, match="cannot predict its example: the numbers are too large"):
        broken.warm_up(2)
    broken._call = lambda _: None  # type: ignore[assignment,return-value]
    with pytest.raises(ModelFileError, match="cannot predict its example"):
        broken.warm_up(2)


def test_the_description() -> None:
    """It is what the issue of the model promised, and nothing else is in the file."""
    assert len(DESCRIPTION.features) == len(DESCRIPTION.mean) == len(DESCRIPTION.scale) == 10
    assert DESCRIPTION.r_squared >= 0.35
    assert set(json.loads(DESCRIPTION_FILE.read_text())) == set(Description.model_fields)


def test_the_emulated_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its time, one call after the other, and predicts sums."""
    slept: list[float] = []
    at_once: list[bool] = []
    device = Emulated()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        at_once.append(device._device.locked())

    monkeypatch.setattr("time.sleep", sleep)
    results = device.predict([[1.0, 2.0], [1e308, 1e308], [0.5, 0.5]])

    assert (results[0], results[2]) == (3.0, 1.0)
    assert isinstance(results[1], NoPredictionError)
    assert slept == [pytest.approx(0.01103)]
    assert at_once == [True]
