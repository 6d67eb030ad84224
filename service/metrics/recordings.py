"""Those who record frames, and what they were too slow or too many for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from kvevents import Listener


class RecordingCollector(Collector):
    """The recordings under way, the frames they dropped, and those that were refused."""

    def __init__(self, listener: Listener) -> None:
        self._recorders = listener.recorders

    def collect(self) -> Iterator[Metric]:
        """Every family, as it is now."""
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
