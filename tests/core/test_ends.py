"""Refusals and ends of the core that the plain model does not tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from batchers import Adaptive, Window
from batchers.core import machine, state
from batchers.core.decisions import Done, Expire, Run, Wait
from batchers.core.group_queue import Request
from batchers.core.groups import Groups
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Failed
from batchers.errors import BatcherStoppedError, OptionError, QueueFullError
from batchers.options import Options

from .steps import running


def test_more_items_than_the_queue_ever_takes() -> None:
    """As many as it takes may come again later; one more can never fit."""
    core: Core[int, int] = Core(Options(max_queue_size=3))
    core.offer([Request(0)], 0.0)

    with pytest.raises(QueueFullError):
        core.offer([Request(n) for n in range(3)], 0.0)
    with pytest.raises(OptionError, match=r"^4 items can never fit max_queue_size=3: pass fewer at a time$"):
        core.offer([Request(n) for n in range(4)], 0.0)

    assert core.stats().rejected == 7


def test_what_was_abandoned() -> None:
    """A forced close is no abandoning: its batches still answer."""
    core: Core[int, int] = Core(Options())
    core.offer([Request(0)], 0.0)
    decision = core.decide(0.0)
    assert isinstance(decision, Run)
    core.close(force=True)
    before = (core.abandoned, core.done)

    assert len(list(core.abandon())) == 1

    assert before == (False, False)
    assert (core.abandoned, core.done) == (True, True)
    assert list(core.finish(decision.batch, [1], 1.0)) == []


def test_what_stopped_callers_are_told() -> None:
    """Whether it ran or waited, and what would have served it."""
    core: Core[int, int] = Core(Options(max_batch_size=1))
    core.offer([Request(0), Request(1)], 0.0)
    running(core, 0.0)

    told = [str(outcome.error) for _, outcome in core.abandon() if isinstance(outcome, Err)]

    text = "the batcher was stopped while the item {}; stop without force or timeout serves all"
    assert told == [text.format("waited"), text.format("ran")]
    with pytest.raises(BatcherStoppedError, match=r"^the batcher is stopped; make a new one$"):
        core.offer([Request(2)], 0.0)


def test_what_late_callers_are_told() -> None:
    """How long it was, where the item was, and what helps."""
    core: Core[int, int] = Core(Options(max_batch_size=1))
    core.offer([Request(0, deadline=3.0), Request(1, deadline=3.0)], 1.0)
    running(core, 1.0)
    decision = core.decide(3.5)
    assert isinstance(decision, Expire)

    told = [str(outcome.error) for _, outcome in decision.settled if isinstance(outcome, Err)]

    text = "no answer after 2.500 s: the item was still {}; give it a longer timeout, or add capacity"
    assert told == [text.format("in a running batch"), text.format("in the queue")]


def test_statistics() -> None:
    """Two batches, of two items and of one; they waited 1, 1 and 4 seconds and took 2 and 5."""
    core: Core[int, int] = Core(Options(max_batch_size=2))
    core.offer([Request(0), Request(1), Request(2)], 10.0)
    first = running(core, 11.0)
    core.finish(first, [0, 1], 13.0)
    second = running(core, 14.0)
    core.finish(second, [2], 19.0)
    stats = core.stats()

    assert (stats.batches, stats.completed, stats.submitted) == (2, 3, 3)
    assert (stats.batch_size.total, stats.batch_size.count) == (3, 2)
    assert (stats.queue_wait.total, stats.queue_wait.count) == (6, 3)
    assert (stats.service_time.total, stats.service_time.count) == (7, 2)


def test_a_collapse_gives_up_every_ticket_once() -> None:
    """Those of running and of divided batches and those that wait; not those that have left."""
    core: Core[int, int] = Core(Options(max_batch_size=4, concurrency=2, on_error="bisect"))
    requests = [Request(n, deadline=100.0) for n in range(12)]
    core.offer(requests, 0.0)
    first, second = running(core, 0.0), running(core, 0.0)
    core.finish(first, Failed(ValueError()), 1.0)
    for number in (1, 5, 9):
        core.withdraw(requests[number])

    given_up = core.abort("a defect")

    assert sorted(request.number - 1 for request in given_up) == [0, 2, 3, 4, 6, 7, 8, 10, 11]
    assert core.failure == "a defect"
    assert not any(core.withdraw(request) for request in requests)
    stats = core.stats()
    assert (stats.stopped, stats.cancelled, stats.queued, stats.running) == (9, 3, 0, 0)
    assert (core.closed, core.abandoned, core.done, core.in_flight) == (True, True, True, 0)
    assert isinstance(core.decide(200.0), Done)
    assert list(core.finish(second, [4, 5, 6, 7], 2.0)) == []
    assert core.abort("a defect") == []
    assert core.stats().stopped == 9


class Interrupting:
    """A cost that is interrupted when it is added, as if a signal handler raised there."""

    def __radd__(self, _: float) -> float:
        raise KeyboardInterrupt

    def __rsub__(self, _: float) -> float:
        return 0.0


def interrupted() -> Iterator[int]:
    """Return one result, then be interrupted."""
    yield 1
    raise KeyboardInterrupt


def interrupt(*_: object) -> None:
    """Be what a signal handler does at any moment."""
    raise KeyboardInterrupt


def test_what_is_interrupted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offer and a withdrawal in the middle; the next event has to know."""
    for event, part in (("offer", "rank"), ("withdraw", "remove")):
        core: Core[int, int] = Core(Options())
        assert core.inconsistent is False
        request = Request(0)
        if event == "withdraw":
            core.offer([request], 0.0)
        with monkeypatch.context() as patch:
            patch.setattr(Groups, part, interrupt)
            with pytest.raises(KeyboardInterrupt):
                core.offer([request], 0.0) if event == "offer" else core.withdraw(request)
        assert core.inconsistent is True


def test_when_an_offer_needs_nobody() -> None:
    """With no slot free nothing is due earlier, unless there is a deadline, its own or another's."""
    core: Core[int, int] = Core(Options(max_batch_size=1))
    assert core.offer([Request(0)], 0.0)
    running(core, 0.0)

    assert not core.offer([Request(1)], 0.0)
    assert core.offer([Request(2, deadline=5.0)], 0.0)
    assert core.offer([Request(3)], 0.0)


def test_a_collapse_counts_the_rest() -> None:
    """What was settled before stays what it was."""
    core: Core[int, int] = Core(Options(max_batch_size=1))
    requests = [Request(n) for n in range(4)]
    core.offer([*requests, Request(4, deadline=3.0)], 0.0)
    core.finish(running(core, 0.0), [1], 1.0)
    core.finish(running(core, 1.0), Failed(ValueError()), 2.0)
    core.withdraw(requests[2])
    assert isinstance(core.decide(3.0), Expire)

    assert core.abort("a defect") == [requests[3]]
    assert core.inconsistent is False
    stats = core.stats()
    assert (stats.completed, stats.failed, stats.cancelled, stats.expired, stats.stopped) == (1, 1, 1, 1, 1)


def test_deadlines_go_on_after_a_forced_close() -> None:
    """Of what runs, its callers are told in time."""
    core: Core[int, int] = Core(Options(max_batch_size=1))
    core.offer([Request(n, deadline=5.0) for n in range(2)], 0.0)
    running(core, 0.0)
    assert len(list(core.close(force=True))) == 1

    assert core.inconsistent is False
    assert isinstance(core.decide(5.0), Expire)
    assert core.inconsistent is False


def test_what_goes_because_of_a_stop() -> None:
    """It is not held any more, and says why."""
    core: Core[int, int] = Core(Options(policy=Window(1.0)))
    core.offer([Request(0)], 0.0)
    core.close(force=False)
    running(core, 0.0)
    assert core.stats().reasons["drain"] == 1


def test_an_end_that_is_interrupted_loses_nobody() -> None:
    """Those who were settled by then were not told yet."""
    core: Core[int, int] = Core(Options())
    requests = [Request(n) for n in range(3)]
    core.offer(requests, 0.0)
    batch = running(core, 0.0)
    core.withdraw(requests[2])
    with pytest.raises(KeyboardInterrupt):
        core.finish(batch, interrupted(), 1.0)  # type: ignore[arg-type]

    was_torn = core.inconsistent
    assert was_torn
    assert core.abort("a defect") == requests[:2]
    assert not core.inconsistent
    stats = core.stats()
    assert (stats.submitted, stats.cancelled, stats.stopped, stats.completed) == (3, 1, 2, 0)


@pytest.mark.parametrize("answers", [[0], [0, 1, 2]])
def test_other_answers_than_callers(answers: list[int]) -> None:
    """A verdict of another length would give somebody no answer: it is an error, and loses nobody."""
    core: Core[int, int] = Core(Options())
    requests = [Request(n) for n in range(2)]
    core.offer(requests, 0.0)
    batch = running(core, 0.0)
    with pytest.raises(ValueError, match="zip"):
        core.finish(batch, answers, 1.0)  # type: ignore[arg-type]  # list is invariant
    assert core.inconsistent
    assert core.abort("a defect") == requests


def test_a_start_that_is_interrupted_loses_nobody() -> None:
    """Neither those who are on their way into the batch nor those who wait."""
    core: Core[int, int] = Core(Options(cost=float, max_batch_cost=100.0))
    requests = [Request(n) for n in range(4)]
    core.offer(requests, 0.0)
    requests[2].cost = Interrupting()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        core.decide(0.0)

    assert core.inconsistent
    assert sorted(request.number for request in core.abort("a defect")) == [1, 2, 3, 4]


def test_a_half_that_is_interrupted_loses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A half of a divided batch, on its way into a new one."""
    core: Core[int, int] = Core(Options(on_error="bisect"))
    requests = [Request(n) for n in range(4)]
    core.offer(requests, 0.0)
    core.finish(running(core, 0.0), Failed(ValueError()), 1.0)

    monkeypatch.setattr(machine, "Batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        core.decide(1.0)
    assert core.inconsistent is True

    assert sorted(request.number for request in core.abort("a defect")) == [1, 2, 3, 4]


@pytest.mark.parametrize("event", ["expire", "close", "abandon", "hang", "late"])
def test_failing_many_that_is_interrupted_loses_nobody(event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who were failed by then were not told yet."""
    special: dict[str, dict[str, Any]] = {"hang": {"batch_timeout": 1.0}, "late": {"policy": Adaptive()}}
    core: Core[int, int] = Core(Options(**special.get(event, {"max_batch_size": 1})))
    if event == "late":
        for now in (0.0, 2.0, 4.0):
            core.offer([Request(9)], now)
            core.finish(running(core, now), [1], now + 1.0)
    before = core.accepted
    requests = [Request(n, deadline=5.0) for n in range(4)]
    core.offer(requests, 4.9 if event == "late" else 0.0)
    if event != "late":
        running(core, 0.0)
    made: list[object] = []

    def make(error: object) -> object:
        made.append(error)
        if len(made) == 2:
            raise KeyboardInterrupt
        return error

    for module in (state, machine):
        monkeypatch.setattr(module, "Err", make)
    events: dict[str, Callable[[], object]] = {
        "expire": partial(core.decide, 9.0),
        "hang": partial(core.decide, 1.0),
        "late": partial(core.decide, 4.9),
        "close": partial(core.close, force=True),
        "abandon": core.abandon,
    }
    with pytest.raises(KeyboardInterrupt):
        events[event]()

    assert core.inconsistent is True
    assert sorted(request.number - before for request in core.abort("a defect")) == [1, 2, 3, 4]


def test_a_refused_offer_leaves_nothing() -> None:
    """Neither queues nor levels of those that came before the one that cannot be compared."""

    class Odd:
        def __hash__(self) -> int:
            return hash(("g", 1))

        def __eq__(self, _: object) -> bool:
            msg = "cannot be compared"
            raise IndexError(msg)

    core: Core[int, int] = Core(Options())
    waiting = Request(0)
    core.offer([waiting], 0.0)
    refused = [Request(1, group=("g", 1)), Request(2, priority=7), Request(3, group=Odd())]
    with pytest.raises(IndexError):
        core.offer(refused, 0.0)

    assert list(core._groups.queues) == [None]
    assert list(waiting.level.queue.levels) == [0]
    assert not any(hasattr(request, "level") for request in refused)
    assert core.stats().queued == 1
    assert core.stats().rejected == 0


def test_tickets_of_another_core() -> None:
    """It lets them be."""
    theirs: Core[int, int] = Core(Options())
    mine: Core[int, int] = Core(Options())
    request = Request(1)
    theirs.offer([request], 0.0)

    assert not mine.withdraw(request)
    assert mine.stats().cancelled == mine.queued == 0
    assert theirs.withdraw(request)


def test_groups_are_forgotten_with_their_last_item() -> None:
    """All but one, which the next items probably belong to."""
    core: Core[int, int] = Core(Options(max_queue_size=-1))
    requests = [Request(n, group=n) for n in range(10)]
    core.offer(requests, 0.0)
    for request in requests:
        core.withdraw(request)

    assert list(core._groups.queues) == [9]


def window_core(batch: int) -> Core[str, str]:
    """Return a core that holds what is not full for ten seconds."""
    return Core(Options(max_batch_size=batch, max_queue_time=10.0))


def offered(core: Core[str, str], items: list[str], now: float) -> list[Request[str]]:
    """Hand in items whose first letter is their group and whose second is their priority."""
    requests = [Request(item, item[0], int(item[1])) for item in items]
    core.offer(requests, now)
    return requests


def test_the_most_urgent_of_the_full_groups_goes() -> None:
    """Whichever was full first, while a more urgent one is held."""
    core = window_core(2)
    offered(core, ["a1", "a1", "b2", "b2", "c3"], 0.0)
    seen = []
    while isinstance(decision := core.decide(0.0), Run):
        seen.append(decision.batch.items)
        core.finish(decision.batch, list(decision.batch.items), 0.0)

    assert seen == [["b2", "b2"], ["a1", "a1"]]


def test_a_group_that_is_full_no_more_is_held_again() -> None:
    """One of its callers has left."""
    core = window_core(2)
    requests = offered(core, ["a1", "a1", "c3"], 0.0)
    core.withdraw(requests[0])

    decision = core.decide(0.0)
    assert isinstance(decision, Wait)
    assert decision.until == 10.0


def test_the_oldest_group_goes_at_its_time() -> None:
    """Exactly then, also behind a more urgent one that came later."""
    core = window_core(5)
    offered(core, ["a1"], 0.0)
    offered(core, ["b2"], 1.0)
    assert isinstance(core.decide(9.999), Wait)
    decision = core.decide(10.0)
    assert isinstance(decision, Run)
    assert decision.batch.items == ["a1"]


def test_a_group_whose_hash_has_changed() -> None:
    """It cannot be forgotten, and it does not matter."""

    class Key:
        value = 1

        def __hash__(self) -> int:
            return self.value

    key = Key()
    core: Core[int, int] = Core(Options())
    core.offer([Request(0, group=key), Request(1)], 0.0)
    key.value = 2
    assert isinstance(core.decide(0.0), Run)
    assert core.queued == 1
