"""The queue of items with lengths: what every batch of it keeps, whatever the lengths and the model are."""

from __future__ import annotations

from bisect import bisect_left
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchers.core.decisions import Run
from batchers.core.group_queue import MIN_TOMBSTONES, QUEUED, RUNNING, SETTLED, GroupQueue, Request
from batchers.core.length_queue import LengthLevel, LengthQueue, _nearest_first, _Next
from batchers.core.machine import Core
from batchers.options import Options
from batchers.policies.lengths import LengthModel, class_of

LENGTHS = st.sampled_from([0, 0.5, 1, 2, 3, 7, 7.1, 8, 30, 31, 100, 101, 1000])
MODELS = st.sampled_from(
    [None, (1.0, 0.0, 0.01), (0.1, 0.1, 0.1), (5.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 1e-6)]
)


def model_of(coefficients: tuple[float, float, float] | None) -> LengthModel:
    model = LengthModel()
    if coefficients is not None:
        a, b, d = coefficients
        for size, longest in ((1, 1), (2, 1), (1, 9), (4, 9), (8, 3), (5, 5), (2, 7), (9, 100), (3, 50)) * 4:
            model.observe(size, longest, a + b * size + d * size * longest)
    return model


def request_of(queue: GroupQueue[int], number: int, length: float, priority: int = 0) -> Request[int]:
    request = Request(number, None, priority, length)
    request.number = number
    request.arrived = float(number)
    request.level = queue.levels.get(priority) or queue.new_level(priority)
    return request


def check(queue: LengthQueue[int], waiting: list[Request[int]]) -> None:
    assert queue.size == len(waiting)
    assert queue.cost == pytest.approx(sum(request.cost for request in waiting))
    assert sorted(request.number for request in queue.waiting()) == sorted(each.number for each in waiting)
    for level in queue.levels.values():
        assert isinstance(level, LengthLevel)
        mine = [request for request in waiting if request.level is level]
        numbers = sorted({class_of(request.cost) for request in mine})
        assert level.numbers == numbers == sorted(level.counts) == sorted(level.by_class)
        found = {each.number for deque in level.by_class.values() for each in deque if each.state == QUEUED}
        assert found == {request.number for request in mine}
        for number in numbers:
            assert level.counts[number] == sum(class_of(request.cost) == number for request in mine)
        stale = sum(each.state != QUEUED for deque in level.by_class.values() for each in deque)
        assert stale == level.stale <= max(16, len(mine))
        assert level.dead == sum(each.state != QUEUED for each in level.requests)


@settings(max_examples=150)
@given(st.data())
def test_what_every_batch_keeps(data: st.DataObject) -> None:
    """The head is in it, the limits hold, lower priorities make it no longer, nobody is lost or taken twice."""
    most = data.draw(st.integers(1, 9))
    most_cost = data.draw(st.sampled_from([inf, 1000, 5000]))
    queue: LengthQueue[int] = LengthQueue(None, "owner", most, most_cost, model_of(data.draw(MODELS)))
    waiting: list[Request[int]] = []
    for number in range(1, data.draw(st.integers(2, 60))):
        what = data.draw(st.sampled_from(["add", "add", "add", "take", "remove"]))
        if what == "add" or not waiting:
            request = request_of(queue, number, data.draw(LENGTHS), data.draw(st.sampled_from([0, 0, 0, 1, -2])))
            queue.add(request)
            waiting.append(request)
        elif what == "remove":
            request = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            request.state = SETTLED
            queue.remove(request)
        else:
            head = min(waiting, key=lambda each: (-each.priority, each.number))
            assert queue.head() is head
            taken: list[Request[int]] = []
            queue.take(taken)
            assert head in taken
            assert 1 <= len(taken) <= most
            longest = max(request.cost for request in taken)
            assert len(taken) * longest <= most_cost
            assert longest == max(request.cost for request in taken if request.priority == head.priority)
            assert len({request.number for request in taken}) == len(taken)
            assert all(request.state == RUNNING for request in taken)
            assert all(request in waiting for request in taken)
            left = [request for request in waiting if request not in taken]
            assert not (queue.by_length and not left)
            waiting = left
        check(queue, waiting)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=1, max_size=60), MODELS, st.sampled_from([0, 3.0]))
def test_equal_lengths_decide_nothing(
    priorities: list[int], model: tuple[float, float, float] | None, length: float
) -> None:
    """The batches are the same as without lengths."""
    lengths: LengthQueue[int] = LengthQueue(None, "owner", 7, inf, model_of(model))
    plain: GroupQueue[int] = GroupQueue(None, "owner", 7)
    batches: list[list[list[int]]] = []
    for queue in (lengths, plain):
        batches.append([])
        for number, priority in enumerate(priorities, 1):
            queue.add(request_of(queue, number, length, priority))
        while queue.size:
            taken: list[Request[int]] = []
            queue.take(taken)
            for request in taken:
                request.state = SETTLED
            batches[-1].append([request.number for request in taken])
        assert not queue.by_length
    assert batches[0] == batches[1]


def test_a_batch_ends_by_length() -> None:
    """It has the lengths of its head, the others come next, and the reason says so."""
    core: Core[int, int] = Core(Options(length=lambda item: item))
    reasons = []
    for number in range(40):
        for length in (5.0, 100.0, 5.0, 100.0):
            core.offer_one(Request(number, cost=length), float(number))
        for _ in range(2):
            decision = core.decide(float(number))
            assert isinstance(decision, Run)
            batch = decision.batch
            longest = max(request.cost for request in batch.requests)
            if number > 10:
                assert [request.cost for request in batch.requests] == [longest, longest]
            core.finish(batch, [0] * len(batch.requests), number + 0.001 + 0.0001 * longest * len(batch.requests))
            if not core.queued:
                break
        reasons.append([dispatch.reason for dispatch in core.dispatches()][-2:])
    assert reasons[-1] == ["length", "idle_slot"]


def test_a_long_item_waits_for_no_one() -> None:
    """It is in the batch after the items that came before it, however many short ones come."""
    queue: LengthQueue[int] = LengthQueue(None, "owner", 4, inf, model_of((0.1, 0.1, 0.1)))
    number = 0
    for _ in range(20):
        number += 1
        queue.add(request_of(queue, number, 3.0))
    queue.add(request_of(queue, 1000, 500.0))
    taken: list[Request[int]] = []
    for batch in range(1, 6):
        for _ in range(10):
            number += 1
            queue.add(request_of(queue, 1000 + number, 3.0))
        taken = []
        queue.take(taken)
        assert (1000 in [request.number for request in taken]) == (batch == 6)
    queue.take(taken := [])
    assert 1000 in [request.number for request in taken]


def test_order_of_classes() -> None:
    """A longer item has never a lower class, and no item is longer than its class."""
    lengths = [0, 1e-9, 0.3, 1, 1.04, 1.05, 2, 3, 1e6, 1e300]
    classes = [class_of(length) for length in lengths]
    assert classes == sorted(classes)
    assert bisect_left(classes, class_of(2)) == 6


def waiting(
    lengths: list[float], most: int = 32, most_cost: float = inf
) -> tuple[LengthQueue[int], list[Request[int]]]:
    """Return a queue in which items of these lengths wait, and their requests."""
    queue: LengthQueue[int] = LengthQueue("group", "owner", most, most_cost, model_of(None))
    requests = [request_of(queue, number, length) for number, length in enumerate(lengths, 1)]
    for request in requests:
        queue.add(request)
    return queue, requests


def leave(queue: LengthQueue[int], requests: list[Request[int]]) -> None:
    for request in requests:
        request.state = SETTLED
        queue.remove(request)


def level_of(request: Request[int]) -> LengthLevel[int]:
    assert isinstance(request.level, LengthLevel)
    return request.level


def taken_from(queue: LengthQueue[int]) -> list[float]:
    """Return the lengths of the next batch."""
    taken: list[Request[int]] = []
    queue.take(taken)
    return [request.cost for request in taken]


def test_a_queue_says_whose_it_is() -> None:
    """As other queues do."""
    queue, _ = waiting([])
    assert (queue.group, queue.owner, queue.most) == ("group", "owner", 32)


def test_tombstones_of_a_class() -> None:
    """The first ones go at once, the others when they are first, or with a batch."""
    queue, requests = waiting([5.0] * 6)
    level = level_of(requests[0])
    mine = level.by_class[class_of(5.0)]
    leave(queue, requests[:1])
    assert (len(mine), level.stale) == (5, 0)
    leave(queue, requests[2:4])
    assert (len(mine), level.stale) == (5, 2)
    leave(queue, requests[1:2])
    assert (len(mine), level.stale) == (2, 0)
    leave(queue, requests[5:])
    assert (len(mine), level.stale) == (2, 1)
    assert taken_from(queue) == [5.0]
    assert level.by_class == {}
    assert level.stale == 0


def test_tombstones_on_the_way_of_a_batch() -> None:
    """Taken out of their class with it."""
    queue, requests = waiting([5.0] * 7, most=2)
    level = level_of(requests[0])
    leave(queue, [requests[1], requests[2], requests[5]])
    assert level.stale == 3
    assert taken_from(queue) == [5.0, 5.0]
    assert (level.stale, list(level.by_class[class_of(5.0)])) == (1, requests[4:])


@pytest.mark.parametrize(("others", "stale"), [(MIN_TOMBSTONES - 1, 0), (MIN_TOMBSTONES, MIN_TOMBSTONES + 1)])
def test_many_tombstones_of_classes(others: int, stale: int) -> None:
    """They go all together when they are more than a few, and more than what waits."""
    queue, requests = waiting([5.0] * (MIN_TOMBSTONES + 2) + [90.0] * others)
    level = level_of(requests[0])
    leave(queue, requests[1 : MIN_TOMBSTONES + 1])
    assert level.stale == MIN_TOMBSTONES
    leave(queue, requests[MIN_TOMBSTONES + 1 : MIN_TOMBSTONES + 2])
    assert level.stale == stale
    assert len(level.by_class[class_of(5.0)]) == 1 + stale
    check(queue, [each for each in requests if each.state == QUEUED])


def test_few_tombstones_of_classes_stay() -> None:
    """Also where they are the majority."""
    queue, requests = waiting([5.0] * (MIN_TOMBSTONES + 2))
    leave(queue, requests[1:-1])
    assert level_of(requests[0]).stale == MIN_TOMBSTONES
    assert len(level_of(requests[0]).by_class[class_of(5.0)]) == MIN_TOMBSTONES + 2


def test_a_class_that_does_not_fit_as_a_whole() -> None:
    """What is taken of it is counted."""
    queue, requests = waiting([10.0, 10.2, 3.0], most_cost=20.1)
    assert class_of(10.0) == class_of(10.2)
    assert taken_from(queue) == [10.0]
    check(queue, requests[1:])


@pytest.mark.parametrize("most_cost", [inf, 20.0, 19.9])
@pytest.mark.parametrize("length", [0.0, 1.0, 5.0, 6.66, 6.67, 8.0, 10.0, 10.1])
@pytest.mark.parametrize("longest", [0.0, 6.0, 6.65])
@pytest.mark.parametrize("limit", [inf, 8.0])
def test_whether_an_item_fits(most_cost: float, length: float, longest: float, limit: float) -> None:
    """All items, as long as the longest, within the limit; none longer than another limit."""
    taken = [Request(0, cost=longest)] * (2 if longest else 1)
    batch: _Next[int] = _Next(taken, 9, most_cost)
    batch.longest, batch.limit = longest, limit
    fits = (len(taken) + 1) * max(longest, length) <= most_cost and length <= max(limit, longest)
    assert batch.fits(length) is fits
    assert batch.longest == (max(length, longest) if fits else longest)


def test_two_items_fill_the_cost_exactly() -> None:
    """Then a third one does not fit, however short."""
    batch: _Next[int] = _Next([Request(0, cost=10.0)], 9, 20.0)
    batch.longest = 10.0
    assert batch.fits(10.0)
    batch.taken.append(Request(1, cost=10.0))
    assert not batch.fits(0.0)


def test_a_lower_priority_does_not_overtake() -> None:
    """Where one of the head's level does not fit, and all are of one class, none after it goes."""
    queue, _ = waiting([10.0, 10.2], most_cost=20.1)
    assert class_of(10.0) == class_of(10.2) == class_of(9.95)
    queue.add(request_of(queue, 3, 9.95, -1))
    assert taken_from(queue) == [10.0]


def test_the_order_of_classes_in_a_batch() -> None:
    """First that of the head, then shorter ones, the longest of them first, then longer ones."""
    numbers = [1, 3, 5, 7, 9, 11, 13]
    assert _nearest_first(numbers, 7, 3, 11) == [7, 5, 3, 9, 11]
    assert _nearest_first(numbers, 6, -inf, inf) == [5, 3, 1, 7, 9, 11, 13]
    assert _nearest_first(numbers, 1, 3, 5) == [3, 5]
    assert _nearest_first(numbers, 13, 3, 5) == [5, 3]


@pytest.mark.parametrize(
    ("lengths", "sizes", "most", "size"),
    [
        ([8.0] * 9, (4, 8, 32), 32, 8),  # the largest size up to 9
        ([8.0] * 9, (4, 8, 16), 32, 9),  # more than half of 16
        ([8.0] * 3 + [100.0] * 9, (2, 4), 32, 3),  # only those that share the batch are counted
        ([8.0] * 3 + [100.0] * 9, (2, 8), 32, 2),
        ([8.0] * 9, (2, 4), 3, 3),
        ([8.0, 4.0, 16.0], (1, 8), 32, 1),  # 4 and 8 are counted, 16 is not
        ([8.0, 4.0, 7.0, 16.0], (1, 2, 16), 32, 2),
        ([8.0, 4.0, 16.0], (2, 9), 32, 2),
    ],
)
def test_sizes_for_which_a_model_is_compiled(
    lengths: list[float], sizes: tuple[int, ...], most: int, size: int
) -> None:
    """As many as one of them has; the rest waits."""
    queue, _ = waiting(lengths, most=most)
    queue.sizes = sizes
    assert len(taken_from(queue)) == size
