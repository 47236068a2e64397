"""What is learned of lengths, and which lengths share a batch."""

from __future__ import annotations

import random
from itertools import pairwise
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchers.policies import lengths
from batchers.policies.lengths import CANDIDATES, CLASSES, NO_LENGTH, LengthModel, Lengths, class_of, longest_of


def learned(a: float, b: float, d: float, *, noise: float = 0.0, batches: int = 200, seed: int = 1) -> LengthModel:
    chance = random.Random(seed)
    model = LengthModel()
    for _ in range(batches):
        size, longest = chance.randint(1, 32), chance.choice([5, 10, 60, 100, 150])
        seconds = (a + b * size + d * size * longest) * chance.lognormvariate(0, noise)
        model.observe(size, longest, seconds)
    return model


@pytest.mark.parametrize(("a", "b", "d"), [(0.006, 0, 0.00055), (0.011, 0.0002, 0.00005), (0.01, 0.001, 0)])
def test_the_coefficients_are_found(a: float, b: float, d: float) -> None:
    """They are exact without noise; with noise of 20 %, the prediction is near the mean."""
    model = learned(a, b, d)
    assert (model.a, model.b, model.d) == pytest.approx((a, b, d), rel=0.01, abs=1e-6)
    noisy = learned(a, b, d, noise=0.2)
    for size, longest in ((1, 10), (8, 100), (32, 150)):
        assert noisy.predict(size, longest) == pytest.approx(model.predict(size, longest), rel=0.25)


def test_what_cannot_be_told_apart_is_shared() -> None:
    """Batches that are all alike give no coefficients of their own, but a prediction; nothing is negative."""
    assert not LengthModel().known
    model = LengthModel()
    assert model.predict(3, 10) == 0
    for _ in range(20):
        model.observe(4, 10.0, 0.02)
    assert model.known
    assert model.predict(4, 10.0) == pytest.approx(0.02, rel=1e-3)
    assert min(model.a, model.b, model.d) >= 0
    falling = LengthModel()
    for size in range(1, 20):  # larger batches are faster: no coefficient becomes negative
        falling.observe(size, 10.0, 1.0 / size)
    assert min(falling.a, falling.b, falling.d) >= 0
    empty = LengthModel()
    for _ in range(9):
        empty.observe(1, 0.0, 0.5)
        empty.observe(1, 0.0, 0.0)  # a clock that has not moved says nothing
    assert empty.predict(1, 0.0) == pytest.approx(0.5, rel=1e-3)


def test_a_change_is_followed() -> None:
    """A model that has become ten times slower is learned anew."""
    model = learned(0.01, 0, 0.0001)
    chance = random.Random(2)
    for _ in range(300):
        size, longest = chance.randint(1, 32), chance.choice([5, 100])
        model.observe(size, longest, 0.1 + 0.001 * size * longest)
    assert model.d == pytest.approx(0.001, rel=0.05)


def counted(items: list[float]) -> tuple[list[int], dict[int, int]]:
    numbers = [class_of(each) for each in items]
    return sorted(set(numbers)), {number: numbers.count(number) for number in numbers}


def test_before_anything_is_known() -> None:
    """Items at least half as long as the head share its batch."""
    numbers, counts = counted([0, 4, 8, 9, 100])
    chosen = Lengths(LengthModel()).choose(class_of(8), numbers, counts, 32, inf)
    assert list(chosen or ()) == [class_of(8) - CLASSES, class_of(8)]
    assert Lengths(LengthModel()).choose(NO_LENGTH, numbers, counts, 32, inf) == (NO_LENGTH, NO_LENGTH)


def test_lengths_that_do_not_matter() -> None:
    """Items go in order, unless a limit of items times the longest needs their lengths."""
    numbers, counts = counted([5.0] * 20 + [100.0] * 20)
    choice = Lengths(learned(0.01, 0.001, 0))
    assert choice.choose(class_of(5), numbers, counts, 32, inf) is None
    assert choice.choose(class_of(5), numbers, counts, 32, inf) is None  # kept
    assert Lengths(learned(0.01, 0.001, 0)).choose(class_of(5), numbers, counts, 32, 500) is not None
    assert Lengths(learned(0.01, 0, 0.01)).choose(class_of(5), *counted([5.0] * 9), 32, inf) is None


def test_short_and_long_items_part() -> None:
    """Each batch has its own lengths, and lengths between them go to the nearest batch that is known."""
    numbers, counts = counted([5.0] * 20 + [100.0] * 20)
    choice = Lengths(learned(0.006, 0, 0.00055))
    short = choice.choose(class_of(5), numbers, counts, 32, inf)
    assert list(short or ()) == [-inf, class_of(5)]
    assert choice.choose(class_of(100), numbers, counts, 32, inf) == (class_of(5) + 1, class_of(100))
    longer = sorted({*numbers, class_of(500)})
    counts[class_of(500)] = 1
    assert choice.choose(class_of(500), longer, counts, 32, inf) == (class_of(100) + 1, inf)  # came since
    choice.changed(40)
    assert choice.choose(class_of(500), longer, counts, 32, inf) == (class_of(100) + 1, class_of(500))


@given(
    st.dictionaries(st.integers(0, 160), st.integers(1, 40), min_size=2),
    st.sampled_from([(0.006, 0.00055), (0.011, 0.00005), (0.0, 0.1), (0.1, 0.00001)]),
    st.sampled_from([1, 7, 32]),
    st.sampled_from([inf, 1000.0]),
)
def test_the_partition_is_the_fastest(
    counts: dict[int, int], line: tuple[float, float], most: int, most_cost: float
) -> None:
    """Of all partitions of the merged classes none takes less time; there are at most 16 of them."""
    model = LengthModel()
    model.a, model.d = line
    numbers = sorted(counts)
    choice = Lengths(model)
    bounds = choice._partition(numbers, counts, most, most_cost)
    highest, amounts = lengths._merged(numbers, counts, choice._tolerance)
    assert len(highest) <= CANDIDATES
    assert sum(amounts) == sum(counts.values())
    assert set(bounds) <= set(highest)
    assert bounds == sorted(bounds)
    assert bounds[-1] == numbers[-1]

    def time(ends: list[int]) -> float:
        found = 0.0
        for low, high in pairwise([-1, *ends]):
            items = sum(amount for top, amount in zip(highest, amounts, strict=True) if low < top <= high)
            batch = min(most, max(int(most_cost / longest_of(high)), 1)) if most_cost < inf else most
            found += model.a * ceil(items / batch) + model.d * items * longest_of(high)
        return found

    others = [
        [*(top for place, top in enumerate(highest[:-1]) if chosen >> place & 1), highest[-1]]
        for chosen in range(min(1 << (len(highest) - 1), 256))
    ]
    assert time(bounds) <= min(map(time, others)) * (1 + 1e-9)
