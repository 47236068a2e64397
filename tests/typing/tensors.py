"""Batch functions that return tensors of PyTorch and TensorFlow; mypy and pyright check what they infer.

`make recipes` checks this file where PyTorch is installed. TensorFlow has no types of its own: mypy takes its
tensors for Any, and pyright infers them from the source.
"""

from __future__ import annotations

from typing import Any, assert_type

import tensorflow as tf
import torch

from batchers import AsyncioBatcher, Batcher, ThreadingBatcher, batched, create_batcher
from batchers.arrays import rows, stacked


def predict_torch(items: list[Any]) -> torch.Tensor:
    """Return a tensor with a row for each item."""
    return torch.stack(items)


async def predict_tensorflow(items: list[Any]) -> tf.Tensor:
    """Return a tensor with a row for each item."""
    return tf.stack(items)


class Torch(ThreadingBatcher[Any, Any]):
    """Override the method so."""

    def process_batch(self, batch: list[Any]) -> torch.Tensor:
        """Return a tensor."""
        return torch.stack(batch)


class TensorFlow(AsyncioBatcher[Any, Any]):
    """Override the method as async."""

    async def process_batch(self, batch: list[Any]) -> tf.Tensor:
        """Return a tensor."""
        return tf.stack(batch)


@batched("threading")
def decorated_torch(items: list[Any]) -> torch.Tensor:
    """Decorate a function."""
    return torch.stack(items)


@batched
async def decorated_tensorflow(items: list[Any]) -> tf.Tensor:
    """Decorate a coroutine function."""
    return tf.stack(items)


def mean(items: list[Any]) -> float:
    """Return no rows."""
    return float(torch.stack(items).mean())


async def use(item: object) -> None:
    """Call them."""
    assert_type(create_batcher("asyncio", predict_torch), Batcher[Any, torch.Tensor])
    assert_type(await Torch().process(item), Any)
    create_batcher("threading", predict_tensorflow)
    await TensorFlow().process(item)
    decorated_torch(item)
    await decorated_tensorflow.aprocess(item)
    create_batcher("asyncio", stacked(torch.relu, rows((10,), "float32")))


def refuse() -> None:
    """Give what is no batch function."""
    create_batcher("asyncio", mean)  # type: ignore[arg-type]
