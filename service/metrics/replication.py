"""Prometheus metrics of an index that several replicas share, read at each scrape."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from service.replication import StoreLookup


class ReplicationCollector(Collector):
    """How this replica stands to the others and to the store."""

    def __init__(self, shared: StoreLookup) -> None:
        self._shared = shared

    def collect(self) -> Iterator[Metric]:
        """All families."""
        shared, replica = self._shared, self._shared.replica
        copy, writer = replica.follower, replica.writer
        yield GaugeMetricFamily(
            "kvatlas_replicas_live", "Replicas that share the index.", len(replica.live_replicas)
        )
        yield GaugeMetricFamily(
            "kvatlas_ranks_owned", "Ranks whose events are applied here.", len(writer.owned)
        )
        yield GaugeMetricFamily(
            "kvatlas_ranks_followed", "Ranks that other replicas apply.", len(copy.remote_workers)
        )
        behind = shared.seconds_behind(time.monotonic())
        if behind is not None:
            yield GaugeMetricFamily(
                "kvatlas_copy_behind_seconds",
                "Time since the copy was last known to be as the store.",
                behind,
            )
        yield CounterMetricFamily(
            "kvatlas_copy_entries", "Changes of others put into the copy.", copy.entries
        )
        yield CounterMetricFamily(
            "kvatlas_copy_loads", "Ranks of others loaded into the copy as a whole.", copy.loads
        )
        yield CounterMetricFamily(
            "kvatlas_store_writes", "Round trips that wrote to the store.", writer.rounds
        )
        yield CounterMetricFamily(
            "kvatlas_store_lookups", "Prompts asked of the store itself.", shared.lookups
        )
        yield CounterMetricFamily(
            "kvatlas_store_lookups_failed", "Of these, those that it did not answer.", shared.failed
        )
        failures = CounterMetricFamily(
            "kvatlas_store_failures", "Calls of the store that failed.", labels=["kind"]
        )
        counted: Counter[str] = writer.failures + copy.failures + replica.failures
        for kind, count in counted.items():
            failures.add_metric([kind], count)
        yield failures
