"""What `benchmarks/faults` measures, in short: promises that don't depend on the speed of a machine."""

from __future__ import annotations

import asyncio

import pytest

from batchers import BatcherStoppedError, DeadlineExceededError, QueueFullError
from benchmarks.faults.calls import Item, answers_to, sort
from benchmarks.faults.client import Answered, Seen
from benchmarks.faults.hostile import attack
from benchmarks.faults.kills import Life, figures_of, share, slowest
from benchmarks.faults.overload import interval, recovery
from benchmarks.faults.plan import NONE, SCENARIOS
from benchmarks.faults.result import Fault, Subject
from tests.faults.whole import SEEDS, faulty, whole


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_that_end_in_every_way(backend: Subject, seed: int) -> None:
    """What is promised never to happen does not."""
    found = SCENARIOS["calls"].run(Fault(scenario="calls", subject=backend, size=4000, seed=seed)).figures
    promised = never("calls")
    assert {figure: found[figure] for figure in promised} == dict.fromkeys(promised, 0)
    assert found["calls"] >= 3960


@pytest.mark.anyio
@pytest.mark.parametrize("seed", SEEDS)
async def test_bodies_of_every_kind(backend: Subject, seed: int) -> None:
    """Neither, and their neighbours are not harmed; then all is as before."""
    with faulty(backend) as server:
        before = await whole(server)
        fault = Fault(scenario="hostile", subject=backend, size=1600, seed=seed)
        found = await attack(server.port, "/optimized_predict", fault)
        promised = never("hostile") - {"no answer within a second"}
        assert {figure: found[figure] for figure in promised} == dict.fromkeys(promised, 0)
        assert found["bodies"] == 1600
        await before.check()


def never(scenario: str) -> set[str]:
    """Return what is promised not to happen in it."""
    return {name for name, wanted in SCENARIOS[scenario].promised.items() if wanted == NONE}


def item(
    deed: str = "none", *, runs: int = 1, blamed: bool = False, left: bool = False, limited: bool = False
) -> Item:
    """Return one that has come so far."""
    found = Item(7, deed)
    found.runs, found.blamed, found.left, found.limited = runs, blamed, left, limited
    return found


@pytest.mark.parametrize(
    ("of", "answer", "error", "kind"),
    [
        (item(), -7, None, "answered"),
        (item(), -8, None, "wrong answers"),
        (item("fails"), ValueError(), None, "failed"),
        (item(), ValueError(), None, "wrong answers"),
        (item(runs=2), -7, None, "run twice"),
        (item(left=True), None, asyncio.CancelledError(), "cancelled"),
        (item(), None, asyncio.CancelledError(), "ended without a cause"),
        (item(limited=True), None, DeadlineExceededError(), "expired"),
        (item(), None, DeadlineExceededError(), "ended without a cause"),
        (item(runs=0), None, QueueFullError("", retry_after=1.0), "refused or stopped"),
        (item(), None, QueueFullError("", retry_after=1.0), "refused, but run"),
        (item("fails", blamed=True), None, ValueError(), "failed"),
        (item(), None, ValueError(), "failed with others"),
    ],
)
def test_kinds_of_outcomes(of: Item, answer: object, error: BaseException | None, kind: str) -> None:
    """Each is told from what the item has been through."""
    assert sort(of, answer, error, stopped=False) == kind


def test_kinds_of_outcomes_of_a_stop() -> None:
    """It is a cause, if there was one; and what it ends has not run."""
    assert sort(item(runs=0), None, BatcherStoppedError(), stopped=True) == "refused or stopped"
    assert sort(item(), None, BatcherStoppedError(), stopped=True) == "refused, but run"
    assert sort(item(runs=0), None, BatcherStoppedError(), stopped=False) == "ended without a cause"


def test_deeds() -> None:
    """Items fail alone, or with all others of their batch."""
    items = [item(runs=0), item("fails", runs=0)]
    assert answers_to(items)[0] == -7
    assert [each.blamed for each in items] == [False, True]
    assert [each.runs for each in items] == [1, 1]
    items.append(item("raises"))
    with pytest.raises(RuntimeError):
        answers_to(items)
    assert all(each.blamed for each in items)
    assert len(answers_to([item(), item("short")])) == 1


def test_recovery() -> None:
    """One slow answer is none of it; a part of the time in which a tenth is slow, or refused, is."""
    calm = Seen([Answered(number / 10, 200, 0.01, "") for number in range(60)])
    assert recovery(calm, calm) == 0.0
    late = [answer._replace(seconds=0.5) if answer.moment < 1.0 else answer for answer in calm.answers]
    assert recovery(calm, Seen(late)) == 1.0
    refused = [answer._replace(status=503) if answer.moment < 0.5 else answer for answer in calm.answers]
    assert recovery(calm, Seen(refused)) == 0.5
    dense = [Answered(number / 100, 200, 0.01, "") for number in range(600)]
    dense[550] = dense[550]._replace(seconds=0.5)
    assert recovery(calm, Seen(dense)) == 0.0


def test_from_batch_to_batch() -> None:
    """It is the mean over all of them."""
    assert interval([{"time": 5.0}, {"time": 5.5}, {"time": 7.0}]) == 1.0


def test_rates_around_a_kill() -> None:
    """They are of all kills together, as a share of the rate before; the slowest second is one from 2 s on."""
    steady = Life([number / 100 for number in range(-600, 800)])
    half = Life([moment for number, moment in enumerate(steady.moments) if moment < 0 or number % 2])
    gap = Life([moment for moment in steady.moments if not 3 <= moment < 4])
    down = Life([moment for moment in steady.moments if not 0 <= moment < 1], its_own=3, others=1)
    assert share([steady], 2, 8) == slowest([steady]) == 1.0
    assert share([half], 2, 8) == slowest([half]) == 0.5
    assert share([gap], 2, 8) == pytest.approx(5 / 6)
    assert share([gap, steady], 2, 8) == pytest.approx(11 / 12)
    assert slowest([gap]) == 0.0
    assert slowest([gap, steady]) == 0.5
    found = figures_of([down, steady], [half, half])
    assert (found["failed, of the victim's connections"], found["failed, of others"]) == (3, 1)
    assert (found["kills"], found["answered"]) == (2, 2 * 1400 - 100)
    assert found["rate within 2 s, against before"] == pytest.approx(0.75)
    assert found["rate from 2 s to 8 s, against before"] == 1.0
    assert found["from 2 s to 8 s, nothing killed"] == found["slowest of these seconds, nothing killed"] == 0.5
