"""Models as users write them; servers of the tests name them in BATCHER_MODEL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel
from typing_extensions import TypedDict  # that of Python 3.11 is not enough for pydantic

from batchers import batched
from batchers.arrays import rows, stacked
from batchers.serving import UnprocessableError


def lengths(batch: list[str]) -> list[int]:
    """Return the lengths of texts."""
    return [len(text) for text in batch]


async def doubled(batch: list[float]) -> list[float]:
    """Return twice the numbers."""
    return [2 * number for number in batch]


def untyped(batch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as users may write it
    """Return the items."""
    return batch


class Point(BaseModel):
    """A point."""

    x: float
    y: float = 0.0


class Named(TypedDict):
    """A dictionary."""

    name: str


@dataclass
class Size:
    """A size."""

    width: int


def norms(batch: list[Point]) -> list[Point]:
    """Return points on a line."""
    return [Point(x=abs(point.x) + abs(point.y)) for point in batch]


def names(batch: list[Named]) -> list[str]:
    """Return the names."""
    return [item["name"] for item in batch]


def widths(batch: list[Size]) -> list[Size]:
    """Return wider ones."""
    return [Size(size.width + 1) for size in batch]


def means(array: Any) -> Any:
    """Return the mean of each row."""
    return array.mean(axis=1)


arrays = stacked(means, rows((3,), "float32", finite=True))


def strict(batch: list[dict[str, float]]) -> list[int]:
    """Return how many numbers there are."""
    return [len(item) for item in batch]


def answers(batch: list[str]) -> list[Any]:
    """Return what the item names."""
    kinds: dict[str, Any] = {
        "nan": float("nan"),
        "nested": {"a": [float("inf")]},
        "array": np.arange(3),
        "scalar": np.int64(3),
        "set": {1},
        "object": object(),
        "refused": UnprocessableError("no such word"),
        "broken": ValueError("a defect"),
        "text": "ä",
        "none": None,
    }
    return [kinds[item] for item in batch]


class Whole:
    """A model with everything that it may have."""

    example = "abc"

    def __init__(self) -> None:
        self.events: list[Any] = []

    def load(self) -> None:
        """Load."""
        self.events.append("load")

    async def warm_up(self, size: int) -> None:
        """Run once."""
        self.events.append(("warm_up", size))

    def predict(self, batch: list[str]) -> list[str]:
        """Return the texts in capitals."""
        return [text.upper() for text in batch]

    def close(self) -> None:
        """End."""
        self.events.append("close")


class WithExample:
    """A model that is warmed up by its example."""

    example = (1.0, 2.0)

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def predict(self, batch: list[tuple[float, float]]) -> list[float]:
        """Return sums."""
        self.sizes.append(len(batch))
        return [sum(pair) for pair in batch]


class BadLoad:
    """A model that cannot be loaded."""

    def load(self) -> None:
        """Fail."""
        msg = "no such file\nsecond line"
        raise OSError(msg)

    def predict(self, batch: list[int]) -> list[int]:
        """Return the items."""
        return batch


class BadInit:
    """A model that cannot be made."""

    def __init__(self) -> None:
        msg = "no device"
        raise RuntimeError(msg)


class Plain:
    """A class without `predict`."""


def callbacks(batch: list[type[Plain]]) -> list[int]:
    """Take what cannot come as JSON."""
    return [1 for _ in batch]


def complexes(batch: list[Plain]) -> list[int]:
    """Take what pydantic does not know."""
    return [1 for _ in batch]


def big(batch: list[str]) -> list[Any]:
    """Return texts of so many letters, or fail in ways that cannot be told."""
    found: list[Any] = []
    for item in batch:
        if item == "surrogate":
            found.append(UnprocessableError("\ud800"))
        elif item == "mute":
            found.append(Mute())
        else:
            found.append("x" * int(item) if item.isdigit() else item)
    return found


class Mute(UnprocessableError):
    """An error that has no text."""

    def __str__(self) -> str:
        raise RuntimeError


class PointModel:
    """A model whose example is an object."""

    example: Any = Point(x=1.0)

    def predict(self, batch: list[Point]) -> list[float]:
        """Return numbers."""
        return [point.x for point in batch]


class DictModel(PointModel):
    """A model whose example is what JSON has."""

    example = {"x": 1.0}  # noqa: RUF012 - as users write it


class WrongExample(PointModel):
    """A model whose example is no item."""

    example = {"x": "old"}  # noqa: RUF012 - as above


class TooFew:
    """A model that returns too few results for two items."""

    example = "a"

    def predict(self, batch: list[str]) -> list[int]:
        """Return one."""
        return [1]


@dataclass
class Callable:
    """A model that is called, with fields that say nothing of its items."""

    weights: list[float]

    def __call__(self, batch: list[str]) -> list[int]:
        """Return lengths."""
        return [len(text) for text in batch]


@batched("threading")
def already(batch: list[float]) -> list[float]:
    """Be batched already."""
    return batch


def one_item(text: str) -> int:
    """Take one item."""
    return len(text)


def no_items() -> list[int]:
    """Take nothing."""
    return []


def floats(batch: list[float]) -> list[float]:
    """Return the numbers."""
    return batch


number = 3
