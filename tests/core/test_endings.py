"""What a repair restores, and what ends and other limits leave."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from batchers import Adaptive, BatcherError
from batchers.core.group_queue import SETTLED, Request
from batchers.core.machine import Core
from batchers.core.outcomes import Err, Failed
from batchers.options import Changes, Options

from .steps import Fickle, running


def core_with(count: int, **options: Any) -> tuple[Core[int, int], list[Request[int]]]:
    """Return a core in which so many items wait, and their requests."""
    core: Core[int, int] = Core(Options(**options))
    requests = [Request(number) for number in range(count)]
    core.offer(requests, 0.0)
    return core, requests


def repaired(core: Core[int, int]) -> list[tuple[Request[int], int | Err]]:
    core.inconsistent = True
    settled = list(core.repair())
    core.inconsistent = False
    return settled


def test_all_that_wait_fail() -> None:
    """In the queue and in the halves of a batch, each with an error of its own; what runs goes on."""
    core, requests = core_with(6, max_batch_size=2, on_error="bisect", concurrency=2)
    first, second = running(core), running(core)
    core.finish(first, Failed(ValueError()), 1.0)
    settled = list(core.fail_waiting(lambda request: BatcherError(f"item {request.item}")))
    texts = {request.number - 1: str(outcome.error) for request, outcome in settled if isinstance(outcome, Err)}
    assert texts == {number: f"item {number}" for number in (0, 1, 4, 5)}
    stats = core.stats()
    assert (stats.failed, stats.queued, stats.running) == (4, 0, 2)
    assert list(core.finish(second, [2, 3], 2.0)) == [(requests[2], 2), (requests[3], 3)]
    assert core.idle


@pytest.mark.parametrize(("took", "in_flight"), [([1.0], 0), ([], 1)])
def test_whether_a_batch_has_ended(took: list[float], in_flight: int) -> None:
    """It has if its time is known and a request of it is settled: an expired one alone does not end it."""
    core, requests = core_with(2)
    batch = running(core)
    batch.took = took
    core.ended = [(requests[0], 0)]
    assert repaired(core) == [(requests[0], 0)]
    assert core.in_flight == in_flight
    assert requests[0].state == SETTLED


def test_what_is_on_its_way_and_has_arrived_does_not_wait() -> None:
    """A batch that runs and halves that wait for a slot may still be noted as on their way."""
    core, requests = core_with(6, max_batch_size=4, on_error="bisect")
    core.finish(running(core), Failed(ValueError()), 1.0)
    batch = running(core, 1.0)
    core._in_transition = requests[:4]
    assert repaired(core) == []
    assert core.queued == 2
    assert core.stats().running == 4
    assert list(core.finish(batch, [0, 1], 2.0)) == [(requests[0], 0), (requests[1], 1)]
    assert running(core, 2.0).requests == requests[2:4]


def test_a_batch_that_runs_does_not_hang() -> None:
    """Interrupted while it was given up."""
    core, _ = core_with(1, batch_timeout=1.0)
    batch = running(core)
    core._stalled[batch] = None
    repaired(core)
    assert (core.stalled, core.in_flight) == (0, 1)


def test_what_learns_learns_on() -> None:
    """From the batches that begin after the repair."""
    core, _ = core_with(4, max_batch_size=2, concurrency="auto", length=float)
    batch = running(core)
    model = core._model
    repaired(core)
    assert core._speed_up is not None
    assert core._model is not None
    assert core._model is not model
    assert core._groups._model is core._model
    assert core._observes
    assert core._unlearned == {batch}
    core.finish(batch, [0, 1], 1.0)
    assert core._unlearned == set()


@pytest.mark.parametrize(
    ("options", "observes"),
    [({}, False), ({"policy": Adaptive()}, True), ({"concurrency": "auto"}, True), ({"length": float}, True)],
)
def test_what_learns_nothing_watches_nothing(options: dict[str, Any], observes: bool) -> None:
    """Before and after a repair: neither the model of lengths nor that of slots is made without its option."""
    core, _ = core_with(2, max_batch_size=1, **options)
    running(core)
    for _ in range(2):
        assert (core._model is not None) is ("length" in options)
        assert (core._speed_up is not None) is ("concurrency" in options)
        assert core._observes is observes
        repaired(core)
        assert bool(core._unlearned) is observes


def test_a_rule_knows_the_slots_after_a_repair() -> None:
    """A policy spaces the batches of several slots, and holds those of one."""
    core, _ = core_with(1, policy=Adaptive(), concurrency=3)
    slots = core._rule._slots  # type: ignore[attr-defined]
    repaired(core)
    assert slots == 3
    assert core._rule._slots == 3  # type: ignore[attr-defined]


def test_a_request_in_no_place_cannot_be_withdrawn_after_a_repair() -> None:
    """It belongs to no core."""
    core, requests = core_with(2, max_batch_size=1)
    lost = Request(9)
    lost.level = requests[0].level
    lost.number = 9
    repaired(core)
    assert not core.withdraw(lost)
    assert core.withdraw(requests[1])
    assert core.queued == 1
    stranger: Core[int, int] = Core(Options())
    stranger.offer([Request(1)], 0.0)
    repaired(stranger)
    assert not stranger.withdraw(requests[0])


def test_a_group_that_is_broken_counts_as_failed() -> None:
    """One failure for each of its requests."""
    core: Core[int, int] = Core(Options(max_batch_size=1))
    group = Fickle()
    core.offer([Request(0, group=group), Request(1, group=group), Request(2)], 0.0)
    group.broken = True
    assert len(repaired(core)) == 2
    stats = core.stats()
    assert (stats.failed, stats.queued, stats.submitted) == (2, 1, 3)


def test_an_end_that_was_undone_is_not_counted() -> None:
    """Interrupted between the count of a batch and its end: it is counted when it ends again."""
    core, requests = core_with(5, max_batch_size=2)
    core.finish(running(core), [0, 1], 1.0)
    batch = running(core, 1.0)
    core._accounting.completed += 2
    repaired(core)
    assert core.stats().completed == 2
    core.finish(batch, [2, 3], 2.0)
    assert core.stats().completed == 4
    assert requests[4].level.queue.size == 1


def test_only_deadlines_are_watched() -> None:
    """No request without one is among them, also after a repair."""
    core, requests = core_with(3, max_batch_size=2)
    core.offer([Request(3), Request(4)], 0.0)
    core.offer([Request(5)], 0.0)
    running(core)
    assert not core._deadlines.keys
    repaired(core)
    assert not core._deadlines.keys
    core.offer([Request(6, deadline=5.0), Request(7)], 0.0)
    repaired(core)
    assert [request.deadline for request in core._deadlines.keys] == [5.0]
    assert requests[0].deadline == inf


@pytest.mark.parametrize(
    ("changes", "learns_anew"),
    [
        ({"max_queue_size": 7}, False),
        ({"max_batch_size": 7}, True),
        ({"max_batch_size": 7, "concurrency": 2, "timeout": 3.0, "policy": Adaptive()}, True),
    ],
)
def test_what_other_limits_forget(changes: Changes, learns_anew: bool) -> None:
    """What a policy has learned goes with the limits that it depends on."""
    core, _ = core_with(2, policy=Adaptive(max_hold=0.5))
    rule = core._rule
    assert list(core.reconfigure(core.options.changed(changes))) == []
    assert (core._rule is not rule) is learns_anew
    assert not core.inconsistent
    assert core.queued == 2


def test_nothing_is_left_to_deliver_after_a_collapse() -> None:
    """All requests are returned."""
    core, requests = core_with(2)
    core.ended = ((requests[0], 0),)
    core.inconsistent = True
    assert core.abort("a defect") == requests
    assert list(core.ended) == []
    assert not core.inconsistent
