"""How long a batch takes, learned."""

from __future__ import annotations

import pytest

from batchers.policies.cost_model import KEPT, QUANTILE, SHIFT_BATCHES, SKIPPED, SPREAD, CostModel

FIRST = [(1, 9.0)] * SKIPPED
"""Batches that do not count."""


def learned(batches: list[tuple[int, float]]) -> CostModel:
    """Return a model that has seen these, after the first ones."""
    model = CostModel()
    for size, seconds in FIRST + batches:
        model.observe(size, seconds)
    return model


def test_nothing_is_known_at_first() -> None:
    """Nor after the first batches, which are slow for reasons of their own."""
    model = learned([])
    assert not model.known
    assert model.predict(10) == 0.0


def test_a_line_is_found() -> None:
    """From two sizes on; a prediction between them and beyond them is right."""
    model = learned([(size, 0.01 + 0.002 * size) for size in (1, 8, 3, 20)])
    assert model.known
    assert model.a == pytest.approx(0.01)
    assert model.b == pytest.approx(0.002)
    assert model.predict(100) == pytest.approx(0.21)


def test_one_size_says_nothing_about_the_slope() -> None:
    """It stays as it was, and the level follows."""
    model = learned([(8, 0.016)])
    assert model.a == pytest.approx(0.016)
    assert model.b == 0.0
    model = learned([(size, 0.01 + 0.002 * size) for size in (1, 8, 3, 20)] + [(8, 0.026)] * 1000)
    assert model.b == pytest.approx(0.002)
    assert model.predict(8) == pytest.approx(0.026)


def test_no_model_is_faster_for_more() -> None:
    """What looks like it is noise."""
    model = learned([(1, 0.02), (10, 0.01), (5, 0.015)])
    assert model.b == 0.0
    assert model.a == pytest.approx(model.predict(7))


def test_nothing_costs_less_than_nothing() -> None:
    """A steep line goes through the origin at most."""
    model = learned([(2, 0.001), (4, 0.1)])
    assert model.a >= 0.0
    assert model.b > 0.0


def test_old_batches_fade() -> None:
    """Each one takes a fiftieth of the weight of those before it."""
    model = learned([(1, 1.0), (1, 2.0)])
    assert model.a == pytest.approx((KEPT * 1.0 + 2.0) / (KEPT + 1))


def test_another_level_is_taken_up_at_once() -> None:
    """Five batches in a row that are far off on one side: the model was changed, and the old ones do not count."""
    noise = [(4, 0.010 + 0.0001 * (number % 3)) for number in range(60)]
    model = learned([*noise, *[(4, 0.030)] * (SHIFT_BATCHES + 1)])
    assert model.predict(4) == pytest.approx(0.030, rel=0.01)
    both_ways = [(4, 0.010 + 0.01 * (number % 2)) for number in range(60)]
    assert learned(both_ways).predict(4) == pytest.approx(0.015, rel=0.05)


def test_the_margin_is_a_quantile() -> None:
    """About nineteen of twenty batches are not later than predicted plus the margin."""
    times = [0.010 + 0.000_1 * (number * 7919 % 100) / 100 for number in range(3000)]
    model = learned([(4, seconds) for seconds in times])
    late = sum(seconds > model.predict(4) + model.margin for seconds in times) / len(times)
    assert 0.02 <= late <= 0.09


def test_the_margin_goes_with_the_noise() -> None:
    """A time of noise is forgotten when it is over."""
    noisy = [(4, 0.3 + 1.2 * (number * 7919 % 100) / 100) for number in range(300)]
    calm = [(4, 0.0105 + 0.001 * (number % 2)) for number in range(600)]
    assert learned(noisy).margin > 0.1
    assert learned(noisy + calm).margin < 0.01


NOISE = [1.0, 1.0, 1.0, 1.001, 1.0, 1.001]
"""So little that everything else is far off: the model has as many as it wants to see before it judges."""


@pytest.mark.parametrize("other", [0.5, 2.0])
def test_how_many_make_another_level(other: float) -> None:
    """The eighth of all and four more, on one side; then the last of them is all it knows."""
    model = CostModel()
    for seconds in [*NOISE, *[other] * SHIFT_BATCHES]:
        model.observe(1, seconds)
    assert model.predict(1) != other
    assert model.margin > 0
    model.observe(1, other)
    assert model.predict(1) == other
    assert model.margin == 0.0


def test_far_off_on_both_sides_is_no_other_level() -> None:
    """Five on the other side count from the first of them."""
    model = CostModel()
    for seconds in [*NOISE, *[2.0] * 4, *[0.1] * 4]:
        model.observe(1, seconds)
    assert model.predict(1) > 0.2
    model.observe(1, 0.1)
    assert model.predict(1) == pytest.approx(0.1)


def test_after_another_level() -> None:
    """Each batch counts at once, and the next change of the level is judged as the first."""
    model = CostModel()
    for seconds in [*NOISE, *[2.0] * (SHIFT_BATCHES + 1)]:
        model.observe(1, seconds)
    model.observe(1, 2.001)
    assert model.predict(1) == pytest.approx((KEPT * 2.0 + 2.001) / (KEPT + 1))
    for seconds in (2.0, 2.001, *[8.0] * SHIFT_BATCHES):
        model.observe(1, seconds)
    assert model.predict(1) != 8.0
    model.observe(1, 8.0)
    assert model.predict(1) == 8.0


def test_no_noise_at_all() -> None:
    """Batches that take what was predicted are not far off, and not late."""
    model = CostModel()
    for _ in range(60):
        model.observe(1, 1.0)
    model.observe(1, 2.0)
    weight = sum(KEPT**age for age in range(59))
    assert model.predict(1) == pytest.approx(1 + 1 / weight)
    assert model.margin == pytest.approx(2 * (1 - KEPT) * QUANTILE * (1 - KEPT) ** 0.5)


def test_a_spread_that_just_says_nothing() -> None:
    """Sizes whose variance is a quarter, to the last bit, leave the slope as it was."""
    for more, slope in ((0.0, 0.0), (0.01, 1.0)):
        model = learned([(1, 1.0)])
        model._weight = model._n = model._t = model._nt = 1 / KEPT
        model._nn = (1 + more) / KEPT
        model.observe(2, 2.0)
        variance = model._nn / model._weight - (model._n / model._weight) ** 2
        assert (variance > SPREAD) is (more > 0)
        assert model.b == pytest.approx(slope, abs=0.05)
