"""Refusals and ends of the core that the plain model does not tell apart."""

from __future__ import annotations

import pytest

from batchers.core import Core
from batchers.decisions import Run
from batchers.errors import OptionError, QueueFullError
from batchers.lanes import Ticket
from batchers.options import Options


def test_more_items_than_the_queue_ever_takes() -> None:
    """As many as it takes may come again later; one more can never fit."""
    core: Core[int, int] = Core(Options(max_queue_size=3))
    core.offer([Ticket(0)], 0.0)

    with pytest.raises(QueueFullError):
        core.offer([Ticket(n) for n in range(3)], 0.0)
    with pytest.raises(OptionError, match=r"^4 items can never fit max_queue_size=3: hand in fewer at a time$"):
        core.offer([Ticket(n) for n in range(4)], 0.0)

    assert core.stats().rejected == 7


def test_what_was_abandoned() -> None:
    """A forced close is no abandoning: its batches still answer."""
    core: Core[int, int] = Core(Options())
    core.offer([Ticket(0)], 0.0)
    decision = core.decide(0.0)
    assert isinstance(decision, Run)
    core.close(force=True)
    before = (core.abandoned, core.done)

    assert len(list(core.abandon())) == 1

    assert before == (False, False)
    assert (core.abandoned, core.done) == (True, True)
    assert list(core.finish(decision.batch, [1], 1.0)) == []
