"""Prometheus metrics of the events: how long they take to the index, and who records them."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from kvevents import EventLag, Listener


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


class RecordingCollector(Collector):
    """The recordings under way, the frames they dropped, and those that were refused."""

    def __init__(self, listener: Listener) -> None:
        self._recorders = listener.recorders

    @override
    def collect(self) -> Iterator[Metric]:
        recorders = self._recorders
        yield GaugeMetricFamily("kvatlas_recordings", "Recordings under way.", len(recorders))
        yield CounterMetricFamily(
            "kvatlas_recordings_dropped_frames",
            "Frames that are missing in a recording because its caller was too slow.",
            recorders.dropped,
        )
        yield CounterMetricFamily(
            "kvatlas_recordings_refused",
            "Recordings that were not begun because too many were under way.",
            recorders.refused,
        )
