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
    from service.discovery.kubernetes import KubernetesStatus


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
        yield GaugeFamily(
            "kvatlas_served_names_left_out",
            "Names of models and adapters that mean different things on different pods, or are too "
            "many: callers cannot use them.",
            fleet.names_left_out,
        )
        yield CounterFamily(
            "kvatlas_discovered_pods_refused",
            "Pods that were refused because there were too many (events.pods).",
            fleet.refused,
        )


class KubernetesCollector(Collector):
    """How recent the pods of a cluster are, and what went wrong, read at each scrape."""

    def __init__(self, status: KubernetesStatus) -> None:
        self._status = status

    @override
    def collect(self) -> Iterator[Metric]:
        status = self._status
        age = GaugeFamily(
            "kvatlas_kubernetes_age_seconds",
            "Since the API server last said which pods there are; none while it has not yet.",
        )
        if (seconds := status.age_seconds()) is not None:
            age.add_metric([], seconds)
        yield age
        yield GaugeFamily(
            "kvatlas_kubernetes_watched",
            "Whether watches of all namespaces are open, so that changes are known at once.",
            status.is_watched,
        )
        yield CounterFamily("kvatlas_kubernetes_lists", "Complete lists.", status.lists)
        yield CounterFamily(
            "kvatlas_kubernetes_relists", "Of these, all but the first ones.", status.relists
        )
        for name, text, label, counts in (
            ("events", "Events of watches, by type.", "type", status.events),
            ("failures", "Lists and watches that failed, by reason.", "reason", status.failures),
            ("skipped", "What was left out, by reason.", "reason", status.skipped.counts),
        ):
            family = CounterFamily(f"kvatlas_kubernetes_{name}", text, labels=[label])
            for key, count in sorted(counts.items()):
                family.add_metric([key], count)
            yield family
