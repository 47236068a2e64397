"""What events of the core leave behind, one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any
from unittest.mock import Mock

import pytest

from batchers import BatcherError, BatchTimeoutError, QueueFullError
from batchers.core.decisions import Batch, Expire
from batchers.core.group_queue import SETTLED, Request
from batchers.core.groups import Groups
from batchers.core.indexed_heap import IndexedHeap
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Failed, judge
from batchers.core.refusals import STALLED_LIMIT
from batchers.errors import BatchResultError
from batchers.options import Options
from batchers.policies.base import Rule

from .steps import running


def test_a_batch_that_is_new() -> None:
    """Nothing has happened to it."""
    batch: Batch[int] = Batch([], 1.0)
    assert (batch.abandoned, batch.failed, batch.begun, batch.interrupted, batch.cancelled) == (False,) * 5
    assert batch.abandoned is batch.failed is False


def test_an_offer_of_several_ends() -> None:
    """The core is consistent then."""
    core: Core[int, int] = Core(Options())
    core.offer([Request(0), Request(1)], 0.0)
    assert core.inconsistent is False


@pytest.mark.parametrize("single", [True, False])
def test_a_first_offer_that_is_interrupted(monkeypatch: pytest.MonkeyPatch, single: bool) -> None:
    """Before it has changed anything, nothing has to be repaired."""
    core: Core[int, int] = Core(Options())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchers.core.groups.GroupQueue", interrupt)
    with pytest.raises(KeyboardInterrupt):
        core.offer_one(Request(0), 0.0) if single else core.offer([Request(0)], 0.0)
    assert core.inconsistent is False


def test_requests_of_different_calls() -> None:
    """Those that are refused say why, in order; the others wait since now."""
    core: Core[int, int] = Core(Options(max_queue_size=2))
    requests = [Request(number) for number in range(4)]
    refused = core.offer_each(requests, 7.0)
    assert [request for request, _ in refused] == requests[2:]
    assert all(isinstance(error, QueueFullError) for _, error in refused)
    assert [request.arrived for request in requests[:2]] == [7.0, 7.0]
    assert core.queued == 2
    assert core.offer_each([], 8.0) == []


def test_a_batch_ends_while_another_one_is_deserted() -> None:
    """The decision on the other one is still to come."""
    core: Core[int, int] = Core(Options(max_batch_size=1, concurrency=2, cancel_abandoned=True))
    requests = [Request(0), Request(1)]
    core.offer(requests, 0.0)
    first, second = running(core), running(core)
    core.withdraw(requests[0])
    assert len(list(core.finish(second, [1], 1.0))) == 1
    decision = core.decide(1.0)
    assert isinstance(decision, Expire)
    assert decision.batch is first


def test_a_cancelled_batch_has_no_service_time() -> None:
    """It says nothing about how long others take."""
    core: Core[int, int] = Core(Options(cancel_abandoned=True))
    request = Request(0)
    core.offer([request], 0.0)
    batch = running(core)
    core.withdraw(request)
    batch.cancelled = True
    assert list(core.finish(batch, Failed(ValueError()), 1.0)) == []
    assert core.stats().service_time.count == 0
    assert batch.took == []


def test_failed_batches_are_counted() -> None:
    """Once each, also if the report is interrupted and comes again."""
    core: Core[int, int] = Core(Options(max_batch_size=1))
    core.offer([Request(n) for n in range(3)], 0.0)
    for _ in range(2):
        core.finish(running(core), Failed(ValueError()), 1.0)
    assert core.failed_batches == core.stats().failed_batches == 2
    batch = running(core, 1.0)
    batch.failed = True
    core.finish(batch, Failed(ValueError()), 2.0)
    assert core.failed_batches == 2
    assert batch.failed is True


def test_padding() -> None:
    """Lengths of 4 and 3 in one batch, then 2: 9 units of 10. Counted with the option `length`, and only then."""
    for options, paddings in (
        (Options(length=float), (0.125, 0.1)),
        (Options(cost=float, max_batch_cost=99.0), (0.0, 0.0)),
    ):
        core: Core[float, int] = Core(options)
        for lengths, padding in zip(((4.0, 3.0), (2.0,)), paddings, strict=True):
            core.offer([Request(length, cost=length) for length in lengths], 0.0)
            core.finish(running(core), [0] * len(lengths), 1.0)
            assert core.stats().padding == pytest.approx(padding)
    nothing: Core[float, int] = Core(Options(length=float))
    nothing.offer([Request(0.0)], 0.0)
    running(nothing)
    assert nothing.stats().padding == 0.0


def test_an_expiry_that_is_interrupted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first step on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    core: Core[int, int] = Core(Options())
    core.offer([Request(0, deadline=1.0)], 0.0)
    monkeypatch.setattr(IndexedHeap, "discard", interrupt)
    with pytest.raises(KeyboardInterrupt):
        core.decide(2.0)
    assert core.inconsistent is True


# Refusals


def test_a_batcher_that_has_failed_says_why() -> None:
    """To every later caller."""
    core: Core[int, int] = Core(Options())
    core.abort("a defect")
    with pytest.raises(BatcherError, match="a defect") as caught:
        core.offer([Request(0)], 0.0)
    assert type(caught.value) is BatcherError


def test_a_queue_that_is_full_says_what_helps() -> None:
    """The whole text."""
    core: Core[int, int] = Core(Options(max_queue_size=1))
    core.offer([Request(0)], 0.0)
    text = (
        r"^1 items wait and max_queue_size is 1: try again in about \d+\.\d{3} s, "
        r"raise max_queue_size, or add capacity$"
    )
    with pytest.raises(QueueFullError, match=text):
        core.offer([Request(1)], 0.0)


def test_as_many_stalled_batches_as_are_allowed() -> None:
    """None more is started, whatever is asked first: the room, or an offer of one or several."""
    core: Core[int, int] = Core(Options(batch_timeout=1.0, max_batch_size=1))
    for number in range(STALLED_LIMIT):
        core.check_room(1)
        core.offer([Request(number)], 2.0 * number)
        running(core, 2.0 * number)
        assert isinstance(core.decide(2.0 * number + 1), Expire)
    for count in (1, 2):
        with pytest.raises(BatchTimeoutError):
            core.check_room(count)
        with pytest.raises(BatchTimeoutError):
            core.offer([Request(n) for n in range(count)], 99.0)


# Groups


class Asked(Rule):
    """A rule that notes what it is asked, and holds until a time."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.asked: list[tuple[object, ...]] = []

    def hold(self, *asked: float) -> float:
        self.asked.append(asked)
        return self.until


def groups_of(rule: Rule, requests: Iterable[Request[int]]) -> Groups[int]:
    """Return groups in which these wait."""
    groups: Groups[int] = Groups(Options(), rule, "owner")
    for number, request in enumerate(requests, 1):
        groups.admit_one(request)
        request.number, request.arrived = number, float(number)
        if request.level.queue.add(request):
            groups.rank(request.level.queue)
    return groups


@pytest.mark.parametrize("names", ["a", "aba"])
def test_what_a_policy_is_asked(names: str) -> None:
    """The size of the group, that of the others, its oldest arrival, the earliest deadline, and how many came."""
    rule = Asked(9.0)
    groups = groups_of(rule, [Request(0, group=name) for name in names])
    mine, others = names.count("a"), names.count("b")
    assert groups.held_until(3.0, len(names), 77, 8.0, at_once=False) == 9.0
    assert groups.select(3.0, len(names), 77, 8.0, at_once=False) is None
    assert set(rule.asked) == {(mine, others, 1.0, 8.0, 77, 3.0)}


def test_groups_that_are_cleared_can_be_used_again() -> None:
    """As new ones."""
    groups = groups_of(Asked(-inf), [Request(0)])
    groups.clear()
    assert groups._only is None
    request = Request(1, group="g")
    groups.admit_one(request)
    request.number, request.arrived = 1, 1.0
    request.level.queue.add(request)
    groups.rank(request.level.queue)
    assert groups.select(2.0, 1, 1, inf, at_once=False) is request.level.queue


def test_the_last_group_stays() -> None:
    """Its queue is used again; with two groups, an empty one is dropped, and the other is the only one."""
    groups = groups_of(Asked(-inf), requests := [Request(0, group="a"), Request(1, group="b")])
    assert groups._only is None
    for request in requests:
        request.state = SETTLED
        groups.remove(request)
    assert list(groups.queues) == ["b"]
    assert groups._only is groups.queues["b"]


def test_the_queue_of_a_refused_offer_stays_if_it_is_the_only_one() -> None:
    """Most batchers have one group."""

    class Odd:
        def __hash__(self) -> int:
            msg = "no hash"
            raise IndexError(msg)

    core: Core[int, int] = Core(Options())
    with pytest.raises(IndexError):
        core.offer([Request(0, group="a"), Request(1, group=Odd())], 0.0)
    assert list(core._groups.queues) == ["a"]
    assert core._groups._only is core._groups.queues["a"]


@pytest.mark.parametrize("length", [None, float])
def test_what_a_queue_of_a_group_is_told(length: Any) -> None:
    """Its group, whose it is, and the sizes of the model, with lengths or without."""
    for sizes in (None, (1, 8)):
        core: Core[float, int] = Core(Options(batch_sizes=sizes, length=length))
        core.offer([Request(1.0, group="g", cost=1.0)], 0.0)
        queue = core._groups.queues["g"]
        assert (queue.group, queue.owner, queue.sizes) == ("g", core._token, sizes or ())


def test_a_new_level_that_is_interrupted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a queue or a level is added, and not afterwards."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    groups = groups_of(Asked(-inf), [Request(0)])
    assert groups.changing is False
    groups.admit_one(Request(1, priority=3))
    assert groups.changing is False
    monkeypatch.setattr(type(groups.queues[None]), "new_level", interrupt)
    with pytest.raises(KeyboardInterrupt):
        groups.admit_one(Request(2, priority=7))
    assert groups.changing is True


def test_an_empty_queue_is_not_full() -> None:
    """It was full when it became the only one; it is in no order when there are two again."""
    requests = [Request(0, group="a"), Request(1, group="b")]
    groups: Groups[int] = Groups(Options(max_batch_size=1), Asked(-inf), "owner")
    for number, request in enumerate(requests, 1):
        groups.admit_one(request)
        request.number, request.arrived = number, float(number)
        if request.level.queue.add(request):
            groups.rank(request.level.queue)
    requests[1].state = SETTLED
    groups.remove(requests[1])
    groups.take(groups.queues["a"], [])
    groups.admit_one(Request(2, group="c"))
    assert not groups._full.keys


def test_a_core_that_is_new() -> None:
    """It is open."""
    core: Core[int, int] = Core(Options())
    assert core.closed is False
    assert core.abandoned is False


def test_a_heap_is_made_once() -> None:
    """Not for each question."""
    heap: IndexedHeap[str] = IndexedHeap()
    for key, member in enumerate("abc"):
        heap.put(member, key)
    assert heap.first() == "a"
    made = heap._heap
    assert made is not None
    heap.put("d", -1)
    assert heap.first() == "d"
    assert heap._heap is made


# Results


@pytest.mark.parametrize(
    "results", [[KeyError("x")], [1, KeyError("x")], [1, 2, KeyError("x")], ["a", [1], KeyError("x")]]
)
def test_an_exception_among_results(results: list[object]) -> None:
    """It is the error of its item, wherever it stands."""
    outcomes = judge(results, len(results))
    assert isinstance(outcomes, list)
    assert outcomes[:-1] == results[:-1]
    assert isinstance(outcomes[-1], Err)


def test_a_mock_among_results() -> None:
    """It is a value, whatever its class says, also beside an exception."""
    mock = Mock(spec=ValueError)
    for others in ([], [KeyError("x")]):
        outcomes = judge([mock, *others], 1 + len(others))
        assert isinstance(outcomes, list)
        assert outcomes[0] is mock
        assert all(isinstance(outcome, Err) for outcome in outcomes[1:])


class Keyed:
    """It has keys, and is no mapping."""

    def keys(self) -> list[int]:
        return [0, 1]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> int:
        return place


class Sized:
    """It has a length and no places."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return iter([1, 2])


class Placed:
    """It has places and no length."""

    def __getitem__(self, place: int) -> int:
        return [1, 2][place]


RULE = "return a list (or an array) with one result for each item, in the order of the items"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Keyed(), f"a Keyed, whose order is not the order of the items; {RULE}"),
        ({1: 2, 3: 4}, f"a dict, whose order is not the order of the items; {RULE}"),
        (Sized(), f"a Sized; {RULE}"),
        (Placed(), f"a Placed; {RULE}"),
    ],
)
def test_results_that_are_no_rows(result: object, text: str) -> None:
    """The whole text."""
    outcomes = judge(result, 2)
    assert isinstance(outcomes, Failed)
    assert isinstance(outcomes.cause, BatchResultError)
    assert str(outcomes.cause) == f"process_batch returned {text}"
