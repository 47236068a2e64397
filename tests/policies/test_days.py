"""What learning policies decide, from a seed: a change of a rule that nobody meant shows here."""

from __future__ import annotations

import json

import pytest

from .days import DAYS, FILE, LINES, World, digests, record
from .devices import SEEDS, some_slots

KEPT = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", DAYS)
def test_a_day_as_it_was(name: str) -> None:
    """All decisions are those that were kept; `python -m tests.policies.days` keeps others."""
    found = record(DAYS[name])
    if found != KEPT[name]:
        lines = World(DAYS[name]).live()
        pairs = enumerate(zip(digests(lines), KEPT[name]["digests"], strict=False))
        first = next((place for place, (now, then) in pairs if now != then), 0)
        pytest.fail("other decisions than before among these:\n" + "\n".join(lines[first * LINES :][:LINES]))


@pytest.mark.parametrize("seed", SEEDS)
def test_slots_as_they_were(seed: int) -> None:
    """The same for the slots that are chosen on random devices."""
    assert digests(some_slots(seed)) == KEPT[f"slots, seed {seed}"]


def test_all_days_are_kept() -> None:
    """And no others."""
    assert set(KEPT) == {*DAYS, *(f"slots, seed {seed}" for seed in SEEDS)}
