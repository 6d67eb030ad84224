"""Prometheus metrics of the way of events into the index, read at each scrape."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from kvevents import EventLag


class EventLagCollector(Collector):
    """How long events take from their engine to the index."""

    def __init__(self, lag: EventLag) -> None:
        self._lag = lag

    @override
    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "kvatlas_event_lag_seconds",
            "Seconds between the publication of a frame, by its engine's clock, and its "
            "application, by this host's.",
        )
        bounds = [*map(str, self._lag.BOUNDS), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._lag.counts), strict=True))
        family.add_metric([], buckets, self._lag.total)
        yield family
