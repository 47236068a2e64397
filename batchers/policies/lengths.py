"""Pure: which items of different lengths share a batch.

Theory of operation
===================

Most models of text pad every item of a batch to its longest one. A batch of n items then takes

    tau(n, longest) = a + b * n + d * n * longest

seconds. `LengthModel` learns a, b and d from the batches of one batcher. Batches in the order of arrival can be
slower than no batches at all: a single long item makes all the others as long.

The items that wait, sorted by length, can be partitioned into consecutive runs of a batch each. `Lengths` finds
the partition that takes the least time in total (dynamic programming), and the next batch is the run that contains
the head: the item that would go first without lengths. So no item waits for ever. b does not matter for the
choice, because each item pays it once.

The choice costs little, because it works with classes of lengths instead of items: `CLASSES` for each doubling, at
most `CANDIDATES` after neighbours are merged. A partition is kept until one eighth of the items has changed.

Before the model knows anything, a batch contains the items that are at least half as long as the head, and not
longer. If lengths turn out not to matter, items enter batches in the order of their arrival.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, inf, log2, sqrt

from .cost_model import KEPT, SHIFT_BATCHES, SHIFT_SIGMAS, SKIPPED

CLASSES = 16
"""Classes of lengths for each doubling. The longest item of a class is at most 4.5 % longer than the shortest."""

NO_LENGTH = -(1 << 20)
"""The class of items of length 0, below all others."""

CANDIDATES = 16
"""The largest number of classes among which a partition is sought."""

RENEWED = 8
"""A partition is sought again when one of so many waiting items has come or gone."""

LITTLE = 0.02
"""The share of the time of a batch below which padding does not matter."""

SHIFT = 0.25
"""Relative errors up to this are no shift: the model need not be a line."""

LEARNED = 3
"""Batches after which the model is used."""

SHORTEST = 1e-9
"""Seconds: no clock tells less, and the square of its inverse has to be a float."""


def class_of(length: float) -> int:
    """Return the class of a length, a finite number, 0 or more; longer items have equal or higher classes."""
    return floor(log2(length) * CLASSES) if length > 0 else NO_LENGTH


def longest_of(number: int) -> float:
    """Return the length that all items of a class are below, at most 4.5 % above the longest of them.

    It is 0.0 for `NO_LENGTH`, because the power is below the smallest float.
    """
    return float(2.0 ** ((number + 1) / CLASSES))


class LengthModel:
    """An exponentially weighted least-squares fit of the service time to the size and the longest item of a batch.

    The squares are of relative errors, so that long batches do not drown the short ones.

    a
        Seconds that every batch takes; 0 or more.
    b
        Seconds that each item adds; 0 or more.
    d
        Seconds that each unit of length adds, of each item and its padding; 0 or more.
    """

    __slots__ = ("_moments", "_off", "_seen", "_targets", "_variance", "a", "b", "d")

    def __init__(self) -> None:
        """Initialise without observations."""
        self.a = self.b = self.d = 0.0
        self._seen = 0
        self._off = 0  # batches in a row far off the prediction; negative: faster
        self._variance = 0.0  # of the relative errors
        self._moments = [0.0] * 6  # of (1, n, n * longest): 11, 1n, 1m, nn, nm, mm
        self._targets = [0.0] * 3  # of the same with the time

    @property
    def known(self) -> bool:
        """True after the first batches; the first `SKIPPED` are ignored, because caches are cold then."""
        return self._seen >= SKIPPED + LEARNED

    def predict(self, size: int, longest: float) -> float:
        """Return the predicted seconds of a batch; 0 before any observation."""
        return self.a + self.b * size + self.d * size * longest

    def observe(self, size: int, longest: float, seconds: float) -> None:
        """Learn from a batch of `size` items, the longest of which has the length `longest`."""
        self._seen += 1
        if self._seen <= SKIPPED or seconds < SHORTEST:
            return
        predicted = self.predict(size, longest)
        if self.known and predicted > 0:  # it is 0 for items of length 0, as long as only lengths seem to matter
            self._judge(seconds / predicted - 1)
        one, each, padded = 1 / seconds, size / seconds, size * longest / seconds
        found = (one * one, one * each, one * padded, each * each, each * padded, padded * padded)
        self._moments = [KEPT * old + new for old, new in zip(self._moments, found, strict=True)]
        self._targets = [KEPT * old + new for old, new in zip(self._targets, (one, each, padded), strict=True)]
        self._solve()

    def _judge(self, error: float) -> None:
        """Learn from the relative error of a prediction; begin again after a shift of the level."""
        if abs(error) > SHIFT_SIGMAS * sqrt(self._variance) and abs(error) > SHIFT:
            self._off = max(self._off, 0) + 1 if error > 0 else min(self._off, 0) - 1
        else:
            self._off = 0
        if abs(self._off) >= SHIFT_BATCHES:
            self._seen, self._off, self._variance = SKIPPED + 1, 0, 0.0
            self._moments, self._targets = [0.0] * 6, [0.0] * 3
            return
        square = error * error
        self._variance += (1 - KEPT) * (min(square, 25 * self._variance or square) - self._variance)

    def _solve(self) -> None:
        """Solve the normal equations; a coefficient that would be negative is 0."""
        moments = self._moments
        rows = (moments[0:3], (moments[1], moments[3], moments[4]), (moments[2], moments[4], moments[5]))
        found: list[float] = []
        free = [place for place in range(3) if rows[place][place] > 0]
        while free:
            found = _solved([[rows[i][j] for j in free] for i in free], [self._targets[i] for i in free])
            lowest = min(range(len(free)), key=found.__getitem__)
            if found[lowest] >= 0:
                break
            free.pop(lowest)
        values = dict(zip(free, found, strict=True)) if free else {}
        self.a, self.b, self.d = values.get(0, 0.0), values.get(1, 0.0), values.get(2, 0.0)


RIDGE = 1e-6
"""What is added to each squared term, relative to it; without it, sizes that are all alike have no solution."""


def _solved(matrix: list[list[float]], vector: list[float]) -> list[float]:
    """Return the solution of a positive definite system, scaled so that its diagonal is 1 (Gauss)."""
    count = len(vector)
    scale = [matrix[i][i] ** 0.5 for i in range(count)]
    rows = [
        [matrix[i][j] / (scale[i] * scale[j]) + (RIDGE if i == j else 0.0) for j in range(count)]
        + [vector[i] / scale[i]]
        for i in range(count)
    ]
    for i in range(count):
        for j in range(i + 1, count):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [below - factor * above for below, above in zip(rows[j], rows[i], strict=True)]
    found = [0.0] * count
    for i in reversed(range(count)):
        known = sum(rows[i][j] * found[j] for j in range(i + 1, count))
        found[i] = (rows[i][count] - known) / rows[i][i]
    return [value / by for value, by in zip(found, scale, strict=True)]


class Lengths:
    """The choice of the items that share a batch, for items that wait together. `model` may be shared."""

    __slots__ = ("_bounds", "_left", "_tolerance", "model")

    def __init__(self, model: LengthModel) -> None:
        """Initialise without a partition."""
        self.model = model
        self._bounds: list[int] = []  # the highest class of each run, ascending
        self._left = 0  # items that may come or go before the partition is sought again
        self._tolerance = 1.0  # padding that a merger of classes may add, in units of length

    def changed(self, count: int = 1) -> None:
        """Note that so many items have come or gone."""
        self._left -= count

    def choose(
        self, head: int, numbers: Sequence[int], counts: Mapping[int, int], most: int, most_cost: float
    ) -> tuple[float, float] | None:
        """Return the lowest and the highest class of the next batch; None: lengths do not matter.

        head
            The class of the head.
        numbers
            The classes of the waiting items, ascending; at least that of the head.
        counts
            The number of waiting items in each class.
        most, most_cost
            The largest number of items in a batch, and the largest number of items times the longest.
        """
        model = self.model
        if numbers[0] == numbers[-1]:
            return None
        if not model.known:
            return (head - CLASSES if head != NO_LENGTH else head), head
        if self._left <= 0:
            waiting = sum(counts.values())
            self._left = waiting // RENEWED
            longest = longest_of(numbers[-1])
            padding = waiting * model.d * (longest - longest_of(numbers[0]))
            little = padding <= LITTLE * waiting * (model.b + model.d * longest) and most_cost == inf
            self._bounds = [] if little else self._partition(numbers, counts, most, most_cost)
        if not self._bounds:
            return None
        lowest: float = -inf
        for bound in self._bounds:
            if head <= bound:
                return lowest, bound
            lowest = bound + 1
        return lowest, inf

    def _partition(
        self, numbers: Sequence[int], counts: Mapping[int, int], most: int, most_cost: float
    ) -> list[int]:
        """Return the highest class of each run of the partition that takes the least time."""
        a, d = self.model.a, self.model.d
        self._tolerance /= 2
        highest, amounts = _merged(numbers, counts, self._tolerance)
        while len(highest) > CANDIDATES:
            self._tolerance *= 2
            highest, amounts = _merged(numbers, counts, self._tolerance)
        best, start = [0.0], [0]
        for end in range(1, len(highest) + 1):
            longest = longest_of(highest[end - 1])
            batch = most if most_cost == inf or not longest else min(most, max(int(most_cost / longest), 1))
            items, least, first = 0, inf, 0
            for begin in range(end - 1, -1, -1):
                items += amounts[begin]
                time = best[begin] - a * (-items // batch) + d * longest * items  # -(-x // y) rounds up
                if time < least:
                    least, first = time, begin
            best.append(least)
            start.append(first)
        bounds = []
        end = len(highest)
        while end > 0:
            bounds.append(highest[end - 1])
            end = start[end]
        return bounds[::-1]


def _merged(numbers: Sequence[int], counts: Mapping[int, int], tolerance: float) -> tuple[list[int], list[int]]:
    """Return groups of neighbouring classes: the highest class and the items of each.

    A group is as large as possible without more than `tolerance` additional padding, in units of length.
    """
    highest, amounts = [numbers[0]], [counts[numbers[0]]]
    top, added = longest_of(numbers[0]), 0.0
    for number in numbers[1:]:
        old, top = top, longest_of(number)
        added += amounts[-1] * (top - old)
        if added <= tolerance:
            highest[-1] = number
            amounts[-1] += counts[number]
        else:
            highest.append(number)
            amounts.append(counts[number])
            added = 0.0
    return highest, amounts
