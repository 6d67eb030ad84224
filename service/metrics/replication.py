"""Prometheus metrics of an index that several replicas share, read at each scrape."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from service.replication.shared import SharedReplica


class ReplicationCollector(Collector):
    """How this replica stands to the others and to the store."""

    def __init__(self, replica: SharedReplica) -> None:
        self._replica = replica

    @override
    def collect(self) -> Iterator[Metric]:
        replica = self._replica
        follower, lookup, writer = replica.follower, replica.lookup, replica.writer
        for name, text, value in (
            ("replicas_live", "Live replicas that share the index.", len(replica.membership.live)),
            ("ranks_owned", "Ranks whose events this replica applies.", len(writer.owned)),
            (
                "ranks_followed",
                "Ranks whose events other replicas apply.",
                len(follower.workers.remote),
            ),
            (
                "copy_behind_seconds",
                "Time since the copy of other replicas' blocks was last known to be up to date.",
                lookup.seconds_behind(time.monotonic()),
            ),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"kvatlas_{name}", text, value)
        for name, text, count in (
            ("copy_entries", "Journal entries applied to the copy.", follower.entries),
            ("copy_loads", "Ranks loaded into the copy as a whole.", follower.loads),
            ("store_writes", "Round trips that wrote to the store.", writer.rounds),
            ("store_lookups", "Prompts looked up in the store.", lookup.lookups),
            ("store_lookups_failed", "Prompts that the store did not answer.", lookup.failed),
        ):
            yield CounterMetricFamily(f"kvatlas_{name}", text, count)
        failures = CounterMetricFamily(
            "kvatlas_store_failures", "Failed calls of the store.", labels=["kind"]
        )
        for kind, count in self._failures().items():
            failures.add_metric([kind], count)
        yield failures

    def _failures(self) -> Counter[str]:
        total: Counter[str] = Counter(malformed=0)
        for failures in self._replica.all_failures():
            total.update(dict(failures))
        return total
