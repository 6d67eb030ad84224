"""Prometheus metrics, read at each scrape, so that nothing else knows about them.

In path order:

    server          serves them over HTTP; latency and outcome of calls
    state           the index, the events, the diagnostics, the snapshots
    events          how long events take to the index
    replication     the other replicas, and the store
    tokenization    what is tokenized, how long it takes, what the caches save
    loops           the background loops that have died
"""

from __future__ import annotations

from service.metrics.events import EventLagCollector
from service.metrics.loops import LoopCollector
from service.metrics.replication import ReplicationCollector
from service.metrics.server import CallMetrics, MetricsServer
from service.metrics.state import StateCollector
from service.metrics.tokenization import TokenizationCollector

__all__ = [
    "CallMetrics",
    "EventLagCollector",
    "LoopCollector",
    "MetricsServer",
    "ReplicationCollector",
    "StateCollector",
    "TokenizationCollector",
]
