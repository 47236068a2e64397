"""When a batch that is not full goes."""

from __future__ import annotations

import sys
from math import inf, nan
from typing import Any

import pytest

from batchers.errors import OptionError
from batchers.policies.greedy import Greedy
from batchers.policies.window import Window


def test_what_knows_nothing() -> None:
    """Refuses nothing, drops nothing, and sets no limit of its own."""
    for policy in (Greedy(), Window(0.1)):
        rule = policy.rule(8, 1)
        assert (rule.most(), rule.seconds_for(5), rule.answered_at(3, 1.0)) == (sys.maxsize, 0.0, -inf)


def test_greedy() -> None:
    """It holds nothing."""
    rule = Greedy().rule(8, 1)
    assert rule.hold(1, 0, 5.0, inf, 1, 5.0) == -inf
    assert rule.reason == "idle_slot"
    assert Greedy() == Greedy()


@pytest.mark.parametrize("seconds", [0, 0.0, 0.25, 3])
def test_window(seconds: float) -> None:
    """It ends so many seconds after the arrival of the oldest."""
    rule = Window(seconds).rule(8, 1)
    assert rule.hold(1, 0, 5.0, inf, 1, 5.0) == 5.0 + seconds
    assert rule.reason == "window"


@pytest.mark.parametrize("seconds", [-0.001, -1, nan, inf, -inf, True, "1", None])
def test_impossible_windows(seconds: Any) -> None:
    """They are refused with what is right."""
    with pytest.raises(
        OptionError, match="the window must be a finite number of seconds, 0 or more, not "
    ) as caught:
        Window(seconds)

    assert str(caught.value).endswith(repr(seconds))
