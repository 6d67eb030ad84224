"""Metrics of the spans of traced calls: how many were sent, and why others were not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric


class SpanCounts:
    """What became of spans since the start."""

    def __init__(self) -> None:
        self.exported = 0
        self.waiting = 0
        """Ended, and neither exported nor dropped yet."""
        self.dropped: Counter[str] = Counter()
        """By reason."""


class SpanCollector(Collector):
    """The counts of spans. Args: counts: as they change."""

    def __init__(self, counts: SpanCounts) -> None:
        self._counts = counts

    @override
    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "kvatlas_spans_exported", "Spans that the collector has taken.", self._counts.exported
        )
        yield GaugeMetricFamily(
            "kvatlas_spans_waiting", "Ended spans that are to be sent.", self._counts.waiting
        )
        dropped = CounterMetricFamily(
            "kvatlas_spans_dropped",
            "Spans that the collector has not got: no room to wait (queue_full), the collector not "
            "reached (unreachable), too slow (timeout), refusing the request (refused) or single "
            "spans of it (rejected), the service stopped before (stopped); and requests of a "
            "stream beyond those that one trace holds (stream).",
            labels=["reason"],
        )
        for reason, count in dict(self._counts.dropped).items():
            dropped.add_metric([reason], count)
        yield dropped
