"""The metrics of several batchers in one registry."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from batchers import OptionError, create_batcher
from batchers.integrations.prometheus import BatcherCollector


def metrics_of(registry: CollectorRegistry) -> dict[str, float]:
    """Return the values by their names with labels."""
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_several_batchers(backend: str) -> None:
    """Each has its label; a batcher that is gone takes its metrics with it."""
    registry = CollectorRegistry()
    first: Any = create_batcher(backend, list, name="first")
    second: Any = create_batcher(backend, list, name="second")
    collector = BatcherCollector(first)
    registry.register(collector)
    collector.add(second)
    collector.add(second)
    assert [first.call(1), first.call(2), second.call(3)] == [1, 2, 3]

    found = metrics_of(registry)
    assert found['batcher_items_total{batcher="first",outcome="completed"}'] == 2
    assert found['batcher_items_total{batcher="second",outcome="completed"}'] == 1
    assert found['batcher_queued_items{batcher="second"}'] == 0
    assert found['batcher_batch_size_items_bucket{batcher="first",le="+Inf"}'] == 2
    first.close()
    second.close()
    del second
    gc.collect()
    assert {"first"} == {name.split('"')[1] for name in metrics_of(registry)}


def test_two_of_one_name(backend: str) -> None:
    """The second one needs another label."""
    first: Any = create_batcher(backend, list)
    second: Any = create_batcher(backend, list)
    assert first.name == second.name
    with pytest.raises(OptionError, match="pass name="):
        BatcherCollector(first, second)
    collector = BatcherCollector(first)
    collector.add(second, "other")
    registry = CollectorRegistry()
    registry.register(collector)
    assert 'batcher_queued_items{batcher="other"}' in metrics_of(registry)
