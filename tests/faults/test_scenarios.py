"""What `benchmarks/faults` measures, in short: promises that don't depend on the speed of a machine."""

from __future__ import annotations

import asyncio

import pytest

from batchers import BatcherStoppedError, DeadlineExceededError, QueueFullError
from benchmarks.faults.calls import Item, answers_to, sort
from benchmarks.faults.kills import AFTER, BIN, Rates
from benchmarks.faults.plan import NONE, SCENARIOS
from benchmarks.faults.result import Fault, Subject
from tests.faults.whole import SEEDS

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("scenario", "size"), [("calls", 4000), ("hostile", 1600)])
def test_in_short(backend: Subject, scenario: str, size: int, seed: int) -> None:
    """Calls that end in every way, and bodies of every kind: what is promised never to happen does not."""
    found = SCENARIOS[scenario].run(Fault(scenario=scenario, subject=backend, size=size, seed=seed)).figures
    promised = [figure for figure, wanted in SCENARIOS[scenario].promised.items() if wanted == NONE]
    assert {figure: found[figure] for figure in promised} == dict.fromkeys(promised, 0)
    assert next(iter(found.values())) >= size * 0.99


def item(deed: str = "none", *, runs: int = 1, blamed: bool = False) -> Item:
    """Return one that has come so far."""
    found = Item(7, deed)
    found.runs, found.blamed = runs, blamed
    return found


@pytest.mark.parametrize(
    ("of", "answer", "error", "kind"),
    [
        (item(), -7, None, "answered"),
        (item(), -8, None, "wrong answers"),
        (item("fails"), ValueError(), None, "failed"),
        (item(), ValueError(), None, "wrong answers"),
        (item(runs=2), -7, None, "run twice"),
        (item(), None, asyncio.CancelledError(), "cancelled"),
        (item(), None, DeadlineExceededError(), "expired"),
        (item(runs=0), None, QueueFullError("", retry_after=1.0), "refused or stopped"),
        (item(), None, BatcherStoppedError(), "refused, but run"),
        (item("fails", blamed=True), None, ValueError(), "failed"),
        (item(), None, ValueError(), "failed with others"),
    ],
)
def test_kinds_of_outcomes(of: Item, answer: object, error: BaseException | None, kind: str) -> None:
    """Each is told from what the item has been through."""
    assert sort(of, answer, error) == kind


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


def test_the_full_rate() -> None:
    """It is back at the end of the last window in which too little was answered."""
    steady = [number / 100 for number in range(round(100 * (3 + AFTER)))]
    assert Rates(steady, 3.0).return_seconds == 0.0
    assert Rates(steady, 3.0).share_in_the_end == pytest.approx(1.0, abs=0.03)
    gap = [moment for moment in steady if not 3.1 < moment < 3.75]
    assert Rates(gap, 3.0).return_seconds == pytest.approx(4 * BIN)
    assert Rates(gap, 3.0).share_in_the_end == pytest.approx(1.0, abs=0.03)
    assert Rates([each for each in steady if each < 5], 3.0).return_seconds == pytest.approx(AFTER - BIN)
