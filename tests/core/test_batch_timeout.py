"""Batches that take too long are given up: who gets what, and what may run meanwhile."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from batchers import Adaptive, BatchTimeoutError, Options
from batchers.core.decisions import Batch, Done, Expire, Run, Wait
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Failed
from batchers.core.refusals import STALLED_LIMIT

HOPELESS = (
    "4 calls of process_batch hang, and no other is begun until one returns: "
    "see where with batcher.dump(), and restart the process"
)


class Hung:
    """A core whose batches may take a second."""

    def __init__(self, **options: Any) -> None:
        self.core: Core[int, int] = Core(Options(batch_timeout=1.0, max_batch_size=2, **options))

    def run(self, now: float, count: int = 2) -> Batch[int]:
        """Let a batch of so many go."""
        self.core.offer([Request(n) for n in range(count)], now)
        decision = self.core.decide(now)
        assert isinstance(decision, Run)
        return decision.batch

    def expire(self, now: float, text: str = "") -> list[Request[int]]:
        """Return who is told that the time of his batch is over, in these words."""
        decision = self.core.decide(now)
        assert isinstance(decision, Expire)
        settled = list(decision.settled)
        assert all(isinstance(outcome, Err) and type(outcome.error) is BatchTimeoutError for _, outcome in settled)
        assert len({id(outcome) for _, outcome in settled}) == len(settled)
        assert all(not text or (isinstance(outcome, Err) and str(outcome.error) == text) for _, outcome in settled)
        return [request for request, _ in settled]


def test_a_batch_that_hangs() -> None:
    """Its callers are told when its time is over, not before, and another batch takes its place."""
    hung = Hung()
    batch = hung.run(0.0)
    assert hung.core.due == 1.0
    assert isinstance(hung.core.decide(0.999), Wait)
    decision = hung.core.decide(1.0)
    assert isinstance(decision, Expire)
    assert decision.batch is batch
    assert [request for request, _ in decision.settled] == batch.requests
    stats = hung.core.stats()
    assert (stats.failed, stats.running, stats.batches_in_flight, stats.stalled) == (2, 0, 0, 1)
    assert hung.core.due == inf
    hung.run(1.0)


def test_what_its_callers_are_told() -> None:
    """For how long it has run, and what helps; each batch counts."""
    hung = Hung()
    for number in (1, 2):
        hung.run(2.0 * number)
        decision = hung.core.decide(2.0 * number + 1.5)
        assert isinstance(decision, Expire)
        told = {str(outcome.error) for _, outcome in decision.settled if isinstance(outcome, Err)}
        text = (
            "process_batch has not returned after 1.500 s (batch_timeout is 1.0): "
            "give it more time, or see where it hangs with batcher.dump()"
        )
        assert told == {text}
        assert hung.core.inconsistent is False
        assert hung.core.stats().failed == 2 * number


def test_giving_up_that_is_interrupted_loses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next event knows, and its callers are told then."""
    hung = Hung()
    batch = hung.run(0.0)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Core, "_learn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hung.core.decide(1.0)
    assert hung.core.inconsistent is True
    assert hung.core.abort("a defect") == batch.requests


def test_what_it_returns_is_dropped() -> None:
    """Nobody waits for it; and it hangs no more."""
    hung = Hung()
    batch = hung.run(0.0)
    hung.expire(1.5)
    assert list(hung.core.finish(batch, [1, 2], 2.0)) == []
    stats = hung.core.stats()
    assert (stats.completed, stats.failed, stats.stalled) == (0, 2, 0)


def test_callers_that_have_left() -> None:
    """They are not told; the others are."""
    hung = Hung()
    batch = hung.run(0.0)
    hung.core.withdraw(batch.requests[0])
    assert hung.expire(1.0) == batch.requests[1:]
    stats = hung.core.stats()
    assert (stats.failed, stats.cancelled) == (1, 1)


def test_the_oldest_batch_first() -> None:
    """Each has its own second."""
    hung = Hung(concurrency=2)
    first, second = hung.run(0.0), hung.run(0.4)
    assert hung.expire(1.0) == first.requests
    assert hung.core.due == pytest.approx(1.4)
    assert isinstance(hung.core.decide(1.3), Wait)
    assert hung.expire(1.4) == second.requests


def test_no_more_than_so_many() -> None:
    """When too many hang, those that wait are told at once, and who comes is refused, until one returns."""
    hung = Hung()
    batches = []
    for number in range(STALLED_LIMIT):
        batches.append(hung.run(float(number)))
        if number == STALLED_LIMIT - 1:
            waiting = [Request(7), Request(8)]
            hung.core.offer(waiting, number + 0.5)
        hung.expire(number + 1.0)
    now = float(STALLED_LIMIT)
    assert hung.core.due <= now
    assert hung.expire(now, HOPELESS) == waiting
    with pytest.raises(BatchTimeoutError) as caught:
        hung.core.offer([Request(9)], now)
    assert str(caught.value) == HOPELESS
    assert hung.core.stats().rejected == 1
    hung.core.finish(batches[2], [1, 2], now)
    hung.run(now)


def test_parts_of_a_failed_batch_that_wait() -> None:
    """They are told as well."""
    hung = Hung(on_error="bisect", concurrency=STALLED_LIMIT + 1)
    batches = [hung.run(0.0) for _ in range(STALLED_LIMIT)]
    last = hung.run(0.1)
    for batch in batches:
        assert hung.expire(1.0) == batch.requests
    hung.core.finish(last, Failed(ValueError()), 1.05)
    assert hung.expire(1.05) == last.requests
    assert hung.core.stats().running == 0


def test_a_stop_does_not_wait_for_it() -> None:
    """Its callers have been told; so all is done."""
    hung = Hung()
    hung.run(0.0)
    hung.core.close(force=False)
    assert isinstance(hung.core.decide(0.5), Wait)
    hung.expire(1.0)
    assert isinstance(hung.core.decide(1.0), Done)


@pytest.mark.parametrize("options", [{"policy": Adaptive()}, {"concurrency": "auto"}])
def test_what_it_took_is_no_measurement(options: dict[str, Any]) -> None:
    """Policies and automatic concurrency do not learn from it, and forget it."""
    hung = Hung(**options)
    for number in range(20):
        batch = hung.run(float(number))
        hung.core.finish(batch, [1, 2], number + 0.01)
    hung.run(100.0)
    hung.expire(101.0)
    batch = hung.run(101.0)
    hung.core.finish(batch, [1, 2], 101.01)
    rule: Any = hung.core._rule
    if "policy" in options:
        assert rule.cost.predict(2) == pytest.approx(0.01)
        assert not rule._running


def test_without_it_nothing_is_given_up() -> None:
    """A batch may take for ever."""
    core: Core[int, int] = Core(Options())
    core.offer([Request(1)], 0.0)
    assert isinstance(core.decide(0.0), Run)
    assert core.due == inf
    assert isinstance(core.decide(1e9), Wait)
