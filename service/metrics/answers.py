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
    """Counts prompts by what the pod with the longest match holds, and how far to trust it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._shares = Histogram(_SHARES)
        self._unmatched = 0
        self._states: dict[TrustState, int] = dict.fromkeys(TrustState, 0)
        registry.register(self)

    def matched(self, blocks: int, total: int, state: TrustState | None) -> None:
        """Count a prompt of `total` full blocks.

        Args:
            blocks: how many of them the pod with the longest match holds.
            total: at least 1.
            state: the trust state of that pod; None if no pod holds any block.
        """
        self._shares.observe(blocks / total)
        if state is None:
            self._unmatched += 1
        else:
            self._states[state] += 1

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
            "kvatlas_answers",
            "Prompts scored, by the trust state of the pod with the longest match.",
            labels=["state"],
        )
        states.add_metric(["no_match"], self._unmatched)
        for state, count in self._states.items():
            states.add_metric([state.value], count)
        yield states
