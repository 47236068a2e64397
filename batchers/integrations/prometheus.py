"""The batcher's counters for Prometheus, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from batchers import BatcherStats, HistogramSnapshot

OUTCOMES = ("completed", "failed", "cancelled", "expired", "stopped", "rejected")


class BatcherCollector(Collector):
    """Turns one snapshot of the statistics into metrics, so that they fit together."""

    def __init__(self, stats: Callable[[], BatcherStats]) -> None:
        """Take the function that gives the snapshot."""
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        stats = self._stats()
        items = CounterMetricFamily("batcher_items", "Items by their outcome.", labels=["outcome"])
        for outcome in OUTCOMES:
            items.add_metric([outcome], getattr(stats, outcome))
        yield items
        batches = CounterMetricFamily("batcher_batches", "Batches started, by the reason.", labels=["reason"])
        for reason, number in stats.reasons.items():
            batches.add_metric([reason], number)
        yield batches
        yield GaugeMetricFamily(
            "batcher_padding_ratio", "Share of padding in the lengths of all items.", value=stats.padding
        )
        yield CounterMetricFamily("batcher_failed_batches", "Batches that failed.", value=stats.failed_batches)
        yield GaugeMetricFamily("batcher_queued_items", "Items that wait.", value=stats.queued)
        yield GaugeMetricFamily("batcher_running_items", "Items in running batches.", value=stats.running)
        yield GaugeMetricFamily("batcher_batches_in_flight", "Batches that run.", value=stats.batches_in_flight)
        yield GaugeMetricFamily("batcher_stalled_batches", "Batches given up that still run.", value=stats.stalled)
        yield GaugeMetricFamily("batcher_concurrency", "Batches that may run.", value=stats.concurrency)
        yield _histogram("batcher_batch_size_items", "Items in a batch.", stats.batch_size)
        yield _histogram(
            "batcher_queue_wait_seconds", "Time from acceptance to the start of the batch.", stats.queue_wait
        )
        yield _histogram("batcher_service_time_seconds", "Time that a batch took.", stats.service_time)


def _histogram(name: str, text: str, found: HistogramSnapshot) -> HistogramMetricFamily:
    ends = [*map(floatToGoString, found.bounds), "+Inf"]
    return HistogramMetricFamily(
        name, text, buckets=list(zip(ends, accumulate(found.counts), strict=True)), sum_value=found.total
    )


def make_registry(stats: Callable[[], BatcherStats]) -> CollectorRegistry:
    """Return a registry of its own, so that several apps can live in one process."""
    registry = CollectorRegistry()
    registry.register(BatcherCollector(stats))
    return registry
