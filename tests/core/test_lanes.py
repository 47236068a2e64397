"""The waiting items of one group: counts, costs and tombstones."""

from __future__ import annotations

from math import inf

from batchers.lanes import FEW, QUEUED, SETTLED, Lane, Ticket


def add(lane: Lane[int], ticket: Ticket[int], number: int) -> bool:
    """Let a ticket wait, as the core does."""
    ticket.number = number
    ticket.bucket = lane.buckets.get(ticket.priority) or lane.new_bucket(ticket.priority)
    return lane.add(ticket)


def lane_of(tickets: list[Ticket[int]], most: float = inf, most_cost: float = inf) -> Lane[int]:
    """Return a lane in which they wait."""
    lane: Lane[int] = Lane("group", "owner", most, most_cost)
    for number, ticket in enumerate(tickets):
        add(lane, ticket, number)
    return lane


def take(lane: Lane[int]) -> list[Ticket[int]]:
    taken: list[Ticket[int]] = []
    lane.take(taken)
    return taken


def leave(lane: Lane[int], ticket: Ticket[int]) -> None:
    ticket.state = SETTLED
    lane.remove(ticket)


def test_a_ticket_with_nothing_special() -> None:
    """The defaults: no group, priority 0, no cost, no deadline, nobody who waits."""
    ticket = Ticket("item")

    assert (ticket.item, ticket.group, ticket.priority, ticket.cost) == ("item", None, 0, 0.0)
    assert (ticket.deadline, ticket.future, ticket.loop, ticket.state) == (inf, None, None, QUEUED)
    full = Ticket(1, "g", 2, 3.0, 4.0, "future", "loop")
    assert (full.group, full.priority, full.cost, full.deadline) == ("g", 2, 3.0, 4.0)
    assert (full.future, full.loop) == ("future", "loop")


def test_a_lane_that_is_new() -> None:
    """Empty and not full."""
    lane: Lane[int] = Lane("group", "owner")

    assert (lane.group, lane.owner, lane.size, lane.cost, lane.full) == ("group", "owner", 0, 0.0, False)


def test_the_head_may_change_only_with_the_first_of_a_priority() -> None:
    """Then the orders above the lane have to be looked at."""
    lane: Lane[int] = Lane("group")
    found = [add(lane, Ticket(n, priority=priority), n) for n, priority in enumerate([0, 0, 1, 1, 0])]

    assert found == [True, False, True, False, False]


def test_a_lane_that_is_full_says_so_until_it_is_ranked() -> None:
    """By the number of its items, or by their cost."""
    for lane in (Lane[int]("group", None, 3), Lane[int]("group", None, inf, 3.0)):
        found = []
        for number in range(5):
            found.append(add(lane, Ticket(number, cost=1.0), number))
            if number == 3:
                assert lane.fills()
                lane.full = True
        assert found == [True, False, True, True, False]


def test_costs() -> None:
    """They follow what enters, leaves and is taken; an empty lane has none, whatever was rounded."""
    tickets = [Ticket(n, cost=cost) for n, cost in enumerate([0.1, 0.2, 0.3, 4.0])]
    lane = lane_of(tickets, 2, 1.0)
    assert (lane.size, lane.cost) == (4, 0.1 + 0.2 + 0.3 + 4.0)
    leave(lane, tickets[3])
    assert lane.size == 3
    assert abs(lane.cost - 0.6) < 1e-9
    assert take(lane) == tickets[:2]
    assert abs(lane.cost - 0.3) < 1e-9
    assert take(lane) == tickets[2:3]
    assert (lane.size, lane.cost) == (0, 0.0)


def test_tombstones_in_the_middle() -> None:
    """They stay until they are the majority, and more than a few."""
    count = 4 * FEW
    tickets = [Ticket(n) for n in range(count)]
    lane = lane_of(tickets)
    bucket = tickets[0].bucket
    for ticket in tickets[1 : 2 * FEW + 1]:
        leave(lane, ticket)
    assert (len(bucket.tickets), bucket.dead) == (count, 2 * FEW)
    leave(lane, tickets[2 * FEW + 1])
    assert (len(bucket.tickets), bucket.dead) == (count - 2 * FEW - 1, 0)
    assert lane.waiting() == [tickets[0], *tickets[2 * FEW + 2 :]]
    assert lane.size == len(lane.waiting())


def test_few_tombstones_are_not_worth_a_new_deque() -> None:
    """Also where they are the majority; they go when they are first."""
    tickets = [Ticket(n) for n in range(FEW + 2)]
    lane = lane_of(tickets)
    bucket = tickets[0].bucket
    for ticket in tickets[1 : FEW + 1]:
        leave(lane, ticket)
    assert (len(bucket.tickets), bucket.dead, lane.size) == (FEW + 2, FEW, 2)
    leave(lane, tickets[0])
    assert (len(bucket.tickets), bucket.dead, lane.size) == (1, 0, 1)
    assert lane.head() is lane.oldest() is tickets[-1]


def test_tombstones_on_the_way_of_a_batch() -> None:
    """Taken out with it, and never in it."""
    tickets = [Ticket(n) for n in range(8)]
    lane = lane_of(tickets, 2)
    bucket = tickets[0].bucket
    for number in (1, 2, 5, 6):
        leave(lane, tickets[number])
    assert bucket.dead == 4
    assert take(lane) == [tickets[0], tickets[3]]
    assert (len(bucket.tickets), bucket.dead, lane.size) == (4, 2, 2)
    lane.most = 1
    assert take(lane) == [tickets[4]]
    assert (len(bucket.tickets), bucket.dead, lane.size) == (1, 0, 1)


def test_priorities_are_forgotten_with_their_last_item() -> None:
    """All but one, which the next items probably have."""
    tickets = [Ticket(n, priority=n) for n in range(5)]
    lane = lane_of(tickets)

    assert take(lane) == tickets[::-1]
    assert list(lane.buckets) == [0]
