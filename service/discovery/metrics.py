"""Prometheus metrics: which pods were found, by whom, and what came of asking them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily as CounterFamily
from prometheus_client.core import GaugeMetricFamily as GaugeFamily
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from service.discovery.fleet import DiscoveredFleet


class DiscoveryCollector(Collector):
    """The discovered pods, read at each scrape."""

    def __init__(self, fleet: DiscoveredFleet) -> None:
        self._fleet = fleet

    @override
    def collect(self) -> Iterator[Metric]:
        fleet = self._fleet
        told = GaugeFamily(
            "kvatlas_discovered_pods",
            "Pods that a discovery tells of; none while it has not told yet.",
            labels=["by"],
        )
        for name, pods in fleet.told.items():
            told.add_metric([name], len(pods))
        yield told
        states = GaugeFamily(
            "kvatlas_discovered_pods_by_state",
            "Discovered pods: asked, waiting, not_ready, or failed if the engine cannot be asked.",
            labels=["state"],
        )
        counts = dict.fromkeys(("asked", "failed", "not_ready", "waiting"), 0)
        for state in list(fleet.states.values()):
            counts[state.word] += 1
        for word, count in counts.items():
            states.add_metric([word], count)
        yield states
        asked = CounterFamily(
            "kvatlas_engines_asked", "Times that engines were asked, by result.", labels=["result"]
        )
        for result, count in sorted(fleet.asked.items()):
            asked.add_metric([result], count)
        yield asked
        yield CounterFamily(
            "kvatlas_discovered_pods_refused",
            "Pods that were refused because there were too many (events.pods).",
            fleet.refused,
        )
