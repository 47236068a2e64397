"""Ordering and result routing, whatever the order of finishing, cancelling, failing and stopping."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any

from hypothesis import HealthCheck, given, settings

from batchers import BatcherStoppedError, QueueFullError

from .scenario import FAIL, Script, play, scripts

often = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""The fixture only names the backend."""


@often
@given(script=scripts)
def test_routing(backend: str, script: Script) -> None:
    """Every call ends; an answer is the answer to the caller's own item; errors are of the right kind."""
    life = play(backend, script)

    assert set(life.outcomes) == set(range(1, len(script.calls) + 1))
    ran = set(chain(*life.batches))
    for number, call in enumerate(script.calls, 1):
        outcome = life.outcomes[number]
        item = (number, call.priority, call.group)
        if isinstance(outcome, tuple):
            assert outcome == ("answer", *item)
            assert item in ran
        elif isinstance(outcome, asyncio.CancelledError):
            assert call.leaves_after is not None
        elif isinstance(outcome, QueueFullError | BatcherStoppedError):
            assert item not in ran
        elif isinstance(outcome, ValueError):
            assert script.fails
            if script.bisect:
                assert number % FAIL == 0
        else:
            assert call.timeout == 0.0


@often
@given(script=scripts)
def test_ordering(backend: str, script: Script) -> None:
    """Items of one group and priority start in the order of their acceptance; batches keep their limits."""
    life = play(backend, script)
    for batch in life.batches:
        assert 1 <= len(batch) <= script.max_batch_size
        assert len({group for _, _, group in batch}) == 1
        assert sorted(batch, key=lambda item: (-item[1], item[0])) == batch
    assert life.most_at_once <= script.concurrency
    seen: set[tuple[int, int, int]] = set()
    first_runs = []
    for batch in life.batches:
        first_runs.append([item for item in batch if item not in seen])
        seen.update(batch)
    for kind in {item[1:] for item in seen}:
        parts = [[item for item in batch if item[1:] == kind] for batch in first_runs]
        if backend == "threading" and script.concurrency > 1:
            # Two workers that took batches one after the other may call the function in either order.
            parts.sort()
        started = list(chain(*parts))
        assert started == sorted(started)
    if not (script.bisect and script.fails):
        assert len(seen) == len(list(chain(*life.batches))), "an item ran twice"


@often
@given(script=scripts)
def test_counters(backend: str, script: Script) -> None:
    """At the end each call is counted once, where it belongs."""
    life = play(backend, script)
    kinds: dict[str, Any] = {
        "completed": lambda outcome: isinstance(outcome, tuple),
        "failed": lambda outcome: isinstance(outcome, ValueError),
        "expired": lambda outcome: isinstance(outcome, TimeoutError),
    }
    stats = life.stats

    assert stats.queued == stats.running == stats.batches_in_flight == 0
    assert stats.batches == len(life.batches)
    assert stats.batch_size.total == sum(map(len, life.batches))
    assert stats.submitted == (
        stats.completed + stats.failed + stats.cancelled + stats.expired + stats.stopped + stats.rejected
    )
    cancelled = [call for call in script.calls if call.leaves_after is not None]
    for name, is_kind in kinds.items():
        seen = sum(map(is_kind, life.outcomes.values()))
        # A call that was cancelled with its answer on the way counts as answered.
        assert seen <= getattr(stats, name) <= seen + len(cancelled)
