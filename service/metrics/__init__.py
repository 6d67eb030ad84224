"""Prometheus metrics.

server          serves them over HTTP; latency and outcome of calls
state           the index, the events, the diagnostics, the snapshots
replication     how this replica stands to the others and to the store
tokenization    what is tokenized, how long it takes, what the caches save
"""

from __future__ import annotations

from service.metrics.replication import ReplicationCollector
from service.metrics.server import CallMetrics, MetricsServer
from service.metrics.state import StateCollector
from service.metrics.tokenization import TokenizationCollector

__all__ = [
    "CallMetrics",
    "MetricsServer",
    "ReplicationCollector",
    "StateCollector",
    "TokenizationCollector",
]
