"""The waiting items of one group: counts, costs and tombstones."""

from __future__ import annotations

import sys
from math import inf

import pytest

from batchers.core.group_queue import MIN_TOMBSTONES, QUEUED, SETTLED, GroupQueue, Request, fitting


def add(queue: GroupQueue[int], request: Request[int], number: int) -> bool:
    """Let a request wait, as the core does."""
    request.number = number
    request.level = queue.levels.get(request.priority) or queue.new_level(request.priority)
    return queue.add(request)


def queue_of(requests: list[Request[int]], most: int = sys.maxsize, most_cost: float = inf) -> GroupQueue[int]:
    """Return a queue in which they wait."""
    queue: GroupQueue[int] = GroupQueue("group", "owner", most, most_cost)
    for number, request in enumerate(requests):
        add(queue, request, number)
    return queue


def take(queue: GroupQueue[int]) -> list[Request[int]]:
    taken: list[Request[int]] = []
    queue.take(taken)
    return taken


def leave(queue: GroupQueue[int], request: Request[int]) -> None:
    request.state = SETTLED
    queue.remove(request)


def test_a_ticket_with_nothing_special() -> None:
    """The defaults: no group, priority 0, no cost, no deadline, nobody who waits."""
    request = Request("item")

    assert (request.item, request.group, request.priority, request.cost) == ("item", None, 0, 0.0)
    assert (request.deadline, request.future, request.loop, request.state) == (inf, None, None, QUEUED)
    full = Request(1, "g", 2, 3.0, 4.0, "future", "loop")
    assert (full.group, full.priority, full.cost, full.deadline) == ("g", 2, 3.0, 4.0)
    assert (full.future, full.loop) == ("future", "loop")


def test_a_queue_that_is_new() -> None:
    """Empty and not full."""
    queue: GroupQueue[int] = GroupQueue("group", "owner")

    assert (queue.group, queue.owner, queue.size, queue.cost, queue.full) == ("group", "owner", 0, 0.0, False)


def test_the_head_may_change_only_with_the_first_of_a_priority() -> None:
    """Then the orders above the queue have to be looked at."""
    queue: GroupQueue[int] = GroupQueue("group")
    found = [add(queue, Request(n, priority=priority), n) for n, priority in enumerate([0, 0, 1, 1, 0])]

    assert found == [True, False, True, False, False]


def test_a_queue_that_is_full_says_so_until_it_is_ranked() -> None:
    """By the number of its items, or by their cost."""
    for queue in (GroupQueue[int]("group", None, 3), GroupQueue[int]("group", None, sys.maxsize, 3.0)):
        found = []
        for number in range(5):
            found.append(add(queue, Request(number, cost=1.0), number))
            if number == 3:
                assert queue.fills()
                queue.full = True
        assert found == [True, False, True, True, False]


def test_costs() -> None:
    """They follow what enters, leaves and is taken; an empty queue has none, whatever was rounded."""
    requests = [Request(n, cost=cost) for n, cost in enumerate([0.1, 0.2, 0.3, 4.0])]
    queue = queue_of(requests, 2, 1.0)
    assert (queue.size, queue.cost) == (4, 0.1 + 0.2 + 0.3 + 4.0)
    leave(queue, requests[3])
    assert queue.size == 3
    assert abs(queue.cost - 0.6) < 1e-9
    assert take(queue) == requests[:2]
    assert abs(queue.cost - 0.3) < 1e-9
    assert take(queue) == requests[2:3]
    assert (queue.size, queue.cost) == (0, 0.0)


def test_tombstones_in_the_middle() -> None:
    """They stay until they are the majority, and more than a few."""
    count = 4 * MIN_TOMBSTONES
    requests = [Request(n) for n in range(count)]
    queue = queue_of(requests)
    level = requests[0].level
    for request in requests[1 : 2 * MIN_TOMBSTONES + 1]:
        leave(queue, request)
    assert (len(level.requests), level.dead) == (count, 2 * MIN_TOMBSTONES)
    leave(queue, requests[2 * MIN_TOMBSTONES + 1])
    assert (len(level.requests), level.dead) == (count - 2 * MIN_TOMBSTONES - 1, 0)
    assert queue.waiting() == [requests[0], *requests[2 * MIN_TOMBSTONES + 2 :]]
    assert queue.size == len(queue.waiting())


def test_few_tombstones_are_not_worth_a_new_deque() -> None:
    """Also where they are the majority; they go when they are first."""
    requests = [Request(n) for n in range(MIN_TOMBSTONES + 2)]
    queue = queue_of(requests)
    level = requests[0].level
    for request in requests[1 : MIN_TOMBSTONES + 1]:
        leave(queue, request)
    assert (len(level.requests), level.dead, queue.size) == (MIN_TOMBSTONES + 2, MIN_TOMBSTONES, 2)
    leave(queue, requests[0])
    assert (len(level.requests), level.dead, queue.size) == (1, 0, 1)
    assert queue.head() is queue.oldest() is requests[-1]


def test_tombstones_on_the_way_of_a_batch() -> None:
    """Taken out with it, and never in it."""
    requests = [Request(n) for n in range(8)]
    queue = queue_of(requests, 2)
    level = requests[0].level
    for number in (1, 2, 5, 6):
        leave(queue, requests[number])
    assert level.dead == 4
    assert take(queue) == [requests[0], requests[3]]
    assert (len(level.requests), level.dead, queue.size) == (4, 2, 2)
    queue.most = 1
    assert take(queue) == [requests[4]]
    assert (len(level.requests), level.dead, queue.size) == (1, 0, 1)


def test_priorities_are_forgotten_with_their_last_item() -> None:
    """All but one, which the next items probably have."""
    requests = [Request(n, priority=n) for n in range(5)]
    queue = queue_of(requests)

    assert take(queue) == requests[::-1]
    assert list(queue.levels) == [0]


@pytest.mark.parametrize(
    ("count", "sizes", "size"),
    [
        (3, (4, 8), 3),  # fewer than the smallest
        (4, (4, 8), 4),
        (5, (4, 8), 5),  # more than half of the next
        (5, (4, 10), 4),
        (5, (4, 11), 4),
        (6, (4, 11), 6),
        (9, (4, 8), 8),
        (100, (4, 8), 8),
        (8, (4, 8, 16), 8),
        (3, (1, 2, 8), 2),
        (5, (), 5),
    ],
)
def test_sizes_for_which_a_model_is_compiled(count: int, sizes: tuple[int, ...], size: int) -> None:
    """The largest one; or all, to be padded, where that wastes less than half."""
    assert fitting(count, sizes) == size


def test_a_batch_of_a_compiled_size() -> None:
    """The rest waits."""
    requests = [Request(n) for n in range(5)]
    queue = queue_of(requests, 32)
    queue.sizes = (4, 16)
    assert take(queue) == requests[:4]
    assert queue.size == 1


def test_the_last_of_several_priorities_is_the_only_one_again() -> None:
    """Then the heaps of priorities are not needed; with two they are."""
    requests = [Request(n, priority=n) for n in range(2)]
    queue = queue_of(requests, 1)
    levels = [queue.only]
    assert take(queue) == requests[1:]
    assert [*levels, queue.only] == [None, requests[0].level]
    assert take(queue) == requests[:1]
    assert list(queue.levels) == [0]
