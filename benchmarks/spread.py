"""What repeated measurements say: their median, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Side = TypeVar("Side")

TWICE = 2


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        """Their median."""
        return median(self.values)

    @property
    def width(self) -> float:
        """The distance from the smallest to the largest."""
        return max(self.values) - min(self.values)

    @property
    def share(self) -> float:
        """The width as a share of the median; 0 where the median is 0."""
        return self.width / self.middle if self.middle else 0.0


def clearly_differ(one: Spread, other: Spread) -> bool:
    """Tell whether the medians lie further apart than the repeats of either side do.

    What was measured once has no spread, so nothing is clear about it.
    """
    if min(len(one.values), len(other.values)) < TWICE:
        return False
    return abs(one.middle - other.middle) > max(one.width, other.width)


def interleaved(sides: Sequence[Side], repeats: int) -> Iterator[Side]:
    """Return each side `repeats` times: A B, B A, A B and so on.

    What drifts while they are measured drifts for all alike.
    """
    for repeat in range(repeats):
        yield from sides if repeat % 2 == 0 else reversed(sides)
