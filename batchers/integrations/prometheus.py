"""Metrics of batchers for Prometheus, read when Prometheus asks for them; needs prometheus-client.

    from prometheus_client import REGISTRY
    from batchers.integrations.prometheus import BatcherCollector

    REGISTRY.register(BatcherCollector(embedder, ranker))

Each metric has the label `batcher`, with the name of the batcher. The metrics of one batcher in one answer come
from one snapshot, so they fit together.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from batchers import Batcher, BatcherStats, HistogramSnapshot, OptionError

try:
    from prometheus_client import Metric
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ModuleNotFoundError as error:
    msg = "batchers.integrations.prometheus needs prometheus-client: install the extra `prometheus`"
    raise ModuleNotFoundError(msg, name=error.name) from error

_OUTCOMES = ("completed", "failed", "cancelled", "expired", "stopped", "rejected")

_GAUGES = {
    "padding": ("batcher_padding_ratio", "Share of padding in the lengths of all items."),
    "queued": ("batcher_queued_items", "Items that wait."),
    "running": ("batcher_running_items", "Items in running batches."),
    "batches_in_flight": ("batcher_batches_in_flight", "Batches that run."),
    "stalled": ("batcher_stalled_batches", "Batches given up that still run."),
    "concurrency": ("batcher_concurrency", "Batches that may run."),
}
"""Fields of `BatcherStats`, with the names and the help texts of their metrics."""

_HISTOGRAMS = {
    "batch_size": ("batcher_batch_size_items", "Items in a batch."),
    "queue_wait": ("batcher_queue_wait_seconds", "Time from acceptance to the start of the batch."),
    "service_time": ("batcher_service_time_seconds", "Time that a batch took."),
}

_LABELS = ("batcher",)


class BatcherCollector(Collector):
    """The metrics of one or more batchers of a process.

    The collector refers to the batchers weakly: the metrics of a batcher end with it. One registry takes one
    collector of this class; `add` adds more batchers to it.
    """

    def __init__(self, *batchers: Batcher[Any, Any]) -> None:
        """Initialise the collector with these batchers; raises the errors of `add`."""
        self._batchers: dict[str, weakref.ref[Batcher[Any, Any]]] = {}
        for batcher in batchers:
            self.add(batcher)

    def add(self, batcher: Batcher[Any, Any], name: str | None = None) -> None:
        """Add a batcher, with `name` as its label; default None: its own name.

        Raises OptionError if another batcher has that label.
        """
        label = batcher.name if name is None else name
        known = self._batchers.get(label)
        if known is not None and known() not in {None, batcher}:
            msg = f"another batcher has the label {label!r}: pass name=, or set the option `name` of one of them"
            raise OptionError(msg)
        self._batchers[label] = weakref.ref(batcher)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        found = {}
        for label, reference in list(self._batchers.items()):
            batcher = reference()
            if batcher is None:
                self._batchers.pop(label, None)
            else:
                found[label] = batcher.stats()
        yield from _counters(found)
        for field, (name, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=_LABELS)
            for label, stats in found.items():
                gauge.add_metric((label,), getattr(stats, field))
            yield gauge
        for field, (name, text) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, text, labels=_LABELS)
            for label, stats in found.items():
                snapshot: HistogramSnapshot = getattr(stats, field)
                ends = [*map(floatToGoString, snapshot.bounds), "+Inf"]
                buckets = list(zip(ends, accumulate(snapshot.counts), strict=True))
                histogram.add_metric((label,), buckets=buckets, sum_value=snapshot.total)
            yield histogram


def _counters(found: dict[str, BatcherStats]) -> Iterator[Metric]:
    items = CounterMetricFamily("batcher_items", "Items by their outcome.", labels=(*_LABELS, "outcome"))
    batches = CounterMetricFamily("batcher_batches", "Batches started, by reason.", labels=(*_LABELS, "reason"))
    failed = CounterMetricFamily("batcher_failed_batches", "Batches that failed.", labels=_LABELS)
    for label, stats in found.items():
        for outcome in _OUTCOMES:
            items.add_metric((label, outcome), getattr(stats, outcome))
        for reason, number in stats.reasons.items():
            batches.add_metric((label, reason), number)
        failed.add_metric((label,), stats.failed_batches)
    yield from (items, batches, failed)
