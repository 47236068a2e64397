"""Models that take one array: `batchers.arrays` beside a batch function that calls `np.stack` itself.

The items are rows of ten numbers, in arrays, from 64 coroutines. *by hand* stacks what comes and returns views of
the results; *stacked* copies each row; *rows* checks each item in its caller, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from batchers import arrays, create_batcher

from .rounds import BATCH, measure_coroutines

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # of TensorFlow's import
]

WIDTH = 10
CALLERS = 64

Model = Callable[[Any], Any]
BatchFunction = Callable[[list[Any]], list[Any]]


def scikit_learn() -> Model:
    """Return a linear model."""
    from sklearn.linear_model import LinearRegression  # noqa: PLC0415 - slow

    chance = np.random.default_rng(1)
    model = LinearRegression()
    model.fit(chance.normal(size=(200, WIDTH)), chance.normal(size=200))
    return model.predict  # type: ignore[no-any-return]  # scikit-learn has no types


def keras() -> Model:
    """Return the network of the server, called as the server calls it."""
    import keras  # noqa: PLC0415 - slow
    import tensorflow as tf  # noqa: PLC0415

    from server.model import MODEL_FILE  # noqa: PLC0415

    network = keras.saving.load_model(MODEL_FILE, compile=False)
    call = tf.function(network, input_signature=[tf.TensorSpec((None, WIDTH), tf.float32)])
    return lambda rows: call(tf.constant(rows)).numpy()


MODELS = {"scikit-learn": scikit_learn, "keras": keras}


def by_hand(model: Model) -> BatchFunction:
    """Return the batch function that users write."""
    return lambda items: list(model(np.stack(items)))


FUNCTIONS: dict[str, Callable[[Model], Any]] = {
    "by-hand": by_hand,
    "stacked": arrays.stacked,
    "rows": lambda model: arrays.stacked(model, arrays.rows((WIDTH,), "float32")),
}


@pytest.mark.parametrize("backend", ["threading", "asyncio"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("model", MODELS)
def test_arrays(benchmark: BenchmarkFixture, model: str, function: str, backend: str) -> None:
    """Each coroutine asks for one row after the other."""
    items = np.random.default_rng(2).normal(size=(1000, WIDTH)).astype(np.float32)
    batch_function = FUNCTIONS[function](MODELS[model]())

    @asynccontextmanager
    async def make() -> AsyncIterator[Any]:
        async with create_batcher(backend, batch_function, max_batch_size=BATCH, max_queue_size=-1) as batcher:
            yield lambda number: batcher.process(items[number % 1000])

    measure_coroutines(benchmark, make, CALLERS)
    benchmark.group = f"arrays, {model}"
