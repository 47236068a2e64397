"""Lengths of texts, and the batches of padded items that a clairvoyant makes of what waits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

MOST = 32
"""Items in a batch."""

SEARCHED = 1000
"""Waiting items up to which the clairvoyant searches; it would take too long for more."""

MEAN_LENGTH = 0.8 * 8 + 0.2 * 105
"""Words of a text, in the mean."""

Times: TypeAlias = Callable[[NDArray[np.int_], float], NDArray[np.floating[Any]]]
"""Sizes of batches, and the length of their longest item -> the seconds that they take."""


def length_of(chance: random.Random) -> int:
    """Return the words of a text: 4 to 12 in four of five, 60 to 150 in the others."""
    return chance.randint(4, 12) if chance.random() < 0.8 else chance.randint(60, 150)  # noqa: PLR2004


def clairvoyant_batch(waiting: Sequence[float], times: Times) -> list[int]:
    """Divide the waiting items into the batches that take the least time; return the places of the oldest's batch.

    `waiting` has the lengths, oldest first. Each batch of such a division has neighbours in the order of lengths,
    so that dynamic programming over that order finds the best one.
    """
    order = sorted(range(min(len(waiting), SEARCHED)), key=lambda place: (waiting[place], place))
    lengths = [waiting[place] for place in order]
    best = np.zeros(len(order) + 1)
    start = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        first = max(0, end - MOST)
        after = best[first:end] + times(np.arange(end - first, 0, -1), lengths[end - 1])
        place = int(after.argmin())
        best[end], start[end] = after[place], first + place
    bounds = [len(order)]
    while bounds[-1]:
        bounds.append(start[bounds[-1]])
    return next(order[low:high] for high, low in pairwise(bounds) if 0 in order[low:high])
