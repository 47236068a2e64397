"""The rule of `Adaptive`, event by event. What it is worth is in `tests/benchmarks/theory`."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchers import Adaptive, DeadlineExceededError, OptionError, Options
from batchers.core.decisions import Batch, Expire, Run, Wait
from batchers.core.group_queue import Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Failed

BATCH = 0.010
"""Seconds that every batch takes."""


class Loop:
    """Clients that come back `back` seconds after their answers, one after the other."""

    def __init__(self, clients: int, back: float, **options: Any) -> None:
        options = {"policy": Adaptive()} | options
        self.core: Core[int, int] = Core(Options(max_queue_size=-1, **options))
        self.now = 0.0
        self.coming = [0.0] * clients
        self.back = back
        self.sizes: list[int] = []
        self.holds: list[float] = []

    def run(self, batches: int) -> None:
        """Let so many batches run, one at a time."""
        while len(self.sizes) < batches:
            batch = self.next_batch()
            self.now += BATCH
            while self.coming and self.coming[0] < self.now:
                self.core.offer((Request(0),), self.coming.pop(0))
            count = len(list(self.core.finish(batch, list(batch.items), self.now)))
            self.coming = sorted(self.coming + [self.now + self.back * (n + 1) for n in range(count)])

    def next_batch(self) -> Batch[int]:
        """Let time pass until one goes."""
        free = self.now
        while True:
            decision = self.core.decide(self.now)
            if isinstance(decision, Run):
                self.sizes.append(len(decision.batch.requests))
                if free < self.now:
                    self.holds.append(self.now - free)
                return decision.batch
            assert isinstance(decision, Wait)
            arrival = self.coming[0] if self.coming else inf
            self.now = min(arrival, decision.until)
            if arrival == self.now:
                self.coming.pop(0)
                self.core.offer((Request(0),), self.now)


def test_halves_become_one_cohort() -> None:
    """Two batches in turns, then one batch of all: the lock of the greedy rule is broken."""
    loop = Loop(8, 0.0001)
    loop.run(100)

    assert 8 not in loop.sizes[:10]
    assert loop.sizes[-10:] == [8] * 10


def test_reasons_and_decisions() -> None:
    """Each start says why; the counts add up, and the last ones can be read."""
    loop = Loop(8, 0.0001)
    loop.run(300)
    stats = loop.core.stats()

    assert sum(stats.reasons.values()) == stats.batches == 300
    assert stats.reasons["cohort"] > 200
    last = loop.core.dispatches()
    assert len(last) == 256
    assert (last[-1].items, last[-1].reason, last[-1].left, last[-1].in_flight) == (8, "cohort", 0, 1)
    assert 0 <= last[-1].waited < BATCH
    assert all(dispatch.seconds == pytest.approx(BATCH) for dispatch in last[:-1])
    assert loop.next_batch().started > last[-1].time
    assert loop.core.dispatches()[-1].seconds is None


def test_the_hold_knows_the_limit() -> None:
    """With room for four, it never waits for a fifth: a full batch goes at once."""
    loop = Loop(8, 0.0001, max_batch_size=4)
    loop.run(50)

    assert max(loop.sizes) == 4
    assert loop.core.stats().reasons["full"] > 40


def test_one_client_is_never_held() -> None:
    """There is nobody to wait for."""
    loop = Loop(1, 0.001)
    loop.run(50)

    assert set(loop.core.stats().reasons.items()) >= {("idle_slot", 50), ("cohort", 0)}


def test_clients_that_stay_away() -> None:
    """A cohort that does not come any more holds the batch to the end of the hold, and a few more times."""
    loop = Loop(8, 0.0001)
    loop.run(100)
    now = loop.now
    held = 0
    for _ in range(100):
        loop.core.offer((Request(0),), now)
        decision = loop.core.decide(now)
        if isinstance(decision, Wait):
            assert now < decision.until <= now + Adaptive().max_hold
            held += 1
            now = decision.until
            decision = loop.core.decide(now)
        assert isinstance(decision, Run)
        now += BATCH
        list(loop.core.finish(decision.batch, [0], now))
    assert 0 < held < 60
    assert loop.core.stats().reasons["idle_slot"] > 0


def test_several_groups_are_not_held() -> None:
    """Who waits for a cohort of one group would hold all others."""
    loop = Loop(8, 0.0001)
    loop.run(100)
    for group in ("a", "b"):
        loop.core.offer((Request(0, group),), loop.now)

    assert isinstance(loop.core.decide(loop.now), Run)


def test_a_failed_batch_and_its_parts() -> None:
    """Parts go at once, with a reason of their own, and nothing is learned from their items."""
    core: Core[int, int] = Core(Options(policy=Adaptive(), on_error="bisect"))
    core.offer([Request(0), Request(1)], 0.0)
    first = core.decide(0.0)
    assert isinstance(first, Run)
    assert core.finish(first.batch, Failed(ValueError()), 0.01) == ()
    for _ in range(2):
        part = core.decide(0.01)
        assert isinstance(part, Run)
        list(core.finish(part.batch, [1], 0.02))
    assert core.stats().reasons["bisect"] == 2
    assert not core._rule._parts  # type: ignore[attr-defined]  # of this rule; what has ended is forgotten


@pytest.mark.parametrize("seconds", [-0.001, nan, inf, True, "1", None])
def test_impossible_holds(seconds: Any) -> None:
    """They are refused with what is right."""
    with pytest.raises(OptionError, match="max_hold must be a finite number of seconds, 0 or more, not "):
        Adaptive(seconds)


@pytest.mark.parametrize("seconds", [0, -1, nan, inf, True, "1"])
def test_impossible_targets(seconds: Any) -> None:
    """They are refused with what is right."""
    with pytest.raises(OptionError, match="latency_target must be a finite number of seconds above 0, or None"):
        Adaptive(latency_target=seconds)


class Served:
    """A core that has learned that n items take 10 ms and 1 ms each, and is idle."""

    def __init__(self, **options: Any) -> None:
        self.core: Core[int, int] = Core(Options(max_queue_size=-1, **options))
        self.now = 0.0
        for size in (1, 2, 1, 2, 3, 4):
            self.offer(min(size, options.get("max_batch_size", size)))
            self.finish(self.run())

    def offer(self, count: int, timeout: float = inf) -> list[Request[int]]:
        requests = [Request(n, deadline=self.now + timeout) for n in range(count)]
        self.core.offer(requests, self.now)
        return requests

    def run(self) -> Batch[int]:
        decision = self.core.decide(self.now)
        assert isinstance(decision, Run)
        return decision.batch

    def finish(self, batch: Batch[int]) -> None:
        self.now += 0.010 + 0.001 * len(batch.requests)
        list(self.core.finish(batch, list(batch.items), self.now))


def test_half_of_the_target_is_for_a_batch() -> None:
    """With 40 ms, batches of ten items; the batcher's timeout counts when there is no target."""
    for options in ({"policy": Adaptive(latency_target=0.040)}, {"policy": Adaptive(), "timeout": 0.040}):
        served = Served(max_batch_size=50, **options)
        served.offer(25)
        assert len(served.run().requests) == pytest.approx(10, abs=1)
    served = Served(max_batch_size=50, policy=Adaptive())
    served.offer(25)
    assert len(served.run().requests) == 25


def test_what_cannot_be_in_time_is_refused() -> None:
    """Behind a running batch and two more; the same call is let in when there is time enough."""
    served = Served(policy=Adaptive(), max_batch_size=10)
    served.offer(10)
    served.run()
    served.offer(20)
    with pytest.raises(DeadlineExceededError, match="s late; try again in about") as caught:
        served.offer(1, timeout=0.050)
    assert caught.value.retry_after == pytest.approx(0.021, abs=0.005)
    assert served.core.stats().rejected == 1
    served.offer(1, timeout=0.080)


def test_an_idle_batcher_refuses_nothing() -> None:
    """What it knows may be out of date: a call that seems to be too late runs, and teaches it better."""
    served = Served(policy=Adaptive())
    (request,) = served.offer(1, timeout=0.001)
    assert served.run().requests == [request]


def test_others_get_the_places_of_those_who_would_be_late() -> None:
    """The next batch has room for two: it goes without the two oldest, who are told at once."""
    served = Served(policy=Adaptive(), max_batch_size=2)
    served.offer(2)
    batch = served.run()
    late, soon = served.offer(2, timeout=0.026), served.offer(2, timeout=0.1)
    served.finish(batch)
    served.now += 0.004  # the answer comes late
    decision = served.core.decide(served.now)
    assert isinstance(decision, Expire)
    assert [request for request, _ in decision.settled] == late
    assert served.run().requests == soon
    assert served.core.stats().expired == 2


def test_the_last_ones_are_not_dropped() -> None:
    """Ten would take too long together, six would not: the others go, and no more of them than needed."""
    served = Served(policy=Adaptive(), max_batch_size=50)
    requests = served.offer(10, timeout=0.0165)
    decision = served.core.decide(served.now)
    assert isinstance(decision, Expire)
    assert [request for request, _ in decision.settled] == requests[:4]
    assert served.run().requests == requests[4:]


def test_one_who_is_just_in_time_is_not_late() -> None:
    """The batch that would end at the very moment is not too late; of two that are late the last one stays."""
    served = Served(policy=Adaptive(), max_batch_size=50)
    served.now = 0.0  # so that sums are exact
    ends = served.core._rule.seconds_for(2)
    served.offer(2, timeout=ends)
    assert len(served.run().requests) == 2

    served = Served(policy=Adaptive(), max_batch_size=50)
    late = served.offer(2, timeout=0.001)
    decision = served.core.decide(served.now)
    assert isinstance(decision, Expire)
    assert [request for request, _ in decision.settled] == late[:1]
    assert served.core.inconsistent is False
    assert served.run().requests == late[1:]


def test_what_the_late_are_told() -> None:
    """How long it was, how much too late it would be, and what helps."""
    served = Served(policy=Adaptive(), max_batch_size=50)
    served.offer(4, timeout=0.003)
    served.now += 0.002
    too_late = served.core._rule.seconds_for(4) - 0.001
    decision = served.core.decide(served.now)
    assert isinstance(decision, Expire)
    first = next(str(outcome.error) for _, outcome in decision.settled if isinstance(outcome, Err))
    assert first == (
        f"no answer in time: after 0.002 s in the queue the next batch would end {too_late:.3f} s too late; "
        "give it a longer timeout, or add capacity"
    )


def test_what_the_refused_are_told() -> None:
    """How many wait and run, how much too late it would be, and when to come again; each call counts."""
    served = Served(policy=Adaptive(), max_batch_size=10)
    served.offer(10)
    served.run()
    served.offer(20)
    ends = served.core._rule.answered_at(20, served.now) - served.now
    for count in (1, 2):
        text = r"^20 items wait and 10 run: the answer would be (\S+) s late; try again in about (\S+) s, "
        with pytest.raises(DeadlineExceededError, match=text) as caught:
            served.offer(1, timeout=0.050)
        told = str(caught.value).split()
        assert float(told[told.index("be") + 1]) == pytest.approx(ends - 0.050, abs=0.0006)
        assert float(told[told.index("about") + 1]) == pytest.approx(ends - 0.050, abs=0.0006)
        assert served.core.stats().rejected == count


def test_one_who_is_just_in_time_is_not_refused() -> None:
    """The answer at the very moment is in time."""
    served = Served(policy=Adaptive(), max_batch_size=10)
    served.offer(10)
    served.run()
    exact = served.core._rule.answered_at(0, served.now)
    served.core.offer([Request(0, deadline=exact)], served.now)
    with pytest.raises(DeadlineExceededError):
        served.core.offer([Request(0, deadline=exact - 1e-9)], served.now)


def test_a_batch_that_its_cost_limits() -> None:
    """It takes as long as the items that fit, not as all that wait."""
    served = Served(policy=Adaptive(), cost=lambda _: 1.0, max_batch_cost=2.0)
    requests = [Request(n, cost=1.0, deadline=served.now + 0.014) for n in range(4)]
    served.core.offer(requests, served.now)
    assert served.run().requests == requests[:2]


def test_a_stop_drops_nobody() -> None:
    """It serves all that was accepted, until their own time is over."""
    served = Served(policy=Adaptive(), max_batch_size=50)
    requests = served.offer(10, timeout=0.0165)
    served.core.close(force=False)
    assert served.run().requests == requests


def test_targets_that_are_too_short() -> None:
    """If one item takes more than half of it, batches may take all of it; if it takes more, there is no cap."""
    for target, size in ((0.016, 6), (0.005, 25)):
        served = Served(max_batch_size=50, policy=Adaptive(latency_target=target))
        served.offer(25)
        assert len(served.run().requests) == pytest.approx(size, abs=1)


def test_a_higher_priority_is_not_behind_all_that_wait() -> None:
    """It is let in, because it may be in the very next batch."""
    served = Served(policy=Adaptive(), max_batch_size=10)
    served.offer(10)
    batch = served.run()
    served.offer(30)
    first = Request(0, priority=1, deadline=served.now + 0.050)
    served.core.offer((first,), served.now)
    served.finish(batch)
    assert served.run().requests[0] is first


def test_failed_batches_teach_nothing() -> None:
    """An outage that ends at once, or after half a minute, says nothing about the model."""
    served = Served(policy=Adaptive())
    rule: Any = served.core._rule
    known = rule.cost.predict(4)
    for _ in range(20):
        served.offer(4)
        batch = served.run()
        served.now += 30.0
        list(served.core.finish(batch, Failed(ValueError()), served.now))
    assert rule.cost.predict(4) == known
    assert not rule._running


def test_a_hold_of_what_has_left() -> None:
    """The next item is another one: it goes because a slot is free."""
    loop = Loop(8, 0.0005)
    loop.run(100)
    request = Request(0)
    loop.core.offer((request,), loop.now)
    assert isinstance(loop.core.decide(loop.now), Wait)
    loop.core.withdraw(request)
    loop.core.offer((Request(1),), loop.now + 100)
    assert isinstance(loop.core.decide(loop.now + 100), Run)
    assert loop.core.dispatches()[-1].reason == "idle_slot"


def test_the_earliest_deadline_counts() -> None:
    """Also when it is not that of the oldest item."""
    loop = Loop(8, 0.0005)
    loop.run(100)
    loop.core.offer((Request(0),), loop.now)
    held = loop.core.decide(loop.now)
    assert isinstance(held, Wait)
    loop.core.offer((Request(1, deadline=loop.now + BATCH + 0.001),), loop.now)
    earlier = loop.core.decide(loop.now)
    assert isinstance(earlier, Wait)
    assert earlier.until <= loop.now + 0.001 < held.until


def test_no_hold_makes_an_item_late() -> None:
    """The hold for a cohort ends when the batch has to go."""
    loop = Loop(8, 0.0005)
    loop.run(100)
    start = loop.now
    loop.core.offer((Request(0, deadline=start + BATCH + 0.001),), start)
    decision = loop.core.decide(start)
    assert isinstance(decision, Wait)
    assert start < decision.until <= start + 0.001
    batch = loop.core.decide(decision.until)
    assert isinstance(batch, Run)
    assert loop.core.stats().reasons["deadline"] == 1


events = st.lists(
    st.tuples(st.sampled_from(["offer", "finish", "pass"]), st.floats(0.0001, 0.02)), min_size=1, max_size=120
)


@given(events, st.sampled_from([1, 1, 2, 4]), st.integers(2, 8))
def test_what_always_holds(moves: list[tuple[str, float]], slots: int, most: int) -> None:
    """No batch over the limit, no free slot beside a full one, none held beyond `max_hold`, first come first.

    It has seen a cohort before, so that it has something to wait for.
    """
    policy = Adaptive(max_hold=0.01)
    loop = Loop(8, 0.0001, policy=policy, max_batch_size=most, concurrency=slots)
    loop.run(60)
    core, now = loop.core, loop.now
    while core.queued:
        list(core.finish(loop.next_batch(), [0] * loop.sizes[-1], loop.now))
        now = loop.now
    number, served = 0, []
    running: list[Batch[int]] = []
    free_since = now
    for move, span in moves:
        if move == "offer":
            core.offer((Request(number),), now)
            number += 1
        elif move == "finish" and running:
            batch = running.pop(0)
            list(core.finish(batch, list(batch.items), now))
            free_since = now
        else:
            due = core.due
            now = min(now + span, due) if due > now else now
        while isinstance(decision := core.decide(now), Run):
            assert 1 <= len(decision.batch.requests) <= most
            oldest = min(request.arrived for request in decision.batch.requests)
            assert now - max(oldest, free_since) <= policy.max_hold + 1e-9
            served += decision.batch.items
            running.append(decision.batch)
        assert isinstance(decision, Wait)
        assert len(running) == slots or core.queued < most
        assert decision.until > now
    assert served == sorted(served)
