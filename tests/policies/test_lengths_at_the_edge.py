"""What is learned of lengths and what is chosen by them, to the last unit."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchers.policies.cost_model import KEPT, SHIFT_BATCHES, SHIFT_SIGMAS, SKIPPED
from batchers.policies.lengths import (
    CANDIDATES,
    CLASSES,
    LEARNED,
    NO_LENGTH,
    RENEWED,
    RIDGE,
    SHIFT,
    SHORTEST,
    LengthModel,
    Lengths,
    _merged,
    class_of,
    longest_of,
)


@pytest.mark.parametrize(
    ("length", "number"),
    [(0.0, NO_LENGTH), (0.25, -32), (0.5, -16), (1.0, 0), (1.999, 15), (2.0, 16), (1024.0, 160)],
)
def test_classes(length: float, number: int) -> None:
    """Sixteen for each doubling, also below 1."""
    assert class_of(length) == number


@pytest.mark.parametrize(
    ("number", "length"), [(NO_LENGTH, 0.0), (-17, 0.5), (-1, 1.0), (15, 2.0), (31, 4.0), (47, 8.0)]
)
def test_the_longest_of_a_class(number: int, length: float) -> None:
    """It is where the next class begins."""
    assert longest_of(number) == length
    assert longest_of(number - 1) <= length / 2 ** (1 / CLASSES) * (1 + 1e-12)


class Plain:
    """The same model, computed anew from all that counts, by numpy."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, float, float]] = []
        self.ignored = SKIPPED
        self.missing = LEARNED
        self.far: list[bool] = []
        """Whether each of the last batches, all of them far off, was slower."""
        self.variance = 0.0
        self.solution = np.zeros(3)

    def predict(self, size: int, longest: float) -> float:
        return float(self.solution @ (1, size, size * longest))

    def observe(self, size: int, longest: float, seconds: float) -> None:
        if self.ignored:
            self.ignored -= 1
            return
        if self.missing > 0:
            self.missing -= 1
        if self.missing <= 0 and self.predict(size, longest) > 0:
            self.judge(seconds / self.predict(size, longest) - 1)
        self.batches.append((size, longest, seconds))
        self.solve()

    def judge(self, error: float) -> None:
        far = abs(error) > max(SHIFT_SIGMAS * sqrt(self.variance), SHIFT)
        slower = error > 0
        self.far = [*(self.far if self.far[-1:] == [slower] else []), slower] if far else []
        if len(self.far) == SHIFT_BATCHES:
            self.batches, self.far, self.variance, self.missing = [], [], 0.0, LEARNED - 1
            return
        bounded = min(error**2, 25 * self.variance) if self.variance else error**2
        self.variance = KEPT * self.variance + (1 - KEPT) * bounded

    def solve(self) -> None:
        weights = np.array([KEPT ** ((len(self.batches) - 1 - place) / 2) for place in range(len(self.batches))])
        rows = np.array([(1 / t, n / t, n * longest / t) for n, longest, t in self.batches]) * weights[:, None]
        columns = [place for place in range(3) if rows[:, place].any()]
        while columns:
            some = rows[:, columns]
            scale = np.sqrt((some**2).sum(axis=0))
            some = some / scale
            found = np.linalg.solve(some.T @ some + RIDGE * np.eye(len(columns)), some.T @ weights) / scale
            self.solution = np.zeros(3)
            self.solution[columns] = found
            if found.min() >= 0:
                break
            del columns[int(found.argmin())]


SIZES = st.integers(1, 32)
LONGEST = st.sampled_from([0.0, 1.0, 5.0, 60.0, 150.0])


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(SIZES, LONGEST, st.floats(0.5, 2.0), st.sampled_from([1.0] * 12 + [0.2, 4.0])), max_size=40
    ),
    st.sampled_from(
        [(0.006, 0.0, 0.00055), (0.011, 0.0002, 0.00005), (0.01, 0.001, 0.0), (0.0, 0.002, 0.001), (2e3, 9.0, 1.0)]
    ),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_every_batch_is_learned(
    batches: list[tuple[int, float, float, float]], line: tuple[float, float, float], noise: float
) -> None:
    """Each prediction is that of weighted least squares; the weights begin anew after a shift."""
    model, plain = LengthModel(), Plain()
    a, b, d = line
    level = 1.0
    for size, longest, more, change in batches:
        level *= change
        seconds = level * (a + b * size + d * size * longest) * more**noise
        model.observe(size, longest, seconds)
        plain.observe(size, longest, seconds)
        assert model.known == (plain.ignored == 0 and plain.missing <= 0)
        for some in ((1, 1.0), (size, longest), (32, 150.0)):
            assert model.predict(*some) == pytest.approx(plain.predict(*some), rel=1e-6, abs=1e-9 * seconds)
        assert (model.a, model.b, model.d) == pytest.approx(tuple(plain.solution), rel=1e-4, abs=1e-5 * seconds)


def test_an_item_without_length_after_a_model_of_lengths_alone() -> None:
    """Nothing is predicted for it, and it is learned as any other."""
    model = LengthModel()
    for size, longest in ((1, 10.0), (2, 20.0), (2, 40.0), (1, 20.0), (3, 10.0), (1, 80.0), (2, 80.0)):
        model.observe(size, longest, (size * longest) ** 2)
    assert model.known
    assert model.predict(1, 0.0) == 0.0
    model.observe(1, 0.0, 0.5)
    assert model.predict(1, 0.0) > 0


@pytest.mark.parametrize("seconds", [1e-300, 0.9e-9, 0.0, -1.0])
def test_a_time_that_no_clock_tells(seconds: float) -> None:
    """It teaches nothing, and what comes later is learned as if it had not been."""
    model, other = LengthModel(), LengthModel()
    for _ in range(SKIPPED + LEARNED):
        model.observe(1, 1.0, 1.0)
        other.observe(1, 1.0, 1.0)
    model.observe(1, 1.0, seconds)
    assert (model.a, model.b, model.d) == (other.a, other.b, other.d)
    model.observe(2, 1.0, 2.0)
    other.observe(2, 1.0, 2.0)
    assert (model.a, model.b, model.d) == (other.a, other.b, other.d)


def test_the_shortest_time() -> None:
    """It counts."""
    model = LengthModel()
    for _ in range(SKIPPED + LEARNED):
        model.observe(1, 0.0, SHORTEST)
    assert model.predict(1, 0.0) == pytest.approx(SHORTEST, rel=1e-3)


@pytest.mark.parametrize(
    ("errors", "off"),
    [
        ([], 0),
        ([0.5], 1),
        ([0.5, 0.5], 2),
        ([-0.5], -1),
        ([-0.5, -0.5], -2),
        ([0.5, 0.5, -0.5], -1),
        ([-0.5, -0.5, 0.5], 1),
        ([0.5, 2.0], 2),
        ([0.5, 0.2], 0),
        ([0.0], 0),
        ([0.25], 0),  # not more than `SHIFT`
        ([0.5] * (SHIFT_BATCHES - 1), SHIFT_BATCHES - 1),
    ],
)
def test_batches_that_are_far_off(errors: list[float], off: int) -> None:
    """They count on one side, in a row."""
    model = LengthModel()
    for error in errors:
        model._judge(error)
    assert model._off == off


def test_what_is_far_off() -> None:
    """More than three standard deviations, and more than a quarter."""
    model = LengthModel()
    model._variance = 0.0625
    model._judge(0.75)
    assert model._off == 0
    model._variance = 0.0625
    model._judge(0.7501)
    assert model._off == 1
    model._variance = 1e-6
    model._judge(0.2)
    assert model._off == 0


def test_the_variance_of_errors() -> None:
    """The first error says what it is; later ones count up to five standard deviations."""
    model = LengthModel()
    model._judge(0.5)
    assert model._variance == pytest.approx((1 - KEPT) * 0.25)
    model._variance = 0.01
    model._judge(0.3)
    assert model._variance == pytest.approx(KEPT * 0.01 + (1 - KEPT) * 0.09)
    model._variance = 0.01
    model._judge(100.0)
    assert model._variance == pytest.approx(KEPT * 0.01 + (1 - KEPT) * 0.25)


def test_after_a_shift() -> None:
    """All is as after the batch that followed the first ones."""
    model = LengthModel()
    for _ in range(SKIPPED + LEARNED):
        model.observe(2, 3.0, 1.0)
    for _ in range(SHIFT_BATCHES):
        model._judge(0.5)
    assert (model._seen, model._off, model._variance) == (SKIPPED + 1, 0, 0.0)
    assert model._moments == [0.0] * 6
    assert model._targets == [0.0] * 3
    assert not model.known


# The choice


def model_of(a: float, b: float, d: float) -> LengthModel:
    """Return one that knows this."""
    model = LengthModel()
    model._seen = SKIPPED + LEARNED
    model.a, model.b, model.d = a, b, d
    return model


def chosen(
    counts: dict[int, int], model: LengthModel, head: int | None = None, most: int = 32, most_cost: float = inf
) -> tuple[float, float] | None:
    """Return the choice for the shortest item, or another head."""
    numbers = sorted(counts)
    return Lengths(model).choose(numbers[0] if head is None else head, numbers, counts, most, most_cost)


@pytest.mark.parametrize(("b", "apart"), [(2300.0, True), (2380.0, False)])
def test_padding_that_does_not_matter(b: float, apart: bool) -> None:
    """It takes up to a fiftieth of the time: here 64 - 16 units of d, of b + 64 units."""
    counts = {63: 3, 70: 3, 95: 3}  # up to 16, 21 and 64
    assert (chosen(counts, model_of(1.0, b, 1.0)) is not None) is apart


def test_lengths_without_a_cost() -> None:
    """They do not matter, also where items cost nothing at all."""
    assert chosen({15: 1, 31: 1}, model_of(1.0, 0.0, 0.0)) is None


def test_a_tie_is_decided_for_the_shorter_batches() -> None:
    """Two batches of one item take 2 + 2 and 2 + 4, one batch of both 2 + 8."""
    assert chosen({15: 1, 31: 1}, model_of(2.0, 0.0, 1.0)) == (-inf, 15)


def test_an_item_at_the_limit_of_costs() -> None:
    """Its class reaches above the limit; two of them are no batch."""
    # Lengths up to 2 and 4. As one batch of two, the long ones would take 2.5 + 8 with the short one.
    model = model_of(2.5, 0.0, 1.0)
    assert chosen({15: 1, 31: 1}, model, most_cost=8.0) == (-inf, 31)
    assert chosen({15: 1, 31: 1}, model, most_cost=3.9) == (-inf, 15)


def partitioned(counts: dict[int, int], model: LengthModel) -> Lengths:
    lengths = Lengths(model)
    lengths._partition(sorted(counts), counts, 32, inf)
    return lengths


def test_how_much_is_merged() -> None:
    """Half of what was merged the last time, and twice as much as long as there are too many classes."""
    few = {16 * number: 1 for number in range(CANDIDATES)}
    model = model_of(0.0, 0.0, 1.0)
    lengths = partitioned(few, model)
    assert lengths._tolerance == 0.5
    lengths._partition(sorted(few), few, 32, inf)
    assert lengths._tolerance == 0.25
    many = {16 * number: 1 for number in range(CANDIDATES + 1)}
    # The two shortest of them are 2 ** (1 / 16) apart, about 1.04.
    assert partitioned(many, model)._tolerance == 2.0


def test_as_many_candidates_as_allowed_are_not_merged() -> None:
    """One more is."""
    few = {16 * number: 1 for number in range(CANDIDATES)}
    assert len(Lengths(model_of(0.0, 0.0, 1.0))._partition(sorted(few), few, 32, inf)) == CANDIDATES


@pytest.mark.parametrize(
    ("tolerance", "highest", "amounts"),
    [
        (1.9, [15, 31, 47], [1, 2, 1]),
        (2.0, [31, 47], [3, 1]),  # one item padded from 2 to 4
        (7.9, [31, 47], [3, 1]),
        (13.9, [31, 47], [3, 1]),
        (14.0, [47], [4]),  # and then three from 4 to 8
    ],
)
def test_merged_classes(tolerance: float, highest: list[int], amounts: list[int]) -> None:
    """Classes of up to 2, 4 and 8 units."""
    assert _merged([15, 31, 47], {15: 1, 31: 2, 47: 1}, tolerance) == (highest, amounts)


def test_each_group_is_merged_for_itself() -> None:
    """What was added to the one before does not count."""
    counts = {15: 1, 31: 1, 47: 1, 63: 1}
    assert _merged(sorted(counts), counts, 3.9) == ([31, 47, 63], [2, 1, 1])
    assert _merged(sorted(counts), counts, 8.0) == ([31, 63], [2, 2])
    counts = {15: 1, 31: 1, 63: 1, 64: 1}  # 64 adds 0.7 to 63
    assert _merged(sorted(counts), counts, 0.8) == ([15, 31, 64], [1, 1, 2])


def test_when_a_partition_is_sought_again() -> None:
    """After an eighth of the items, rounded down, has come or gone."""
    counts = {15: 10, 79: 10}
    lengths = Lengths(model_of(1.0, 0.0, 1.0))

    def choose() -> tuple[float, float] | None:
        return lengths.choose(15, [15, 79], counts, 32, inf)

    assert choose() == (-inf, 15)
    lengths.model.d = 0.0  # lengths do not matter any more
    for _ in range(20 // RENEWED):
        assert choose() == (-inf, 15)
        lengths.changed()
    assert choose() is None
