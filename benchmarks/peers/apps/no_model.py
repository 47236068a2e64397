"""Functions in place of a model, for `batchers.serving`: what is left is the cost of requests and batches."""

from __future__ import annotations


def first(batch: list[list[float]]) -> list[float]:
    """Return the first number of each row; in a thread of the batcher."""
    return [row[0] for row in batch]


async def first_on_the_loop(batch: list[list[float]]) -> list[float]:
    """Return the same, on the event loop."""
    return first(batch)
