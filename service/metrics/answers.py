"""Metrics of the answers to Score: how much of the prompts was held, and how far to rely on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from indexer import TrustState
from service.metrics.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class AnswerMetrics(Collector):
    """Counts prompts by the share that the best pod holds, and entries by their trust state."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._shares = Histogram(_SHARES)
        self.states: dict[TrustState, int] = dict.fromkeys(TrustState, 0)
        """How many pods were scored in each trust state."""
        registry.register(self)

    def matched(self, blocks: int, total: int) -> None:
        """Count a prompt of `total` full blocks, of which the best pod holds so many."""
        self._shares.observe(blocks / total)

    @override
    def collect(self) -> Iterator[Metric]:
        shares = HistogramMetricFamily(
            "kvatlas_matched_share",
            "Share of a prompt's full blocks that the pod with the longest match holds.",
            buckets=self._shares.buckets,
            sum_value=self._shares.total,
        )
        yield shares
        states = CounterMetricFamily(
            "kvatlas_pods_scored", "Pods in answers, by their trust state.", labels=["state"]
        )
        for state, count in self.states.items():
            states.add_metric([state.value], count)
        yield states
